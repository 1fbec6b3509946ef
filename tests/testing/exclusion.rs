//! Sessions of one test that exclude each other, on each blocking adapter.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::session::LockSession;
use advisory_locking::testing::{Event, Fault, TestLocks};
use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, WaitStrategy};

use crate::{BOTH, LONG, QUIET, until_contended, wait};

on_every_adapter! {
    a_second_session_is_refused_and_the_first_is_not,
    levels_are_released_one_by_one,
    one_at_a_time,
    shared_mode_is_shared,
    a_deadlock_ends_one_of_the_two,
    transactions_of_the_caller_are_refused,
    scopes_exclude,
    a_lost_lock_is_free_for_others,
    a_terminated_session_leaves_the_queue,
    a_session_that_ends_wakes_those_that_wait_for_its_other_locks,
}

fn a_second_session_is_refused_and_the_first_is_not<S: AdvisoryLocking>(connect: fn() -> S) {
    let _locks = TestLocks::enter_exclusive();
    let (mut first, mut second) = (connect(), connect());
    let mut outer = first.acquire_advisory_lock("key", QUIET).unwrap();
    assert!(
        second
            .try_acquire_advisory_lock("key", QUIET)
            .unwrap()
            .is_none()
    );
    // The connection that holds the lock may acquire it again, through its guard.
    let inner = outer.acquire_advisory_lock("key", QUIET).unwrap();
    inner.release().unwrap();
    assert!(
        second
            .try_acquire_advisory_lock("key", QUIET)
            .unwrap()
            .is_none()
    );
    outer.release().unwrap();
    second
        .acquire_advisory_lock("key", QUIET)
        .unwrap()
        .release()
        .unwrap();
}

fn levels_are_released_one_by_one<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter_exclusive();
    let (mut first, mut second) = (connect(), connect());
    first
        .with_advisory_lock("key", QUIET, |conn| {
            conn.with_advisory_lock("key", QUIET, |_| Ok::<_, LockError>(()))?;
            assert!(locks.is_held("key"));
            assert!(second.try_acquire_advisory_lock("key", QUIET)?.is_none());
            Ok::<_, LockError>(())
        })
        .unwrap();
    assert!(!locks.is_held("key"));
}

/// Reads, yields, and writes: two bodies at once lose an increment.
fn one_at_a_time<S: AdvisoryLocking>(connect: fn() -> S) {
    const THREADS: u32 = 8;
    const EACH: u32 = 50;
    for strategy in BOTH {
        let locks = TestLocks::enter_exclusive();
        let options = match strategy {
            WaitStrategy::Poll => wait(LONG, strategy).interval(Duration::from_millis(1)),
            _ => wait(LONG, strategy),
        };
        let count = Mutex::new(0);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let _here = locks.attach();
                    let mut conn = connect();
                    for _ in 0..EACH {
                        let body = |_: &mut S| {
                            let read = *count.lock().unwrap();
                            thread::yield_now();
                            *count.lock().unwrap() = read + 1;
                            Ok::<_, LockError>(())
                        };
                        conn.with_advisory_lock("count", options, body).unwrap();
                    }
                });
            }
        });
        assert_eq!(*count.lock().unwrap(), THREADS * EACH, "{strategy:?}");
        let events = locks.events();
        assert_eq!(events.len(), usize::try_from(2 * THREADS * EACH).unwrap());
        // No two acquisitions follow each other without a release.
        for pair in events.chunks(2) {
            assert_eq!(pair, [Event::acquired("count"), Event::released("count")]);
        }
    }
}

fn shared_mode_is_shared<S: AdvisoryLocking>(connect: fn() -> S) {
    let _locks = TestLocks::enter_exclusive();
    let (mut first, mut second, mut third) = (connect(), connect(), connect());
    let _reader = first.acquire_advisory_lock("key", QUIET.shared()).unwrap();
    let _another = second.acquire_advisory_lock("key", QUIET.shared()).unwrap();
    assert!(
        third
            .try_acquire_advisory_lock("key", QUIET)
            .unwrap()
            .is_none()
    );
}

fn a_deadlock_ends_one_of_the_two<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter_exclusive();
    let both_hold = std::sync::Barrier::new(2);
    let cross = |mine: &'static str, other: &'static str| {
        let _here = locks.attach();
        let mut conn = connect();
        let mut guard = conn.acquire_advisory_lock(mine, QUIET).unwrap();
        both_hold.wait();
        let second = guard.acquire_advisory_lock(other, wait(LONG, WaitStrategy::Block));
        second.map(drop).map_err(|error| error.kind())
    };
    let outcomes = thread::scope(|scope| {
        let threads = [("a", "b"), ("b", "a")].map(|(mine, other)| {
            let cross = &cross;
            scope.spawn(move || cross(mine, other))
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let deadlocks = outcomes
        .iter()
        .filter(|outcome| **outcome == Err(LockErrorKind::Deadlock));
    assert_eq!(deadlocks.count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

fn transactions_of_the_caller_are_refused<S: AdvisoryLocking>(connect: fn() -> S) {
    let _locks = TestLocks::enter_exclusive();
    let mut conn = connect();
    LockSession::session_begin(&mut conn).unwrap();
    let refused = conn.acquire_advisory_xact_lock("key", QUIET).unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Unsupported);
    let nested = conn.with_advisory_xact_lock("key", QUIET, |_| Ok::<_, LockError>(()));
    assert_eq!(nested.unwrap_err().kind(), LockErrorKind::Unsupported);
    LockSession::session_rollback(&mut conn).unwrap();
    // The session holds the lock beyond the transaction, so it can acquire it again inside.
    let mut guard = conn.acquire_advisory_lock("key", QUIET).unwrap();
    LockSession::session_begin(&mut *guard).unwrap();
    guard.acquire_advisory_xact_lock("key", QUIET).unwrap();
    LockSession::session_commit(&mut *guard, None).unwrap();
    guard.release().unwrap();
}

fn scopes_exclude<S: AdvisoryLocking>(connect: fn() -> S) {
    for strategy in BOTH {
        let locks = TestLocks::enter_exclusive();
        let mut conn = connect();
        let second = thread::scope(|scope| {
            conn.with_advisory_xact_lock("key", QUIET, |_| {
                let second = scope.spawn(|| {
                    let _here = locks.attach();
                    let body = |_: &mut S| Ok::<_, LockError>(());
                    connect().with_advisory_xact_lock("key", wait(LONG, strategy), body)
                });
                until_contended(&locks, "key", 1);
                Ok::<_, LockError>(second)
            })
            .unwrap()
            .join()
            .unwrap()
        });
        second.unwrap();
        let of_one = [
            Event::acquired("key").in_transaction(),
            Event::released("key").in_transaction(),
        ];
        assert_eq!(
            locks.events(),
            [of_one.clone(), of_one].concat(),
            "{strategy:?}"
        );
    }
}

/// A terminated session holds nothing, although its holder does not know yet.
fn a_lost_lock_is_free_for_others<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter_exclusive();
    let (mut first, mut second) = (connect(), connect());
    let held = first.acquire_advisory_lock("key", QUIET).unwrap();
    assert_eq!(locks.terminate_holders("key"), 1);
    let next = second.acquire_advisory_lock("key", QUIET).unwrap();
    assert_eq!(held.release().unwrap_err().kind(), LockErrorKind::Lost);
    next.release().unwrap();
    let lost = Event::not_released("key", LockErrorKind::Lost);
    assert_eq!(
        locks.events(),
        [
            Event::acquired("key"),
            Event::acquired("key"),
            lost,
            Event::released("key")
        ]
    );
}

/// Its request fails, and is granted nothing after the end of its session.
fn a_terminated_session_leaves_the_queue<S: AdvisoryLocking>(connect: fn() -> S) {
    let locks = TestLocks::enter_exclusive();
    let other = locks.hold_from_other_session("awaited");
    let outcome = thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let _here = locks.attach();
            let mut conn = connect();
            let mut guard = conn.acquire_advisory_lock("held", QUIET).unwrap();
            let waits = wait(LONG, WaitStrategy::Block);
            let outcome = guard.acquire_advisory_lock("awaited", waits).map(drop);
            outcome.map_err(|error| error.kind())
        });
        until_contended(&locks, "awaited", 1);
        assert_eq!(locks.terminate_holders("held"), 1);
        drop(other);
        waiter.join().unwrap()
    });
    assert_eq!(outcome, Err(LockErrorKind::Database));
    assert!(!locks.is_held("awaited"));
}

fn a_session_that_ends_wakes_those_that_wait_for_its_other_locks<S: AdvisoryLocking>(
    connect: fn() -> S,
) {
    let locks = TestLocks::enter_exclusive();
    locks.inject_fault("second", Fault::Lost);
    let mut conn = connect();
    let mut first = conn.acquire_advisory_lock("first", QUIET).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let _here = locks.attach();
            let waits = wait(LONG, WaitStrategy::Block);
            let mut conn = connect();
            conn.acquire_advisory_lock("first", waits).map(drop)
        });
        until_contended(&locks, "first", 1);
        let began = Instant::now();
        let second = first.acquire_advisory_lock("second", QUIET).unwrap();
        waiter.join().unwrap().unwrap();
        // It was woken, and did not find the lock free at its limit.
        assert!(began.elapsed() < LONG);
        drop(second);
    });
}
