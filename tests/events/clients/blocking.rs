//! Cases on a blocking connection and a blocking pool.

use std::time::{Duration, Instant};

use advisory_locking::observer::HoldOutcome;
use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockKey, PooledAdvisoryLocking};
use diesel::Connection;
use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::result::Error;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key, pool_of};

use super::{
    CONTENDED, FAILED, GRANTED, LIMITS, LOST, NOT_RELEASED, OVERDUE, RELEASE_FAILED, RELEASED,
    REQUESTED, TIMED_OUT, WAITING, assert_events, assert_eventual_warning, assert_scope,
    assert_spans, has_waited, send_in_body,
};
use crate::NO_WAIT;
use crate::recorder::{Call, calls_of, events_of, record};

/// An error of a body.
fn failure() -> Result<(), Error> {
    Err(Error::RollbackTransaction)
}

#[test]
fn release_is_logged() {
    record();
    let (mut conn, key) = (connect(), fresh_key());
    let pid = conn.pid().to_string();
    conn.with_advisory_lock(&key, NO_WAIT, |_| Ok::<_, LockError>(()))
        .unwrap();
    assert_events(&key, &[REQUESTED, GRANTED, RELEASED]);
    assert_eq!(events_of(&key)[2].field("lock.pid"), Some(pid.as_str()));
    drop(conn.acquire_advisory_lock(&key, NO_WAIT).unwrap());
    assert_events(&key, &[[REQUESTED, GRANTED, RELEASED]; 2].concat());
}

#[test]
fn end_of_a_transaction_is_logged() {
    record();
    let (pool, key) = (pool_of(1), fresh_key());
    pool.with_advisory_xact_lock(&key, NO_WAIT, |_| Ok::<_, LockError>(()))
        .unwrap();
    pool.with_advisory_xact_lock(&key, NO_WAIT, |_| failure())
        .unwrap_err();
    assert_events(&key, &[[REQUESTED, GRANTED, RELEASED]; 2].concat());
    assert_scope(&key, "transaction");
}

#[test]
fn long_hold_is_warned_about() {
    record();
    let (mut conn, key) = (connect(), fresh_key());
    let options = NO_WAIT.warn_after(Duration::from_millis(1));
    let body = |_: &mut _| {
        assert_eventual_warning(&key);
        Ok::<_, LockError>(())
    };
    conn.with_advisory_lock(&key, options, body).unwrap();
    assert_events(&key, &[REQUESTED, GRANTED, OVERDUE, RELEASED]);
}

#[test]
fn released_lock_is_not_warned_about() {
    record();
    let (mut conn, held, after) = (connect(), fresh_key(), Duration::from_millis(200));
    let options = NO_WAIT.warn_after(after);
    let released = loop {
        let (key, began) = (fresh_key(), Instant::now());
        let guard = conn.acquire_advisory_lock(&key, options).unwrap();
        guard.release().unwrap();
        // On a stalled machine, the release may come after the warning.
        if began.elapsed() < after {
            break key;
        }
    };
    // Warnings are sent in the order of their times.
    let body = |_: &mut _| {
        assert_eventual_warning(&held);
        Ok::<_, LockError>(())
    };
    conn.with_advisory_lock(&held, options, body).unwrap();
    assert_events(&released, &[REQUESTED, GRANTED, RELEASED]);
}

#[test]
fn body_runs_in_a_span() {
    record();
    let (mut conn, key) = (connect(), fresh_key());
    let body = |key: &LockKey| {
        send_in_body(key);
        Ok::<_, LockError>(())
    };
    conn.with_advisory_lock(&key, NO_WAIT, |_| body(&key))
        .unwrap();
    assert_spans(&key);
    let (pool, key) = (pool_of(1), fresh_key());
    pool.with_advisory_xact_lock(&key, NO_WAIT, |_| body(&key))
        .unwrap();
    assert_spans(&key);
}

#[test]
fn lock_in_a_transaction_of_the_caller_is_unobserved() {
    record();
    let (mut conn, key) = (connect(), fresh_key());
    conn.transaction(|conn| {
        conn.acquire_advisory_xact_lock(&key, NO_WAIT).unwrap();
        diesel::QueryResult::Ok(())
    })
    .unwrap();
    // The commit of the caller ends the lock, and the crate does not see it.
    assert_events(&key, &[REQUESTED, GRANTED]);
    let last = calls_of(&key).pop();
    let is_unobserved = matches!(last, Some(Call::HoldEnded(_, end))
        if end.outcome == HoldOutcome::Unobserved);
    assert!(is_unobserved);
}

#[test]
fn contention_and_limit_are_logged() {
    record();
    let (mut conn, mut other) = (connect(), connect());
    let waited = LIMITS.into_iter().any(|limit| {
        let key = fresh_key();
        let guard = other.acquire_advisory_lock(&key, NO_WAIT).unwrap();
        conn.acquire_advisory_lock(&key, limit).unwrap_err();
        guard.release().unwrap();
        let waits = has_waited(&key);
        if waits {
            let events = [REQUESTED, GRANTED, REQUESTED, WAITING, TIMED_OUT, RELEASED];
            assert_events(&key, &events);
        }
        waits
    });
    assert!(waited, "each limit passed before the wait");
    let key = fresh_key();
    let guard = other.acquire_advisory_lock(&key, NO_WAIT).unwrap();
    assert!(
        conn.try_acquire_advisory_lock(&key, NO_WAIT)
            .unwrap()
            .is_none()
    );
    conn.transaction(|conn| conn.with_advisory_lock(&key, NO_WAIT, |_| failure()))
        .unwrap_err();
    guard.release().unwrap();
    assert_events(
        &key,
        &[
            REQUESTED, GRANTED, REQUESTED, CONTENDED, REQUESTED, FAILED, RELEASED,
        ],
    );
}

#[test]
fn failed_release_is_logged() {
    record();
    let (mut conn, key) = (connect(), fresh_key());
    let mut guard = conn.acquire_advisory_lock(&key, NO_WAIT).unwrap();
    AnsiTransactionManager::begin_transaction(&mut *guard).unwrap();
    let error = guard.release().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TransactionLeftOpen);
    assert_events(&key, &[REQUESTED, GRANTED, NOT_RELEASED]);
}

#[test]
fn lost_lock_is_logged() {
    record();
    let (mut conn, key) = (connect(), fresh_key());
    let guard = conn.acquire_advisory_lock(&key, NO_WAIT).unwrap();
    connect().terminate_holder(&key);
    assert!(guard.release().unwrap_err().is_lost());
    assert_events(&key, &[REQUESTED, GRANTED, LOST]);
    let (mut conn, key) = (connect(), fresh_key());
    let guard = conn.acquire_advisory_lock(&key, NO_WAIT).unwrap();
    connect().terminate_holder(&key);
    drop(guard);
    assert_events(&key, &[REQUESTED, GRANTED, LOST, RELEASE_FAILED]);
}
