//! Parallel tests, and threads that are not attached.
#![cfg(feature = "rusqlite")]

use std::sync::Barrier;
use std::thread;

use advisory_locking::testing::{Event, Fault, TestLocks};
use advisory_locking::{AdvisoryLocking, LockError};
use rusqlite::Connection;

use crate::QUIET;

fn connect() -> Connection {
    Connection::open_in_memory().unwrap()
}

/// Returns `true` if the lock is granted on this thread.
fn is_free(key: &'static str) -> bool {
    let guard = connect().try_with_advisory_lock(key, QUIET, |_| Ok::<_, LockError>(()));
    guard.unwrap().is_some()
}

/// Parallel tests with one key: contended, exclusive, or with an injected fault.
#[test]
fn parallel_tests_are_isolated() {
    const TESTS: usize = 64;
    let all = Barrier::new(TESTS);
    let one = |number: usize| {
        let contended = number % 2 == 0;
        let locks = if number % 3 == 0 {
            TestLocks::enter_exclusive()
        } else {
            TestLocks::enter()
        };
        let _elsewhere = contended.then(|| locks.hold_from_other_session("key"));
        if number % 4 == 1 {
            locks.inject_fault("key", Fault::NotHeld);
        }
        all.wait();
        for _ in 0..20 {
            let mut conn = connect();
            let lock = conn.try_acquire_advisory_lock("key", QUIET).unwrap();
            assert_eq!(lock.is_none(), contended, "test {number}");
            drop(lock);
        }
        all.wait();
        let expected = if contended { 20 } else { 40 };
        assert_eq!(locks.events().len(), expected, "test {number}");
    };
    thread::scope(|scope| {
        for number in 0..TESTS {
            let one = &one;
            scope.spawn(move || one(number));
        }
    });
}

#[test]
fn threads_belong_to_a_test_only_if_attached() {
    let locks = TestLocks::enter();
    let _elsewhere = locks.hold_from_other_session("key");
    assert!(!is_free("key"));
    assert!(thread::spawn(|| is_free("key")).join().unwrap());
    let joined = locks.clone();
    let free = thread::spawn(move || {
        let here = joined.attach();
        let during = is_free("key");
        drop(here);
        (during, is_free("key"))
    });
    assert_eq!(free.join().unwrap(), (false, true));
    let joined = locks.clone();
    let free = thread::spawn(move || {
        joined.attach_thread();
        is_free("key")
    });
    assert!(!free.join().unwrap());
}

#[test]
fn leaving_a_scope_clears_its_state() {
    let locks = TestLocks::enter();
    let elsewhere = locks.hold_from_other_session("key");
    drop(locks);
    assert!(is_free("key"));
    drop(elsewhere);

    let panicked = thread::spawn(|| {
        let caught = std::panic::catch_unwind(|| {
            let locks = TestLocks::enter();
            let _elsewhere = locks.hold_from_other_session("key");
            std::panic::panic_any("on purpose");
        });
        caught.is_err() && is_free("key")
    });
    assert!(panicked.join().unwrap());
}

#[test]
fn innermost_scope_applies_in_any_drop_order() {
    let outer = TestLocks::enter();
    let _elsewhere = outer.hold_from_other_session("key");
    let inner = TestLocks::enter();
    assert!(is_free("key"));
    let outer_once_more = outer.attach();
    assert!(!is_free("key"));
    drop(outer_once_more);
    assert!(is_free("key"));
    drop(outer);
    assert!(is_free("key"));
    drop(inner);
    assert!(is_free("key"));
}

/// A guard belongs to the test that acquired it.
#[test]
fn lock_is_released_in_its_own_test() {
    let locks = TestLocks::enter_exclusive();
    let mut conn = connect();
    let guard = conn.acquire_advisory_lock("key", QUIET).unwrap();
    thread::scope(|scope| {
        // On a thread that is attached to another test.
        scope.spawn(|| {
            let other = TestLocks::enter();
            assert!(guard.release().is_ok());
            assert_eq!(other.events(), []);
        });
    });
    assert!(is_free("key"));
    assert_eq!(
        locks.events()[..2],
        [Event::acquired("key"), Event::released("key")]
    );
}
