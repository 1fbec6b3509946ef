//! Waiting on the server, on a session of the key's own.

use super::play::{LockErrorKind, Play, millis};
use crate::error::LockError;
use crate::lock_manager::core::WaitOutcome;
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockOptions, WaitStrategy};
use std::time::Duration;

const NOTHING: [&str; 0] = [];

fn block() -> LockOptions {
    LockOptions::wait_forever().strategy(WaitStrategy::Block)
}

fn up_to(limit: u64) -> LockOptions {
    LockOptions::wait_up_to(millis(limit)).strategy(WaitStrategy::Block)
}

fn poll() -> LockOptions {
    LockOptions::wait_forever()
}

fn failed(kind: LockErrorKind) -> WaitOutcome {
    WaitOutcome::Failed(LockError::new(kind))
}

/// Ann waits on the server, on `s2`.
fn waits(options: &LockOptions) -> Play {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, options);
    let wait = play.answers("s1", "n");
    assert!(wait[0].starts_with("wait s2: 1 "), "{wait:?}");
    play
}

#[test]
fn the_wait_is_as_long_as_the_limit() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &up_to(20));
    play.later(millis(5));
    assert_eq!(play.answers("s1", "n"), ["wait s2: 1 15ms"]);
}

#[test]
fn the_wait_is_as_long_as_the_most_patient_waits() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &up_to(20));
    play.asks("ben", 1, &up_to(30));
    play.asks("cy", 1, &up_to(10));
    play.asks("dot", 1, &poll());
    assert_eq!(play.answers("s1", "n"), ["wait s2: 1 30ms"]);
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &up_to(20));
    play.asks("ben", 1, &block());
    assert_eq!(play.answers("s1", "n"), ["wait s2: 1 forever"]);
}

#[test]
fn what_the_wait_was_granted_is_given_back_and_the_session_too() {
    let mut play = waits(&block());
    assert_eq!(play.is_granted("s2"), ["granted ann"]);
    assert_eq!(play.releases("ann"), ["send s2: give back 1"]);
    assert_eq!(play.answers("s2", "y"), ["released ann", "close s2"]);
}

#[test]
fn the_session_goes_on_to_wait_for_the_next() {
    let mut play = Play::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    play.asks("ann", 1, &block());
    play.answers("s1", "n");
    for (who, next) in [("ann", "ben"), ("ben", "cy"), ("cy", "dot")] {
        play.is_granted("s2");
        play.asks(next, 1, &block());
        play.later(millis(1));
        assert_eq!(play.drops(who), ["send s2: give back 1, take 1"]);
        assert_eq!(play.answers("s2", "yn"), ["wait s2: 1 forever"]);
    }
    assert_eq!(play.timers(), 2, "one look for each session");
}

#[test]
fn the_session_goes_when_the_next_does_not_wait_on_the_server() {
    let mut play = Play::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    play.asks("ann", 1, &block());
    play.answers("s1", "n");
    play.is_granted("s2");
    play.asks("ben", 1, &poll());
    assert_eq!(play.drops("ann"), ["send s2: give back 1"]);
    assert_eq!(play.answers("s2", "y"), ["close s2"]);
    assert_eq!(play.until_next(), ["send s1: take 1"]);
}

#[test]
fn with_all_of_them_busy_or_none_allowed_the_key_is_polled() {
    let mut play = waits(&block());
    play.asks("ben", 2, &block());
    assert_eq!(play.answers("s1", "n"), NOTHING);
    assert_eq!(play.until_next(), ["send s1: take 2"]);
    let mut play = Play::opened(LockManagerOptions::new().max_waiting_sessions(0));
    play.asks("ann", 1, &block());
    assert_eq!(play.answers("s1", "n"), NOTHING);
    assert_eq!(play.until_next(), ["send s1: take 1"]);
}

#[test]
fn as_many_keys_wait_as_there_may_be_sessions() {
    let mut play = Play::opened(LockManagerOptions::new().max_waiting_sessions(2));
    for (who, key) in [("ann", 1), ("ben", 2), ("cy", 3)] {
        play.asks(who, key, &block());
    }
    assert_eq!(
        play.answers("s1", "n"),
        ["wait s2: 1 forever", "send s1: take 2, take 3"]
    );
    assert_eq!(play.answers("s1", "nn"), ["wait s3: 2 forever"]);
}

#[test]
fn a_key_is_polled_if_the_first_polls() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &poll());
    play.asks("ben", 1, &block());
    assert_eq!(play.answers("s1", "n"), NOTHING);
}

#[test]
fn a_wait_that_was_given_up_is_ended() {
    let mut play = waits(&block());
    assert_eq!(play.cancels("ann"), ["abandon s2"]);
    assert_eq!(play.keys(), 0);
    let mut play = waits(&block());
    play.asks("ben", 1, &poll());
    assert_eq!(play.cancels("ann"), ["abandon s2"]);
    assert_eq!(play.until_next(), ["send s1: take 1"], "ben polls");
}

#[test]
fn a_wait_goes_on_for_another_who_waits_on_the_server() {
    let mut play = waits(&block());
    play.asks("ben", 1, &block());
    assert_eq!(play.cancels("ann"), NOTHING);
    assert_eq!(play.is_granted("s2"), ["granted ben"]);
}

#[test]
fn a_wait_that_reaches_its_limit_ends_by_itself() {
    let mut play = waits(&up_to(20));
    assert_eq!(play.later(millis(20)), ["refused ann: TimedOut"]);
    assert_eq!(play.waited("s2", WaitOutcome::TimedOut), ["close s2"]);
}

#[test]
fn a_wait_that_is_granted_at_its_limit_is_ended() {
    let mut play = waits(&up_to(20));
    play.later(millis(20));
    assert_eq!(play.is_granted("s2"), ["abandon s2"]);
}

#[test]
fn a_wait_that_does_not_come_back_at_its_limit_is_ended() {
    let mut play = waits(&up_to(20_000));
    assert_eq!(play.later(millis(19_999)), ["send s1: ping"]);
    play.answers("s1", "");
    assert_eq!(play.later(millis(1)), ["refused ann: TimedOut"]);
    assert_eq!(play.later(millis(4_999)), ["send s1: ping"]);
    assert_eq!(play.later(millis(1)), ["abandon s2"]);
}

/// It would be granted to nobody, and keep the others waiting.
#[test]
fn a_wait_that_would_outlast_the_last_who_waits_is_ended() {
    let mut play = waits(&block());
    play.asks("ben", 1, &up_to(20));
    play.cancels("ann");
    assert_eq!(
        play.later(millis(20)),
        ["abandon s2", "refused ben: TimedOut"]
    );
}

#[test]
fn a_limit_that_passes_on_the_server_before_ours_begins_anew() {
    let mut play = waits(&up_to(20));
    play.asks("ben", 1, &block());
    assert_eq!(play.waited("s2", WaitOutcome::TimedOut), ["close s2"]);
    assert_eq!(play.until_next(), ["send s1: take 1"]);
}

#[test]
fn an_error_of_the_wait_is_the_first_ones_who_waited_so() {
    let mut play = waits(&block());
    play.asks("ben", 1, &block());
    let told = play.waited("s2", failed(LockErrorKind::Deadlock));
    assert_eq!(told, ["close s2", "refused ann: Deadlock"]);
    assert_eq!(play.until_next(), ["send s1: take 1"]);
}

#[test]
fn an_error_is_not_of_those_who_poll() {
    let mut play = waits(&block());
    play.asks("ben", 1, &poll());
    play.asks("cy", 1, &block());
    play.cancels("ann");
    let told = play.waited("s2", failed(LockErrorKind::Deadlock));
    assert_eq!(told, ["close s2", "refused cy: Deadlock"]);
}

#[test]
fn without_a_session_to_wait_on_the_key_is_polled() {
    for kind in [LockErrorKind::Pool, LockErrorKind::Lost] {
        let mut play = waits(&block());
        assert_eq!(play.waited("s2", failed(kind)), ["close s2"]);
        assert_eq!(play.until_next(), ["send s1: take 1"], "{kind:?}");
    }
}

#[test]
fn an_error_that_nobody_waits_for_is_nobodys() {
    let mut play = waits(&up_to(20));
    play.later(millis(20));
    assert_eq!(
        play.waited("s2", failed(LockErrorKind::Database)),
        ["close s2"]
    );
}

#[test]
fn a_session_that_was_granted_its_wait_is_looked_after() {
    let mut play = waits(&block());
    play.later(millis(3_000));
    play.is_granted("s2");
    assert_eq!(play.later(millis(2_000)), ["send s1: ping"]);
    play.answers("s1", "");
    assert_eq!(play.later(millis(3_000)), ["send s2: ping"]);
    assert_eq!(play.dies("s2"), ["lost s2", "abandon s2"]);
    assert_eq!(play.releases("ann"), ["released ann: Lost"]);
}

#[test]
fn a_session_that_waits_is_not_asked_in_between() {
    let mut play =
        Play::opened(LockManagerOptions::new().hand_off_limit(1, Duration::from_secs(60)));
    play.asks("ann", 1, &block());
    play.answers("s1", "n");
    play.is_granted("s2");
    play.asks("ben", 1, &block());
    play.drops("ann");
    assert_eq!(play.answers("s2", "yn"), ["wait s2: 1 forever"]);
    for _ in 0..3 {
        assert_eq!(play.later(millis(5_000)), ["send s1: ping"]);
        play.answers("s1", "");
    }
    assert_eq!(play.is_granted("s2"), ["granted ben"]);
}

#[test]
fn whoever_does_not_wait_does_not_overtake_those_who_wait_on_the_server() {
    let mut play = waits(&block());
    let told = play.asks("ben", 1, &LockOptions::no_wait());
    assert_eq!(told, ["refused ben: HeldElsewhere"]);
}

#[test]
fn a_wait_that_ends_twice_ends_the_session() {
    let mut play = waits(&block());
    play.is_granted("s2");
    assert_eq!(play.is_granted("s2"), ["lost s2", "abandon s2"]);
    assert_eq!(play.releases("ann"), ["released ann: Lost"]);
}
