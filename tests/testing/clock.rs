//! A paused clock, and an injected timeout: waits that take no time.

use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::testing::{Event, Fault, TestLocks};
use advisory_locking::{AdvisoryLocking, LockErrorKind, WaitStrategy};

use crate::{BOTH, LONG, QUIET, kind, unreachable_body, until_contended, wait};

/// Longer than any test may take.
const HOUR: Duration = Duration::from_secs(3600);

on_every_adapter! {
    paused_clock_reaches_the_limit_at_once,
    paused_clock_leaves_free_locks_free,
    resumed_clock_waits,
    clock_paused_during_a_wait_ends_it,
    injected_timeout_takes_no_time,
    injected_timeout_needs_a_limit,
    injected_faults_apply_in_order,
    longest_limit_passes_at_once,
    error_has_the_time_of_the_test,
}

fn paused_clock_reaches_the_limit_at_once<S: AdvisoryLocking>(connect: fn() -> S) {
    let (locks, began) = (TestLocks::enter(), Instant::now());
    locks.pause_clock();
    let _other = locks.hold_from_other_session("key");
    for strategy in BOTH {
        let outcome = connect().with_advisory_lock("key", wait(HOUR, strategy), unreachable_body);
        assert_eq!(kind(outcome), LockErrorKind::TimedOut, "{strategy:?}");
        let outcome =
            connect().with_advisory_xact_lock("key", wait(HOUR, strategy), unreachable_body);
        assert_eq!(kind(outcome), LockErrorKind::TimedOut, "{strategy:?}");
    }
    assert!(began.elapsed() < LONG);
    let timed_out = Event::timed_out("key");
    let in_transaction = timed_out.clone().in_transaction();
    assert_eq!(
        locks.events(),
        [
            timed_out.clone(),
            in_transaction.clone(),
            timed_out,
            in_transaction
        ]
    );
}

fn paused_clock_leaves_free_locks_free<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter();
    locks.pause_clock();
    for strategy in BOTH {
        let mut conn = connect();
        let guard = conn.acquire_advisory_lock("key", wait(HOUR, strategy));
        guard.unwrap().release().unwrap();
    }
}

fn resumed_clock_waits<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter();
    locks.pause_clock();
    locks.resume_clock();
    let _other = locks.hold_from_other_session("key");
    for strategy in BOTH {
        let (limit, began) = (Duration::from_millis(30), Instant::now());
        let outcome = connect().with_advisory_lock("key", wait(limit, strategy), unreachable_body);
        assert_eq!(kind(outcome), LockErrorKind::TimedOut);
        assert!(began.elapsed() >= limit, "{strategy:?}");
    }
}

fn clock_paused_during_a_wait_ends_it<S: AdvisoryLocking>(connect: fn() -> S) {
    for strategy in BOTH {
        let (locks, began) = (TestLocks::enter(), Instant::now());
        let _other = locks.hold_from_other_session("key");
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let _here = locks.attach();
                let options = wait(HOUR, strategy);
                kind(connect().with_advisory_lock("key", options, unreachable_body))
            });
            until_contended(&locks, "key", 1);
            locks.pause_clock();
            let ended = waiter.join().unwrap();
            assert_eq!(ended, LockErrorKind::TimedOut, "{strategy:?}");
        });
        assert!(began.elapsed() < LONG);
    }
}

fn injected_timeout_takes_no_time<S: AdvisoryLocking>(connect: fn() -> S) {
    let (locks, began) = (TestLocks::enter(), Instant::now());
    for strategy in BOTH {
        locks.inject_fault("key", Fault::TimedOut);
        let outcome = connect().with_advisory_lock("key", wait(HOUR, strategy), unreachable_body);
        assert_eq!(kind(outcome), LockErrorKind::TimedOut, "{strategy:?}");
        // The fault is used up.
        let mut conn = connect();
        let guard = conn.acquire_advisory_lock("key", wait(HOUR, strategy));
        guard.unwrap().release().unwrap();
    }
    assert!(began.elapsed() < LONG);
    assert_eq!(locks.events()[0], Event::timed_out("key"));
    assert_eq!(locks.contention_count("key"), 2);
}

fn injected_timeout_needs_a_limit<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter();
    locks.inject_fault("key", Fault::TimedOut);
    let mut conn = connect();
    drop(conn.acquire_advisory_lock("key", QUIET).unwrap());
    let outcome = conn.acquire_advisory_lock("key", wait(HOUR, BOTH[0]));
    assert_eq!(kind(outcome), LockErrorKind::TimedOut);
}

/// No clock measures the longest limit.
fn longest_limit_passes_at_once<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter();
    for strategy in BOTH {
        let options = wait(Duration::MAX, strategy);
        locks.inject_fault("key", Fault::TimedOut);
        let outcome = connect().with_advisory_lock("key", options, unreachable_body);
        assert_eq!(kind(outcome), LockErrorKind::TimedOut, "{strategy:?}");
        locks.pause_clock();
        let other = locks.hold_from_other_session("key");
        let outcome = connect().with_advisory_lock("key", options, unreachable_body);
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut, "{strategy:?}");
        assert_eq!(error.limit(), Some(Duration::MAX));
        drop(other);
        locks.resume_clock();
    }
}

fn error_has_the_time_of_the_test<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter();
    for strategy in BOTH {
        for paused in [true, false] {
            let other = paused.then(|| locks.hold_from_other_session("key"));
            if paused {
                locks.pause_clock();
            } else {
                locks.inject_fault("key", Fault::TimedOut);
            }
            let outcome =
                connect().with_advisory_lock("key", wait(HOUR, strategy), unreachable_body);
            let waited = outcome.unwrap_err().waited().unwrap();
            assert!(waited >= HOUR, "{strategy:?}: {waited:?}");
            drop(other);
            locks.resume_clock();
        }
    }
}

fn injected_faults_apply_in_order<S: AdvisoryLocking>(connect: fn() -> S) {
    for strategy in BOTH {
        let (mut conn, locks) = (connect(), TestLocks::enter());
        locks.inject_fault("key", Fault::Database);
        locks.inject_fault("key", Fault::TimedOut);
        for expected in [LockErrorKind::Database, LockErrorKind::TimedOut] {
            let outcome = conn.acquire_advisory_lock("key", wait(HOUR, strategy));
            assert_eq!(kind(outcome), expected, "{strategy:?}");
        }
    }
    // A deadlock needs a wait in the queue, and later faults wait for it.
    let (mut conn, locks) = (connect(), TestLocks::enter());
    let faults = [
        (Fault::Deadlock, LockErrorKind::Deadlock),
        (Fault::Database, LockErrorKind::Database),
        (Fault::Deadlock, LockErrorKind::Deadlock),
        (Fault::TimedOut, LockErrorKind::TimedOut),
    ];
    for (fault, _) in faults {
        locks.inject_fault("key", fault);
    }
    for (_, expected) in faults {
        let outcome = conn.acquire_advisory_lock("key", wait(HOUR, WaitStrategy::Block));
        assert_eq!(kind(outcome), expected);
    }
}
