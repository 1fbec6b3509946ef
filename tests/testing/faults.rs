//! Injected faults, on each blocking adapter.

use std::time::Duration;

use advisory_locking::testing::{Event, Fault, TestLocks};
use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, WaitStrategy};

use crate::{LONG, QUIET, kind, unreachable_body, wait};

on_every_adapter! {
    lost_in_the_body,
    lost_under_a_guard,
    guard_knows_of_a_terminated_session,
    a_release_that_fails,
    faults_of_asking,
    deadlock_is_reported_to_queued_waiters,
    a_scope_that_is_lost_is_rolled_back,
    session_loses_all_its_locks,
    a_terminated_session_loses_its_outer_locks,
    a_level_that_fails_ends_the_session,
    a_failed_attempt_aborts_its_transaction,
    a_savepoint_of_a_lost_session_is_not_committed,
    a_transaction_ended_by_its_body_is_recorded,
}

fn lost_in_the_body<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter();
    locks.inject_fault("key", Fault::Lost);
    let mut ran = false;
    let outcome = connect().with_advisory_lock("key", QUIET, |_| {
        ran = true;
        Ok::<_, LockError>("the value is dropped")
    });
    assert!(ran, "the lock is lost while it is held, not before");
    let error = outcome.unwrap_err();
    assert!(error.is_lost() && error.kind() == LockErrorKind::Lost);

    // The error of the body takes precedence.
    locks.inject_fault("key", Fault::Lost);
    let own = LockError::new(LockErrorKind::Unsupported);
    let outcome = connect().with_advisory_lock("key", QUIET, |_| Err::<(), _>(own));
    assert_eq!(kind(outcome), LockErrorKind::Unsupported);

    // The fault is used up.
    connect()
        .with_advisory_lock("key", QUIET, |_| Ok::<_, LockError>(()))
        .unwrap();
    let lost = Event::not_released("key", LockErrorKind::Lost);
    assert_eq!(
        locks.events(),
        [
            Event::acquired("key"),
            lost.clone(),
            Event::acquired("key"),
            lost,
            Event::acquired("key"),
            Event::released("key"),
        ]
    );
}

fn lost_under_a_guard<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter();
    assert_eq!(locks.terminate_holders("key"), 0);
    let (mut first, mut second) = (connect(), connect());
    let guard = first.acquire_advisory_lock("key", QUIET).unwrap();
    assert!(locks.is_held("key"));
    assert_eq!(locks.terminate_holders("key"), 1);
    assert!(!locks.is_held("key"));
    assert_eq!(kind(guard.release()), LockErrorKind::Lost);

    // A dropped guard reports to the recorded events only.
    let guard = second.acquire_advisory_lock("key", QUIET).unwrap();
    assert_eq!(locks.terminate_holders("key"), 1);
    drop(guard);
    let lost = Event::not_released("key", LockErrorKind::Lost);
    let acquired = Event::acquired("key");
    assert_eq!(
        locks.take_events(),
        [acquired.clone(), lost.clone(), acquired, lost]
    );
    assert_eq!(locks.events(), []);
}

fn a_release_that_fails<S: AdvisoryLocking>(connect: fn() -> S) {
    let faults = [
        (Fault::NotHeld, LockErrorKind::NotHeld),
        (Fault::SessionChanged, LockErrorKind::SessionChanged),
    ];
    for (fault, expected) in faults {
        let mut conn = connect();
        let locks = TestLocks::enter();
        locks.inject_fault("key", fault);
        let guard = conn.acquire_advisory_lock("key", QUIET).unwrap();
        assert_eq!(kind(guard.release()), expected);
        let failed = Event::not_released("key", expected);
        assert_eq!(locks.events(), [Event::acquired("key"), failed]);
    }
}

fn faults_of_asking<S: AdvisoryLocking>(connect: fn() -> S) {
    let faults = [
        (Fault::Canceled, LockErrorKind::Canceled),
        (Fault::Database, LockErrorKind::Database),
        (Fault::TooManyLocks, LockErrorKind::TooManyLocks),
    ];
    let mut conn = connect();
    let locks = TestLocks::enter();
    for (fault, _) in faults {
        locks.inject_fault("key", fault);
    }
    // In order, one for each call, and for this key only.
    conn.acquire_advisory_lock("another key", QUIET)
        .unwrap()
        .release()
        .unwrap();
    for (_, expected) in faults {
        let error = conn
            .with_advisory_lock("key", QUIET, unreachable_body)
            .unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(std::error::Error::source(&error).is_some());
    }
    conn.acquire_advisory_lock("key", QUIET)
        .unwrap()
        .release()
        .unwrap();
}

fn deadlock_is_reported_to_queued_waiters<S: AdvisoryLocking>(connect: fn() -> S) {
    let mut conn = connect();
    let locks = TestLocks::enter();
    locks.inject_fault("key", Fault::Deadlock);
    let short = Duration::from_millis(5);
    assert_eq!(
        kind(conn.with_advisory_lock("key", QUIET, unreachable_body)),
        LockErrorKind::HeldElsewhere
    );
    let polling = conn.with_advisory_lock("key", wait(short, WaitStrategy::Poll), unreachable_body);
    assert_eq!(kind(polling), LockErrorKind::TimedOut);
    let queued = conn.with_advisory_lock("key", wait(LONG, WaitStrategy::Block), unreachable_body);
    assert_eq!(kind(queued), LockErrorKind::Deadlock);
    conn.acquire_advisory_lock("key", QUIET)
        .unwrap()
        .release()
        .unwrap();
}

fn guard_knows_of_a_terminated_session<S: AdvisoryLocking>(connect: fn() -> S) {
    let (mut conn, locks) = (connect(), TestLocks::enter());
    let mut guard = conn.acquire_advisory_lock("key", QUIET).unwrap();
    assert!(!guard.is_lost());
    assert_eq!(locks.terminate_holders("key"), 1);
    assert!(guard.is_lost());
    assert_eq!(kind(guard.release()), LockErrorKind::Lost);
}

fn a_scope_that_is_lost_is_rolled_back<S: AdvisoryLocking>(connect: fn() -> S) {
    let mut conn = connect();
    let locks = TestLocks::enter();
    locks.inject_fault("key", Fault::Lost);
    let outcome = conn.with_advisory_xact_lock("key", QUIET, |_| Ok::<_, LockError>(()));
    assert_eq!(kind(outcome), LockErrorKind::CommitFailed);
    assert!(!conn.session_transaction_state().is_open());
    assert_eq!(
        locks.events(),
        [
            Event::acquired("key").in_transaction(),
            Event::not_released("key", LockErrorKind::Lost).in_transaction(),
        ]
    );
}

/// The server releases each lock of a session that ends.
fn session_loses_all_its_locks<S: AdvisoryLocking>(connect: fn() -> S) {
    for injected in [true, false] {
        let (mut conn, locks) = (connect(), TestLocks::enter());
        if injected {
            locks.inject_fault("inner", Fault::Lost);
        }
        let mut outer = conn.acquire_advisory_lock("outer", QUIET).unwrap();
        let mut inner = outer.acquire_advisory_lock("inner", QUIET).unwrap();
        if !injected {
            assert_eq!(locks.terminate_holders("inner"), 2);
        }
        assert!(!locks.is_held("outer") && !locks.is_held("inner"));
        let another = inner.acquire_advisory_lock("another", QUIET).map(drop);
        assert_eq!(kind(another), LockErrorKind::Database);
        assert_eq!(kind(inner.release()), LockErrorKind::Lost);
        assert_eq!(kind(outer.release()), LockErrorKind::Lost);
        // The pool replaces the connection.
        connect()
            .acquire_advisory_lock("outer", QUIET)
            .unwrap()
            .release()
            .unwrap();
    }
}

/// The crate terminates the session whose body has left a transaction open.
fn a_terminated_session_loses_its_outer_locks<S: AdvisoryLocking>(connect: fn() -> S) {
    let (mut conn, locks) = (connect(), TestLocks::enter());
    let mut outer = conn.acquire_advisory_lock("outer", QUIET).unwrap();
    let inner = outer.with_advisory_lock("inner", QUIET, |conn| {
        conn.session_begin().unwrap();
        Ok::<_, LockError>(())
    });
    assert_eq!(kind(inner), LockErrorKind::TransactionLeftOpen);
    assert!(!locks.is_held("outer"));
    assert_eq!(kind(outer.release()), LockErrorKind::Lost);
    assert_eq!(
        locks.events()[2..],
        [
            Event::not_released("inner", LockErrorKind::TransactionLeftOpen),
            Event::not_released("outer", LockErrorKind::Lost),
        ]
    );
}

/// After such an error, `pg_locks` does not tell the level of the call from that of the outer lock.
fn a_level_that_fails_ends_the_session<S: AdvisoryLocking>(connect: fn() -> S) {
    for fault in [Fault::Canceled, Fault::Database, Fault::TooManyLocks] {
        let (mut conn, locks) = (connect(), TestLocks::enter());
        let mut outer = conn.acquire_advisory_lock("key", QUIET).unwrap();
        locks.inject_fault("key", fault);
        assert!(outer.acquire_advisory_lock("key", QUIET).is_err());
        assert!(!locks.is_held("key"), "{fault:?}");
        assert_eq!(kind(outer.release()), LockErrorKind::Lost, "{fault:?}");
    }
}

fn a_failed_attempt_aborts_its_transaction<S: AdvisoryLocking>(connect: fn() -> S) {
    let (mut conn, locks) = (connect(), TestLocks::enter());
    locks.inject_fault("key", Fault::Database);
    let failed = conn.with_advisory_xact_lock("key", QUIET, unreachable_body);
    assert_eq!(kind(failed), LockErrorKind::TransactionAborted);
}

fn a_savepoint_of_a_lost_session_is_not_committed<S: AdvisoryLocking>(connect: fn() -> S) {
    let (mut conn, locks) = (connect(), TestLocks::enter());
    let mut inner = None;
    let outer = conn.with_advisory_xact_lock("outer", QUIET, |conn| {
        inner = Some(conn.with_advisory_xact_lock("inner", QUIET, |_| {
            assert_eq!(locks.terminate_holders("outer"), 1);
            Ok::<_, LockError>(())
        }));
        Ok::<_, LockError>(())
    });
    assert_eq!(kind(inner.unwrap()), LockErrorKind::CommitFailed);
    // Lost if the client knows that the session has ended.
    let outer = kind(outer);
    assert!(
        [LockErrorKind::Lost, LockErrorKind::CommitFailed].contains(&outer),
        "{outer:?}"
    );
}

fn a_transaction_ended_by_its_body_is_recorded<S: AdvisoryLocking>(connect: fn() -> S) {
    let (mut conn, locks) = (connect(), TestLocks::enter());
    let outcome = conn.with_advisory_xact_lock("key", QUIET, |conn| {
        conn.session_rollback().unwrap();
        Ok::<_, LockError>(())
    });
    assert_eq!(kind(outcome), LockErrorKind::NotHeld);
    let not_held = Event::not_released("key", LockErrorKind::NotHeld);
    assert_eq!(locks.events().last(), Some(&not_held.in_transaction()));
}
