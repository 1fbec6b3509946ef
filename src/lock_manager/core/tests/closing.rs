//! End of a lock manager; backends without locks.

use super::harness::{CoreHarness, NO_COMMANDS, forever, millis, no_wait};
use crate::lock_manager::options::{LockManagerOptions, NoLockBackend};
use crate::options::{LockOptions, WaitStrategy};
use crate::session::Backend;

fn close(harness: &mut CoreHarness, who: &'static str) -> Vec<String> {
    harness.core.close(who);
    harness.commands()
}

fn shut_down(harness: &mut CoreHarness) -> Vec<String> {
    harness.core.shut_down(harness.now);
    harness.commands()
}

#[test]
fn close_without_sessions_completes() {
    let mut harness = CoreHarness::new(LockManagerOptions::new());
    assert!(!harness.core.is_finished());
    assert_eq!(close(&mut harness, "end"), ["closed end"]);
    assert!(harness.core.is_finished());
    assert_eq!(close(&mut harness, "again"), ["closed again"]);
}

#[test]
fn close_completes_with_the_last_session() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    assert_eq!(close(&mut harness, "end"), ["close s1"]);
    assert!(!harness.core.is_finished());
    assert_eq!(harness.end_session("s1"), ["closed end"]);
    assert!(harness.core.is_finished());
    assert_eq!(harness.timer_count(), 0);
}

#[test]
fn close_rejects_waiters_and_keeps_holders() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    harness.request("ben", 1, &forever());
    harness.request("cy", 2, &LockOptions::wait_up_to(millis(20)));
    harness.reply("s1", "n");
    let mut commands = close(&mut harness, "end");
    commands.sort();
    assert_eq!(commands, ["failed ben: Closed", "failed cy: Closed"]);
    assert_eq!(
        harness.request("dot", 1, &no_wait()),
        ["failed dot: Closed"]
    );
    assert_eq!(harness.release("ann"), ["run s1: release 1"]);
    assert!(!harness.core.is_finished());
    assert_eq!(harness.reply("s1", "y"), ["released ann", "close s1"]);
    assert_eq!(harness.timer_count(), 0);
    assert_eq!(harness.end_session("s1"), ["closed end"]);
}

/// The pause is for a waiter, which is rejected.
#[test]
fn close_does_not_wait_for_a_yield() {
    let options = LockManagerOptions::new().hand_off_limit(1, millis(100));
    let mut harness = CoreHarness::opened(options);
    harness.request("ann", 1, &forever());
    harness.reply("s1", "y");
    harness.request("ben", 1, &forever());
    assert_eq!(harness.release("ann"), ["run s1: release 1"]);
    assert_eq!(close(&mut harness, "end"), ["failed ben: Closed"]);
    assert_eq!(harness.reply("s1", "y"), ["released ann", "close s1"]);
}

#[test]
fn close_waits_for_a_reply_that_may_be_a_grant() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &forever());
    assert_eq!(close(&mut harness, "end"), ["failed ann: Closed"]);
    assert_eq!(close(&mut harness, "too"), NO_COMMANDS);
    assert_eq!(harness.reply("s1", "y"), ["run s1: release 1"]);
    assert_eq!(harness.reply("s1", "y"), ["close s1"]);
    assert_eq!(harness.end_session("s1"), ["closed end", "closed too"]);
}

/// The pool may not return a connection for a long time.
#[test]
fn close_terminates_an_opening_session() {
    let mut harness = CoreHarness::new(LockManagerOptions::new());
    harness.request("ann", 1, &forever());
    let commands = ["terminate s1", "failed ann: Closed"];
    assert_eq!(close(&mut harness, "end"), commands);
    assert_eq!(harness.open("s1"), NO_COMMANDS);
    assert_eq!(harness.end_session("s1"), ["closed end"]);
    assert_eq!((harness.key_count(), harness.timer_count()), (0, 0));
    // The same for a session that was to wait on the server.
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &forever().strategy(WaitStrategy::Block));
    assert_eq!(harness.reply("s1", "n"), ["open s2"]);
    let commands = ["terminate s2", "failed ann: Closed", "close s1"];
    assert_eq!(close(&mut harness, "end"), commands);
}

#[test]
fn closed_pool_closes_the_lock_manager() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    harness.request("ben", 1, &forever());
    harness.core.on_pool_closed();
    assert_eq!(harness.commands(), ["failed ben: Closed"]);
    let later = harness.request("cy", 2, &no_wait());
    assert_eq!(later, ["failed cy: Closed"]);
    // The holder keeps its lock until it releases it.
    assert_eq!(harness.release("ann"), ["run s1: release 1"]);
    assert_eq!(harness.reply("s1", "y"), ["released ann", "close s1"]);
    assert_eq!(close(&mut harness, "end"), NO_COMMANDS);
    assert_eq!(harness.end_session("s1"), ["closed end"]);
    assert!(harness.core.is_finished());
    // An idle session is closed at once.
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.core.on_pool_closed();
    assert_eq!(harness.commands(), ["close s1"]);
}

#[test]
fn close_terminates_a_server_wait() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &forever().strategy(WaitStrategy::Block));
    harness.reply("s1", "n");
    harness.open("s2");
    let commands = ["terminate s2", "failed ann: Closed", "close s1"];
    assert_eq!(close(&mut harness, "end"), commands);
    assert_eq!(harness.end_session("s1"), NO_COMMANDS);
    assert_eq!(harness.end_session("s2"), ["closed end"]);
}

#[test]
fn close_completes_despite_an_overdue_server_wait() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    let block = LockOptions::wait_up_to(millis(20)).strategy(WaitStrategy::Block);
    harness.request("ann", 1, &block);
    harness.reply("s1", "n");
    harness.open("s2");
    harness.advance(millis(20));
    assert_eq!(close(&mut harness, "end"), ["close s1"]);
    harness.end_session("s1");
    assert_eq!(harness.advance(millis(5_000)), ["terminate s2"]);
    assert_eq!(harness.end_session("s2"), ["closed end"]);
}

/// A blocking statement cannot be stopped.
#[test]
fn close_does_not_await_terminated_blocking_sessions() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new()).over_blocking_pool();
    harness.request("ann", 1, &forever().strategy(WaitStrategy::Block));
    harness.reply("s1", "n");
    harness.open("s2");
    let commands = ["terminate s2", "failed ann: Closed", "close s1"];
    assert_eq!(close(&mut harness, "end"), commands);
    assert_eq!(harness.end_session("s1"), ["closed end"]);
    assert!(harness.core.is_finished());
    assert_eq!(harness.end_session("s2"), NO_COMMANDS);
}

/// The server grants the lock after the limit, and after the close.
#[test]
fn close_completes_with_a_late_grant_over_a_blocking_pool() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new()).over_blocking_pool();
    let block = LockOptions::wait_up_to(millis(20)).strategy(WaitStrategy::Block);
    harness.request("ann", 1, &block);
    harness.reply("s1", "n");
    harness.open("s2");
    harness.advance(millis(20));
    assert_eq!(close(&mut harness, "end"), ["close s1"]);
    assert_eq!(harness.end_session("s1"), NO_COMMANDS);
    assert_eq!(harness.grant_wait("s2"), ["terminate s2", "closed end"]);
}

#[test]
fn close_completes_despite_a_lost_session() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    close(&mut harness, "end");
    harness.advance(millis(5_000));
    assert_eq!(harness.disconnect("s1"), ["lost s1", "terminate s1"]);
    assert_eq!(harness.end_session("s1"), ["closed end"]);
}

#[test]
fn shut_down_releases_every_lock() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    harness.request("ben", 1, &forever());
    let commands = shut_down(&mut harness);
    assert_eq!(
        commands,
        [
            "failed ben: Closed",
            "lost s1",
            "lost in-process",
            "run s1: release 1"
        ]
    );
    assert_eq!(harness.release("ann"), ["released ann: Lost"]);
    assert_eq!(harness.reply("s1", "y"), ["close s1"]);
    harness.end_session("s1");
    assert!(harness.core.is_finished());
}

#[test]
fn shut_down_is_possible_after_close() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    close(&mut harness, "end");
    let commands = ["lost s1", "lost in-process", "run s1: release 1"];
    assert_eq!(shut_down(&mut harness), commands);
    harness.reply("s1", "y");
    assert_eq!(harness.end_session("s1"), ["closed end"]);
}

#[test]
fn shut_down_releases_while_a_token_is_issued() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    harness.request_with_token("ben", 1, &forever().shared());
    shut_down(&mut harness);
    assert_eq!(harness.reply("s1", "y"), ["run s1: release shared 1"]);
}

fn with_no_lock_backend(policy: NoLockBackend) -> CoreHarness {
    let mut harness = CoreHarness::new(LockManagerOptions::new().on_no_lock_backend(policy));
    harness.request("ann", 1, &forever());
    harness.request_with_token("ben", 1, &LockOptions::wait_up_to(millis(20)));
    harness
}

#[test]
fn no_lock_backend_grants_every_request() {
    let mut harness = with_no_lock_backend(NoLockBackend::NoOp);
    let commands = harness.open_to("s1", Backend::Sqlite);
    assert_eq!(commands[..2], ["close s1", "granted ann"]);
    assert!(commands[2].starts_with("granted ben with "), "{commands:?}");
    assert_eq!((harness.key_count(), harness.timer_count()), (0, 0));
    assert_eq!(harness.request("cy", 1, &no_wait()), ["granted cy"]);
    assert_eq!(harness.release("ann"), ["released ann"]);
}

#[test]
fn no_lock_backend_tokens_grow() {
    let mut harness = with_no_lock_backend(NoLockBackend::NoOp);
    harness.open_to("s1", Backend::Sqlite);
    let token = |commands: Vec<String>| -> i64 {
        let words: Vec<_> = commands[0].split(' ').collect();
        words[3].parse().expect("a token")
    };
    let first = token(harness.request_with_token("cy", 1, &no_wait()));
    assert!(first < token(harness.request_with_token("dot", 1, &no_wait())));
}

#[test]
fn in_process_queue_excludes_callers() {
    let mut harness = with_no_lock_backend(NoLockBackend::InProcess);
    assert_eq!(
        harness.open_to("s1", Backend::Sqlite),
        ["close s1", "granted ann"]
    );
    assert_eq!(
        harness.request("cy", 1, &no_wait()),
        ["failed cy: HeldElsewhere"]
    );
    let commands = harness.release("ann");
    assert!(commands[0].starts_with("granted ben with "), "{commands:?}");
    assert_eq!(commands[1], "released ann");
    assert_eq!(harness.release("ben"), ["released ben"]);
    assert_eq!((harness.key_count(), harness.timer_count()), (0, 0));
}

#[test]
fn close_completes_with_the_last_in_process_release() {
    let mut harness = with_no_lock_backend(NoLockBackend::InProcess);
    harness.open_to("s1", Backend::Sqlite);
    harness.end_session("s1");
    assert_eq!(close(&mut harness, "end"), ["failed ben: Closed"]);
    assert_eq!(harness.release("ann"), ["released ann", "closed end"]);
    assert!(harness.core.is_finished());
}

/// The hand-off limit exists for other processes only.
#[test]
fn in_process_sharing_has_no_hand_off_limit() {
    let options = LockManagerOptions::new().on_no_lock_backend(NoLockBackend::InProcess);
    let mut harness = CoreHarness::new(options.hand_off_limit(1, millis(1)));
    harness.request("ann", 1, &forever().shared());
    harness.open_to("s1", Backend::Sqlite);
    harness.advance(millis(1_000));
    assert_eq!(
        harness.request("ben", 1, &no_wait().shared()),
        ["granted ben"]
    );
    assert_eq!(harness.request("cy", 1, &forever()), NO_COMMANDS);
    harness.drop_guard("ann");
    assert_eq!(harness.drop_guard("ben"), ["granted cy"]);
    harness.request("dot", 1, &forever());
    assert_eq!(harness.drop_guard("cy"), ["granted dot"]);
}

#[test]
fn in_process_deadline_passes() {
    let mut harness = with_no_lock_backend(NoLockBackend::InProcess);
    harness.open_to("s1", Backend::Sqlite);
    assert_eq!(harness.advance(millis(20)), ["failed ben: TimedOut"]);
}

#[test]
fn in_process_lock_is_lost_at_shut_down() {
    let mut harness = with_no_lock_backend(NoLockBackend::InProcess);
    harness.open_to("s1", Backend::Sqlite);
    assert_eq!(
        shut_down(&mut harness),
        ["failed ben: Closed", "lost in-process"]
    );
    assert_eq!(harness.release("ann"), ["released ann: Lost"]);
    assert_eq!(harness.end_session("s1"), NO_COMMANDS);
    assert!(harness.core.is_finished());
}
