//! Connection checks: when they run, and a connection that is found closed.

use std::time::Duration;

use super::harness::{CoreHarness, NO_COMMANDS, millis, no_wait};
use crate::lock_manager::options::{LockManagerOptions, NoLockBackend};
use crate::options::LockOptions;
use crate::session::Backend;

const CHECK: [&str; 1] = ["check connection s1"];
const INTERVAL: Duration = Duration::from_millis(250);

fn harness() -> CoreHarness {
    CoreHarness::opened(LockManagerOptions::new()).checking_connections(INTERVAL)
}

/// A lock of `ann` on key 1.
fn holding() -> CoreHarness {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    harness
}

#[test]
fn connection_is_checked_while_a_lock_is_held() {
    let mut harness = harness();
    assert_eq!(harness.timer_count(), 1, "the health check only");
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.timer_count(), 1, "not granted yet");
    harness.reply("s1", "y");
    for _ in 0..3 {
        assert_eq!(harness.timer_count(), 2);
        assert_eq!(harness.next_timer(), Some(INTERVAL));
        assert_eq!(harness.advance(INTERVAL - millis(1)), NO_COMMANDS);
        assert_eq!(harness.advance(millis(1)), CHECK);
    }
    harness.release("ann");
    assert_eq!(harness.reply("s1", "y"), ["released ann"]);
    assert_eq!(harness.advance(INTERVAL), NO_COMMANDS, "no holder");
    assert_eq!(harness.timer_count(), 1, "the check has lapsed");
    harness.request("ben", 2, &no_wait());
    harness.reply("s1", "y");
    assert_eq!(harness.advance(INTERVAL), CHECK, "a later grant");
}

#[test]
fn connection_is_not_checked_during_a_statement() {
    let mut harness = holding();
    harness.request("ben", 2, &no_wait());
    assert_eq!(harness.advance(INTERVAL), NO_COMMANDS);
    harness.reply("s1", "n");
    assert_eq!(harness.advance(INTERVAL), CHECK);
}

#[test]
fn short_holds_do_not_move_the_check() {
    let mut harness = holding();
    for _ in 0..24 {
        harness.release("ann");
        harness.reply("s1", "y");
        harness.request("ann", 1, &no_wait());
        harness.reply("s1", "y");
        assert_eq!(harness.advance(millis(10)), NO_COMMANDS);
    }
    assert_eq!(harness.next_timer(), Some(millis(10)));
    assert_eq!(harness.advance(millis(10)), CHECK);
}

#[test]
fn holders_lose_a_closed_connection() {
    let mut harness = holding();
    harness.request("ben", 1, &LockOptions::wait_forever());
    assert_eq!(harness.advance(INTERVAL), CHECK);
    assert_eq!(harness.find_closed("s1"), ["lost s1", "terminate s1"]);
    assert_eq!(harness.find_closed("s1"), NO_COMMANDS, "known already");
    assert_eq!(harness.timer_count(), 1, "the poll of the waiter");
    assert_eq!(harness.release("ann"), ["released ann: Lost"]);
    assert_eq!(harness.advance_to_next_timer(), ["open s2"]);
    assert_eq!(harness.open("s2"), ["run s2: acquire 1"]);
    assert_eq!(harness.reply("s2", "y"), ["granted ben"]);
}

/// The statement was sent between the check and its result.
#[test]
fn no_wait_is_retried_after_a_closed_connection() {
    let mut harness = holding();
    assert_eq!(harness.advance(INTERVAL), CHECK);
    harness.request("ben", 2, &no_wait());
    let lost = ["lost s1", "terminate s1", "open s2"];
    assert_eq!(harness.find_closed("s1"), lost);
    assert_eq!(harness.open("s2"), ["run s2: acquire 2"]);
    assert_eq!(harness.reply("s2", "y"), ["granted ben"]);
}

#[test]
fn only_sessions_with_a_lock_are_checked() {
    let options = LockManagerOptions::new().max_sessions(2);
    let mut harness = CoreHarness::opened(options).checking_connections(INTERVAL);
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.request("ben", 2, &no_wait()), ["open s2"]);
    harness.open("s2");
    // The request of `ben` remains on the first session.
    assert_eq!(harness.request("cid", 3, &no_wait()), ["run s2: acquire 3"]);
    harness.reply("s2", "y");
    harness.reply("s1", "y");
    harness.reply("s1", "n");
    let both = ["check connection s1", "check connection s2"];
    assert_eq!(harness.advance(INTERVAL), both);
    harness.release("ann");
    assert_eq!(harness.reply("s1", "y"), ["released ann"]);
    assert_eq!(harness.advance(INTERVAL), ["check connection s2"]);
}

/// Over a blocking pool a session is not polled between two statements.
#[test]
fn connection_of_a_blocking_pool_is_not_checked() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new()).over_blocking_pool();
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    assert_eq!(harness.timer_count(), 1, "the health check only");
}

#[test]
fn in_process_lock_has_no_connection_check() {
    let options = LockManagerOptions::new().on_no_lock_backend(NoLockBackend::InProcess);
    let mut harness = CoreHarness::new(options).checking_connections(INTERVAL);
    harness.request("ann", 1, &no_wait());
    harness.open_to("s1", Backend::Sqlite);
    assert_eq!(harness.next_timer(), None);
}
