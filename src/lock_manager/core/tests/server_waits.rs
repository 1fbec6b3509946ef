//! Waits in the server's queue on a dedicated session.

use super::harness::{CoreHarness, LockErrorKind, NO_COMMANDS, millis};
use crate::error::LockError;
use crate::key::LockKey;
use crate::lock_manager::core::{Command, RequestKind, SessionId};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockOptions, WaitStrategy};
use std::time::Duration;

fn block() -> LockOptions {
    LockOptions::wait_forever().strategy(WaitStrategy::Block)
}

fn up_to(limit: u64) -> LockOptions {
    LockOptions::wait_up_to(millis(limit)).strategy(WaitStrategy::Block)
}

fn poll() -> LockOptions {
    LockOptions::wait_forever()
}

fn failed(kind: LockErrorKind) -> Result<Option<i32>, LockError> {
    Err(LockError::new(kind))
}

/// The waiter `ann` waits on the server, on `s2`.
fn waiting(options: &LockOptions) -> CoreHarness {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, options);
    harness.reply("s1", "n");
    let wait = harness.open("s2");
    assert!(wait[0].starts_with("wait s2: 1 "), "{wait:?}");
    harness
}

#[test]
fn server_wait_has_the_limit_of_its_waiter() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &up_to(20));
    harness.advance(millis(5));
    assert_eq!(harness.reply("s1", "n"), ["open s2"]);
    assert_eq!(harness.open("s2"), ["wait s2: 1 15ms"]);
    assert_eq!(
        harness.timer_count(),
        3,
        "the deadline, two health checks, and no poll"
    );
}

#[test]
fn server_wait_has_the_longest_limit() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &up_to(20));
    harness.request("ben", 1, &up_to(30));
    harness.request("cy", 1, &up_to(10));
    harness.request("dot", 1, &poll());
    harness.reply("s1", "n");
    assert_eq!(harness.open("s2"), ["wait s2: 1 30ms"]);
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &up_to(20));
    harness.request("ben", 1, &block());
    harness.reply("s1", "n");
    assert_eq!(harness.open("s2"), ["wait s2: 1 forever"]);
}

#[test]
fn waiting_session_closes_after_the_release() {
    let mut harness = waiting(&block());
    assert_eq!(harness.grant_wait("s2"), ["granted ann"]);
    assert_eq!(harness.release("ann"), ["run s2: release 1"]);
    assert_eq!(harness.reply("s2", "y"), ["released ann", "close s2"]);
}

#[test]
fn waiting_session_waits_for_the_next_waiter() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    harness.request("ann", 1, &block());
    harness.reply("s1", "n");
    harness.open("s2");
    for (who, next) in [("ann", "ben"), ("ben", "cy"), ("cy", "dot")] {
        harness.grant_wait("s2");
        harness.request(next, 1, &block());
        harness.advance(millis(1));
        assert_eq!(harness.drop_guard(who), ["run s2: release 1, acquire 1"]);
        assert_eq!(harness.reply("s2", "yn"), ["wait s2: 1 forever"]);
    }
    assert_eq!(harness.timer_count(), 2, "one health check per session");
}

#[test]
fn waiting_session_closes_if_the_next_waiter_polls() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    harness.request("ann", 1, &block());
    harness.reply("s1", "n");
    harness.open("s2");
    harness.grant_wait("s2");
    harness.request("ben", 1, &poll());
    assert_eq!(harness.drop_guard("ann"), ["run s2: release 1"]);
    assert_eq!(harness.reply("s2", "y"), ["close s2"]);
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
}

#[test]
fn polls_without_a_free_waiting_session() {
    let mut harness = waiting(&block());
    harness.request("ben", 2, &block());
    assert_eq!(harness.reply("s1", "n"), NO_COMMANDS);
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 2"]);
    let mut harness = CoreHarness::opened(LockManagerOptions::new().max_waiting_sessions(0));
    harness.request("ann", 1, &block());
    assert_eq!(harness.reply("s1", "n"), NO_COMMANDS);
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
}

#[test]
fn waiting_session_limit_is_respected() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().max_waiting_sessions(2));
    for (who, key) in [("ann", 1), ("ben", 2), ("cy", 3)] {
        harness.request(who, key, &block());
    }
    assert_eq!(
        harness.reply("s1", "n"),
        ["open s2", "run s1: acquire 2, acquire 3"]
    );
    assert_eq!(harness.open("s2"), ["wait s2: 1 forever"]);
    assert_eq!(harness.reply("s1", "nn"), ["open s3"]);
    assert_eq!(harness.open("s3"), ["wait s3: 2 forever"]);
}

#[test]
fn polls_if_the_first_waiter_polls() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &poll());
    harness.request("ben", 1, &block());
    assert_eq!(harness.reply("s1", "n"), NO_COMMANDS);
}

#[test]
fn cancelled_server_wait_terminates_its_session() {
    let mut harness = waiting(&block());
    assert_eq!(harness.cancel("ann"), ["terminate s2"]);
    assert_eq!(harness.key_count(), 0);
    let mut harness = waiting(&block());
    harness.request("ben", 1, &poll());
    assert_eq!(harness.cancel("ann"), ["terminate s2"]);
    assert_eq!(
        harness.advance_to_next_timer(),
        ["run s1: acquire 1"],
        "ben polls"
    );
}

#[test]
fn server_wait_continues_for_another_blocking_waiter() {
    let mut harness = waiting(&block());
    harness.request("ben", 1, &block());
    assert_eq!(harness.cancel("ann"), NO_COMMANDS);
    assert_eq!(harness.grant_wait("s2"), ["granted ben"]);
}

#[test]
fn server_wait_ends_by_its_own_limit() {
    let mut harness = waiting(&up_to(20));
    assert_eq!(harness.advance(millis(20)), ["failed ann: TimedOut"]);
    assert_eq!(harness.end_wait("s2", Ok(None)), ["close s2"]);
}

#[test]
fn server_wait_granted_at_its_limit_is_terminated() {
    let mut harness = waiting(&up_to(20));
    harness.advance(millis(20));
    assert_eq!(harness.grant_wait("s2"), ["terminate s2"]);
}

#[test]
fn server_wait_overdue_at_its_limit_is_terminated() {
    let mut harness = waiting(&up_to(20_000));
    assert_eq!(harness.advance(millis(19_999)), ["run s1: ping"]);
    harness.reply("s1", "");
    assert_eq!(harness.advance(millis(1)), ["failed ann: TimedOut"]);
    assert_eq!(harness.advance(millis(4_999)), ["run s1: ping"]);
    assert_eq!(harness.advance(millis(1)), ["terminate s2"]);
}

/// Otherwise the server would grant the lock to a session without waiters.
#[test]
fn server_wait_ends_with_its_last_blocking_waiter() {
    let mut harness = waiting(&block());
    harness.request("ben", 1, &up_to(20));
    harness.cancel("ann");
    assert_eq!(
        harness.advance(millis(20)),
        ["terminate s2", "failed ben: TimedOut"]
    );
}

#[test]
fn early_server_timeout_polls_again() {
    let mut harness = waiting(&up_to(20));
    harness.request("ben", 1, &block());
    assert_eq!(harness.end_wait("s2", Ok(None)), ["close s2"]);
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
}

/// The holders may share the lock with it.
#[test]
fn sharer_does_not_wait_for_an_exclusive_lock() {
    let mut harness = waiting(&block());
    harness.request("ben", 1, &block().shared());
    assert_eq!(harness.cancel("ann"), ["terminate s2"]);
    let polled = harness.advance_to_next_timer();
    assert_eq!(polled, ["run s1: acquire shared 1"]);
    assert_eq!(harness.reply("s1", "y"), ["granted ben"]);
}

#[test]
fn server_wait_error_fails_the_first_blocking_waiter() {
    let mut harness = waiting(&block());
    harness.request("ben", 1, &block());
    let commands = harness.end_wait("s2", failed(LockErrorKind::Deadlock));
    assert_eq!(commands, ["close s2", "failed ann: Deadlock"]);
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
}

/// A caller may have redacted the text of the key.
#[test]
fn server_wait_error_has_the_key_of_its_request() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    let (key, now) = (LockKey::from("signup/a@b.c"), harness.now);
    let (plain, core) = (RequestKind::Plain, &mut harness.core);
    let first = core.request(key.clone(), &block(), plain, "ann", now);
    core.request(key.redacted(), &block(), plain, "ben", now);
    harness.commands();
    harness.reply("s1", "n");
    harness.open("s2");
    let session = SessionId(harness.generation("s2"));
    let core = &mut harness.core;
    core.cancel(first, key.raw(), now);
    let error = LockError::new(LockErrorKind::Deadlock).with_key(&key);
    core.on_wait_ended(session, Err(error), now);
    let commands = core.take_commands(Vec::new(), now);
    let failed = commands.iter().find_map(|command| match command {
        Command::Failed { error, .. } => Some(error),
        _ => None,
    });
    let key = failed.and_then(LockError::key).expect("ben fails");
    assert_eq!(key.text(), None);
}

#[test]
fn server_wait_error_spares_polling_waiters() {
    let mut harness = waiting(&block());
    harness.request("ben", 1, &poll());
    harness.request("cy", 1, &block());
    harness.cancel("ann");
    let commands = harness.end_wait("s2", failed(LockErrorKind::Deadlock));
    assert_eq!(commands, ["close s2", "failed cy: Deadlock"]);
}

#[test]
fn polls_if_no_waiting_session_opens() {
    for kind in [LockErrorKind::Pool, LockErrorKind::Lost] {
        let mut harness = waiting(&block());
        assert_eq!(harness.end_wait("s2", failed(kind)), ["close s2"]);
        assert_eq!(
            harness.advance_to_next_timer(),
            ["run s1: acquire 1"],
            "{kind:?}"
        );
    }
}

#[test]
fn server_wait_error_without_waiters_is_ignored() {
    let mut harness = waiting(&up_to(20));
    harness.advance(millis(20));
    assert_eq!(
        harness.end_wait("s2", failed(LockErrorKind::Database)),
        ["close s2"]
    );
}

#[test]
fn granted_waiting_session_is_health_checked() {
    let mut harness = waiting(&block());
    harness.advance(millis(3_000));
    harness.grant_wait("s2");
    assert_eq!(harness.advance(millis(2_000)), ["run s1: ping"]);
    harness.reply("s1", "");
    assert_eq!(harness.advance(millis(3_000)), ["run s2: ping"]);
    assert_eq!(harness.disconnect("s2"), ["lost s2", "terminate s2"]);
    assert_eq!(harness.release("ann"), ["released ann: Lost"]);
}

#[test]
fn waiting_session_is_not_pinged() {
    let mut harness =
        CoreHarness::opened(LockManagerOptions::new().hand_off_limit(1, Duration::from_secs(60)));
    harness.request("ann", 1, &block());
    harness.reply("s1", "n");
    harness.open("s2");
    harness.grant_wait("s2");
    harness.request("ben", 1, &block());
    harness.drop_guard("ann");
    assert_eq!(harness.reply("s2", "yn"), ["wait s2: 1 forever"]);
    for _ in 0..3 {
        assert_eq!(harness.advance(millis(5_000)), ["run s1: ping"]);
        harness.reply("s1", "");
    }
    assert_eq!(harness.grant_wait("s2"), ["granted ben"]);
}

#[test]
fn no_wait_does_not_overtake_server_waiters() {
    let mut harness = waiting(&block());
    let commands = harness.request("ben", 1, &LockOptions::no_wait());
    assert_eq!(commands, ["failed ben: HeldElsewhere"]);
}

#[test]
fn second_end_of_a_server_wait_loses_the_session() {
    let mut harness = waiting(&block());
    harness.grant_wait("s2");
    assert_eq!(harness.grant_wait("s2"), ["lost s2", "terminate s2"]);
    assert_eq!(harness.release("ann"), ["released ann: Lost"]);
}

/// A pool without a free connection must not keep a waiter from a free lock.
#[test]
fn polls_while_the_waiting_session_opens() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().max_waiting_sessions(2));
    harness.request("ann", 1, &block());
    harness.request("ben", 1, &poll());
    assert_eq!(harness.reply("s1", "n"), ["open s2"]);
    for _ in 0..3 {
        assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
        assert_eq!(harness.reply("s1", "n"), NO_COMMANDS);
    }
    harness.advance_to_next_timer();
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    assert_eq!(harness.open("s2"), ["close s2"]);
    assert_eq!(harness.drop_guard("ann"), ["granted ben"]);
}

#[test]
fn session_opened_during_a_poll_waits_after_its_reply() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &block());
    harness.reply("s1", "n");
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
    assert_eq!(harness.open("s2"), NO_COMMANDS);
    assert_eq!(harness.reply("s1", "n"), ["wait s2: 1 forever"]);
    assert_eq!(harness.timer_count(), 2, "two health checks, and no poll");
}

/// A call for several keys holds greater ones meanwhile, and would wait for the end of the wait.
#[test]
fn server_wait_after_a_loss_refuses_a_request_of_several() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &block());
    assert_eq!(harness.reply("s1", "n"), ["open s2"]);
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
    assert_eq!(harness.request_of_several("ben", 1, &block()), NO_COMMANDS);
    assert_eq!(harness.disconnect("s1"), ["lost s1", "terminate s1"]);
    let commands = ["failed ben: HeldElsewhere", "wait s2: 1 forever"];
    assert_eq!(harness.open("s2"), commands);
}

#[test]
fn session_opened_during_a_granted_poll_closes() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &block());
    harness.reply("s1", "n");
    harness.advance_to_next_timer();
    harness.open("s2");
    assert_eq!(harness.reply("s1", "y"), ["granted ann", "close s2"]);
}

#[test]
fn session_opened_during_a_poll_closes_without_its_waiter() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &block());
    harness.reply("s1", "n");
    harness.advance_to_next_timer();
    harness.open("s2");
    assert_eq!(harness.cancel("ann"), ["close s2"]);
    // The same if a waiter that polls is next.
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &block());
    harness.request("ben", 1, &poll());
    harness.reply("s1", "n");
    harness.advance_to_next_timer();
    harness.open("s2");
    assert_eq!(harness.cancel("ann"), ["close s2"]);
}

#[test]
fn unneeded_opening_session_serves_another_key() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &block());
    assert_eq!(harness.reply("s1", "n"), ["open s2"]);
    harness.cancel("ann");
    harness.request("ben", 2, &block());
    assert_eq!(harness.reply("s1", "n"), NO_COMMANDS, "one at most");
    assert_eq!(harness.open("s2"), ["wait s2: 2 forever"]);
}

#[test]
fn failed_opening_of_a_waiting_session_is_retried_later() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &block());
    assert_eq!(harness.reply("s1", "n"), ["open s2"]);
    assert_eq!(harness.fail_open("s2"), NO_COMMANDS, "ann polls on");
    harness.request("ben", 2, &block());
    assert_eq!(harness.reply("s1", "n"), NO_COMMANDS, "a backoff");
    harness.cancel("ben");
    let mut opened = Vec::new();
    let start = harness.now;
    while opened.is_empty() {
        assert!(harness.now < start + Duration::from_secs(2));
        if harness.advance_to_next_timer() == ["run s1: acquire 1"] {
            opened = harness.reply("s1", "n");
        }
    }
    assert_eq!(opened, ["open s3"]);
}

#[test]
fn request_that_does_not_wait_needs_no_waiting_session() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &block());
    harness.reply("s1", "n");
    harness.cancel("ann");
    let at_once = LockOptions::wait_up_to(Duration::ZERO).strategy(WaitStrategy::Block);
    harness.request("ben", 1, &at_once);
    assert_eq!(harness.open("s2"), ["close s2"]);
    assert_eq!(harness.reply("s1", "n"), ["failed ben: TimedOut"]);
    harness.request_of_several("cy", 1, &block());
    assert_eq!(harness.reply("s1", "n"), ["failed cy: HeldElsewhere"]);
}

/// Other processes had their chance when the session was lost.
#[test]
fn hand_offs_restart_after_a_loss() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().hand_off_limit(2, millis(100)));
    harness.request("ann", 1, &block());
    harness.reply("s1", "n");
    harness.advance_to_next_timer();
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    for who in ["ben", "cy", "dot"] {
        harness.request(who, 1, &block());
    }
    harness.advance(millis(5_000));
    harness.disconnect("s1");
    assert_eq!(harness.open("s2"), ["wait s2: 1 forever"]);
    harness.grant_wait("s2");
    assert_eq!(harness.drop_guard("ben"), ["granted cy"]);
    assert_eq!(harness.drop_guard("cy"), ["run s2: release 1, acquire 1"]);
}

#[test]
fn wait_granted_to_another_session_is_not_trusted() {
    let mut harness = waiting(&block());
    let pid = harness.pid("s2") + 1;
    let commands = harness.end_wait("s2", Ok(Some(pid)));
    let changed = ["lost s2", "terminate s2", "failed ann: SessionChanged"];
    assert_eq!(commands, changed);
}
