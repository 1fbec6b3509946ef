//! Cases of a lock manager.

use std::time::Duration;

use advisory_locking::LockError;
use advisory_locking::lock_manager::{LockManager, OwnedLockGuard};
use testkit::observer::Observe;
use testkit::server::{connect, eventually, fresh_key, pool_of};

use super::{
    CONTENDED, GRANTED, LOST, OVERDUE, QUEUED, RELEASE_FAILED, RELEASED, REQUESTED, SHORT,
    TIMED_OUT, WAITING, assert_events, assert_eventual_warning, assert_spans, run, send_in_body,
};
use crate::NO_WAIT;
use crate::recorder::{Call, Event, calls_of, events_of, record};

fn manager() -> LockManager {
    LockManager::over_blocking_pool(pool_of(1)).unwrap()
}

#[test]
fn release_is_logged() {
    record();
    let (manager, key) = (manager(), fresh_key());
    let guard = manager.acquire_blocking(&key, NO_WAIT).unwrap();
    manager.acquire_blocking(&key, NO_WAIT).unwrap_err();
    manager.acquire_blocking(&key, SHORT).unwrap_err();
    guard.release_blocking().unwrap();
    let events = [
        REQUESTED, GRANTED, REQUESTED, CONTENDED, REQUESTED, WAITING, TIMED_OUT, RELEASED,
    ];
    assert_events(&key, &events);
    drop(manager.acquire_blocking(&key, NO_WAIT).unwrap());
    assert_events(&key, &[&events[..], &[REQUESTED, GRANTED, QUEUED]].concat());
    // A release starts before its future is polled, and so goes on without it. Its response may
    // arrive before the drop.
    let key = fresh_key();
    drop(manager.acquire_blocking(&key, NO_WAIT).unwrap().release());
    let events = events_of(&key);
    let last = events.last().map(Event::message).unwrap_or_default();
    assert!([QUEUED, RELEASED].contains(&last), "{events:?}");
    assert_events(&key, &[REQUESTED, GRANTED, last]);
}

#[test]
fn body_runs_in_a_span() {
    record();
    let (manager, key) = (manager(), fresh_key());
    let body = |_: &_| {
        send_in_body(&key);
        Ok::<_, LockError>(())
    };
    manager.with_lock_blocking(&key, NO_WAIT, body).unwrap();
    assert_spans(&key);
    let key = fresh_key();
    let body = async |_: &OwnedLockGuard| {
        send_in_body(&key);
        Ok::<_, LockError>(())
    };
    run(async {
        manager
            .with_lock_while_held(&key, NO_WAIT, body)
            .await
            .unwrap()
    });
    assert_spans(&key);
}

#[test]
fn long_hold_is_warned_about() {
    record();
    let (manager, key) = (manager(), fresh_key());
    let options = NO_WAIT.warn_after(Duration::from_millis(1));
    let guard = manager.acquire_blocking(&key, options).unwrap();
    assert_eventual_warning(&key);
    guard.release_blocking().unwrap();
    assert_events(&key, &[REQUESTED, GRANTED, OVERDUE, RELEASED]);
}

#[cfg(all(feature = "diesel-sqlite", feature = "testing"))]
#[test]
fn refusal_of_the_unit_test_kit_is_no_grant() {
    use advisory_locking::{OnMissingLock, WaitStrategy};

    record();
    let pool = diesel::r2d2::Pool::builder()
        .max_size(1)
        .build(diesel::r2d2::ConnectionManager::<diesel::SqliteConnection>::new(":memory:"));
    let manager = LockManager::over_blocking_pool(pool.unwrap()).unwrap();
    let (locks, key) = (advisory_locking::testing::TestLocks::enter(), fresh_key());
    let quiet = NO_WAIT.on_missing_lock(OnMissingLock::Ignore);
    let other = locks.hold_from_other_session(&key);
    manager.acquire_blocking(&key, quiet).unwrap_err();
    locks.pause_clock();
    for strategy in [WaitStrategy::Poll, WaitStrategy::Block] {
        let short = SHORT
            .strategy(strategy)
            .on_missing_lock(OnMissingLock::Ignore);
        manager.acquire_blocking(&key, short).unwrap_err();
    }
    drop(other);
    let guard = manager.acquire_blocking(&key, quiet).unwrap();
    guard.release_blocking().unwrap();
    let calls = calls_of(&key);
    let messages: Vec<_> = calls.iter().filter_map(Call::message).collect();
    let expected = [
        REQUESTED, CONTENDED, REQUESTED, WAITING, TIMED_OUT, REQUESTED, WAITING, TIMED_OUT,
        REQUESTED, GRANTED, RELEASED,
    ];
    assert_eq!(messages, expected);
    let mut calls = calls.iter();
    assert!(calls.all(|call| !matches!(call, Call::RequestEnded(_, end) if end.polls > 0)));
}

#[test]
fn lost_lock_is_logged() {
    record();
    let (manager, key) = (manager(), fresh_key());
    let guard = manager.acquire_blocking(&key, NO_WAIT).unwrap();
    connect().terminate_holder(&key);
    assert!(guard.release_blocking().unwrap_err().is_lost());
    assert_events(&key, &[REQUESTED, GRANTED, LOST]);

    let key = fresh_key();
    let guard = manager.acquire_blocking(&key, NO_WAIT).unwrap();
    connect().terminate_holder(&key);
    // Another call learns of the end of the session, before any of its own.
    eventually("the loss", || {
        drop(manager.acquire_blocking(fresh_key(), NO_WAIT));
        guard.is_lost()
    });
    drop(guard);
    assert_events(&key, &[REQUESTED, GRANTED, LOST, RELEASE_FAILED]);

    // The caller receives the error, so no failed release is logged.
    let key = fresh_key();
    let body = async |_: &OwnedLockGuard| -> Result<(), LockError> {
        connect().terminate_holder(&key);
        loop {
            drop(manager.acquire(fresh_key(), NO_WAIT).await);
        }
    };
    run(async {
        let outcome = manager.with_lock_while_held(&key, NO_WAIT, body).await;
        assert!(outcome.unwrap_err().is_lost());
    });
    assert_events(&key, &[REQUESTED, GRANTED, LOST]);
}
