//! The end of a locker; and backends without locks.

use super::play::{Play, millis};
use crate::lock_manager::options::{LockManagerOptions, NoLockBackend};
use crate::options::{LockOptions, OnMissingLock, WaitStrategy};
use crate::session::Backend;

const NOTHING: [&str; 0] = [];

fn no_wait() -> LockOptions {
    LockOptions::no_wait()
}

fn forever() -> LockOptions {
    LockOptions::wait_forever()
}

fn closes(play: &mut Play, who: &'static str) -> Vec<String> {
    play.core.close(who, play.now);
    play.commands()
}

fn shuts_down(play: &mut Play) -> Vec<String> {
    play.core.shut_down(play.now);
    play.commands()
}

#[test]
fn nothing_was_begun_so_it_is_closed() {
    let mut play = Play::new(LockManagerOptions::new());
    assert!(!play.core.is_finished());
    assert_eq!(closes(&mut play, "end"), ["closed end"]);
    assert!(play.core.is_finished());
    assert_eq!(closes(&mut play, "again"), ["closed again"]);
}

#[test]
fn it_is_closed_when_the_last_session_is_gone() {
    let mut play = Play::opened(LockManagerOptions::new());
    assert_eq!(closes(&mut play, "end"), ["close s1"]);
    assert!(!play.core.is_finished());
    assert_eq!(play.is_gone("s1"), ["closed end"]);
    assert!(play.core.is_finished());
    assert_eq!(play.timers(), 0);
}

#[test]
fn those_who_wait_are_told_and_those_who_hold_keep_it() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &no_wait());
    play.answers("s1", "y");
    play.asks("ben", 1, &forever());
    play.asks("cy", 2, &LockOptions::wait_up_to(millis(20)));
    play.answers("s1", "n");
    let mut told = closes(&mut play, "end");
    told.sort();
    assert_eq!(told, ["refused ben: Closed", "refused cy: Closed"]);
    assert_eq!(play.asks("dot", 1, &no_wait()), ["refused dot: Closed"]);
    assert_eq!(play.releases("ann"), ["send s1: give back 1"]);
    assert!(!play.core.is_finished());
    assert_eq!(play.answers("s1", "y"), ["released ann", "close s1"]);
    assert_eq!(play.timers(), 0);
    assert_eq!(play.is_gone("s1"), ["closed end"]);
}

#[test]
fn it_waits_for_an_answer_that_may_be_a_grant() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &forever());
    assert_eq!(closes(&mut play, "end"), ["refused ann: Closed"]);
    assert_eq!(closes(&mut play, "too"), NOTHING);
    assert_eq!(play.answers("s1", "y"), ["send s1: give back 1"]);
    assert_eq!(play.answers("s1", "y"), ["close s1"]);
    assert_eq!(play.is_gone("s1"), ["closed end", "closed too"]);
}

#[test]
fn a_session_that_is_being_opened_goes_when_it_is_there_or_cannot_be_had() {
    let mut play = Play::new(LockManagerOptions::new());
    play.asks("ann", 1, &forever());
    assert_eq!(closes(&mut play, "end"), ["refused ann: Closed"]);
    assert_eq!(play.opens("s1"), ["send s1: take 1"]);
    assert_eq!(play.answers("s1", "n"), ["close s1"]);
    let mut play = Play::new(LockManagerOptions::new());
    play.asks("ann", 1, &forever());
    closes(&mut play, "end");
    assert_eq!(play.cannot_open("s1"), ["closed end"]);
}

#[test]
fn a_wait_on_the_server_is_ended() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &forever().strategy(WaitStrategy::Block));
    play.answers("s1", "n");
    let told = ["abandon s2", "refused ann: Closed", "close s1"];
    assert_eq!(closes(&mut play, "end"), told);
    assert_eq!(play.is_gone("s1"), NOTHING);
    assert_eq!(play.is_gone("s2"), ["closed end"]);
}

#[test]
fn a_wait_that_does_not_come_back_keeps_nobody_from_closing() {
    let mut play = Play::opened(LockManagerOptions::new());
    let block = LockOptions::wait_up_to(millis(20)).strategy(WaitStrategy::Block);
    play.asks("ann", 1, &block);
    play.answers("s1", "n");
    play.later(millis(20));
    assert_eq!(closes(&mut play, "end"), ["close s1"]);
    play.is_gone("s1");
    assert_eq!(play.later(millis(5_000)), ["abandon s2"]);
    assert_eq!(play.is_gone("s2"), ["closed end"]);
}

#[test]
fn a_lost_session_keeps_nobody_from_closing() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &no_wait());
    play.answers("s1", "y");
    closes(&mut play, "end");
    play.later(millis(5_000));
    assert_eq!(play.dies("s1"), ["lost s1", "abandon s1"]);
    assert_eq!(play.is_gone("s1"), ["closed end"]);
}

#[test]
fn a_locker_that_is_shut_down_gives_everything_back() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &no_wait());
    play.answers("s1", "y");
    play.asks("ben", 1, &forever());
    let told = shuts_down(&mut play);
    assert_eq!(
        told,
        [
            "refused ben: Closed",
            "lost s1",
            "lost process",
            "send s1: give back 1"
        ]
    );
    assert_eq!(play.releases("ann"), ["released ann: Lost"]);
    assert_eq!(play.answers("s1", "y"), ["close s1"]);
    play.is_gone("s1");
    assert!(play.core.is_finished());
}

#[test]
fn a_locker_that_is_closed_can_be_shut_down() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &no_wait());
    play.answers("s1", "y");
    closes(&mut play, "end");
    let told = ["lost s1", "lost process", "send s1: give back 1"];
    assert_eq!(shuts_down(&mut play), told);
    play.answers("s1", "y");
    assert_eq!(play.is_gone("s1"), ["closed end"]);
}

#[test]
fn a_locker_that_is_shut_down_while_it_draws_gives_the_lock_back() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &forever().shared());
    play.answers("s1", "y");
    play.asks_fenced("ben", 1, &forever().shared());
    shuts_down(&mut play);
    assert_eq!(play.answers("s1", "y"), ["send s1: give back shared 1"]);
}

fn without(policy: NoLockBackend) -> Play {
    let mut play = Play::new(LockManagerOptions::new().on_no_lock_backend(policy));
    play.asks("ann", 1, &forever());
    play.asks_fenced("ben", 1, &LockOptions::wait_up_to(millis(20)));
    play
}

#[test]
fn where_there_are_no_locks_everybody_is_let_in() {
    let mut play = without(NoLockBackend::NoOp);
    let told = play.opens_to("s1", Backend::Sqlite);
    assert_eq!(told[..2], ["close s1", "granted ann"]);
    assert!(told[2].starts_with("granted ben with "), "{told:?}");
    assert_eq!((play.keys(), play.timers()), (0, 0));
    assert_eq!(play.asks("cy", 1, &no_wait()), ["granted cy"]);
    assert_eq!(play.releases("ann"), ["released ann"]);
    let refuse = no_wait().on_missing_lock(OnMissingLock::Error);
    let told = play.asks("dot", 1, &refuse);
    assert_eq!(told, ["refused dot: NoMutualExclusion"]);
}

#[test]
fn where_there_are_no_locks_tokens_still_grow() {
    let mut play = without(NoLockBackend::NoOp);
    play.opens_to("s1", Backend::Sqlite);
    let token = |told: Vec<String>| -> i64 {
        let words: Vec<_> = told[0].split(' ').collect();
        words[3].parse().expect("a token")
    };
    let first = token(play.asks_fenced("cy", 1, &no_wait()));
    assert!(first < token(play.asks_fenced("dot", 1, &no_wait())));
}

#[test]
fn the_queue_of_the_process_is_a_lock_of_its_own() {
    let mut play = without(NoLockBackend::InProcess);
    assert_eq!(
        play.opens_to("s1", Backend::Sqlite),
        ["close s1", "granted ann"]
    );
    assert_eq!(
        play.asks("cy", 1, &no_wait()),
        ["refused cy: HeldElsewhere"]
    );
    let told = play.releases("ann");
    assert!(told[0].starts_with("granted ben with "), "{told:?}");
    assert_eq!(told[1], "released ann");
    assert_eq!(play.releases("ben"), ["released ben"]);
    assert_eq!((play.keys(), play.timers()), (0, 0));
}

/// The bounds of a hand-off are for other processes.
#[test]
fn in_the_process_a_shared_lock_is_shared_however_long() {
    let options = LockManagerOptions::new().on_no_lock_backend(NoLockBackend::InProcess);
    let mut play = Play::new(options.hand_off_limit(1, millis(1)));
    play.asks("ann", 1, &forever().shared());
    play.opens_to("s1", Backend::Sqlite);
    play.later(millis(1_000));
    assert_eq!(play.asks("ben", 1, &no_wait().shared()), ["granted ben"]);
    assert_eq!(play.asks("cy", 1, &forever()), NOTHING);
    play.drops("ann");
    assert_eq!(play.drops("ben"), ["granted cy"]);
    play.asks("dot", 1, &forever());
    assert_eq!(play.drops("cy"), ["granted dot"]);
}

#[test]
fn a_limit_passes_in_the_process_too() {
    let mut play = without(NoLockBackend::InProcess);
    play.opens_to("s1", Backend::Sqlite);
    assert_eq!(play.later(millis(20)), ["refused ben: TimedOut"]);
}

#[test]
fn a_lock_of_the_process_is_lost_when_the_locker_is_shut_down() {
    let mut play = without(NoLockBackend::InProcess);
    play.opens_to("s1", Backend::Sqlite);
    assert_eq!(
        shuts_down(&mut play),
        ["refused ben: Closed", "lost process"]
    );
    assert_eq!(play.releases("ann"), ["released ann: Lost"]);
    assert_eq!(play.is_gone("s1"), NOTHING);
    assert!(play.core.is_finished());
}
