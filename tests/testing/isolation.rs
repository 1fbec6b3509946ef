//! Tests that run side by side, and threads that belong to none.
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

/// Whether the lock can be had on this thread.
fn is_free(key: &'static str) -> bool {
    let guard = connect().try_with_advisory_lock(key, QUIET, |_| Ok::<_, LockError>(()));
    guard.unwrap().is_some()
}

/// All at once, with one key: every other test has it held elsewhere, excludes, or plans a fault.
#[test]
fn many_tests_at_once_do_not_see_each_other() {
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
fn other_threads_belong_to_a_test_only_if_they_join() {
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
fn nothing_stays_when_a_test_has_left() {
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
fn the_innermost_counts_in_whatever_order_they_are_left() {
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

/// A guard knows where it came from.
#[test]
fn a_lock_is_given_back_where_it_was_taken() {
    let locks = TestLocks::enter_exclusive();
    let mut conn = connect();
    let guard = conn.acquire_advisory_lock("key", QUIET).unwrap();
    thread::scope(|scope| {
        // On a thread that belongs to another test.
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
