//! A session that holds a lock in one mode and requests it in the other, beside a waiter.

use std::thread;

use advisory_locking::{AdvisoryLocking, LockMode, LockOptions};
use testkit::observer::Observe;
use testkit::server::{block, connect, eventually, fresh_key};
use testkit::timeouts::major_version;

/// The unit-test kit replies as the servers before PostgreSQL 17.
#[test]
fn attempt_beside_a_waiter_is_granted_since_version_17() {
    for [held, requested] in [
        [LockMode::Exclusive, LockMode::Shared],
        [LockMode::Shared, LockMode::Exclusive],
    ] {
        let (key, mut holder, mut observer) = (fresh_key(), connect(), connect());
        let grants = major_version(&mut observer) >= 17;
        let try_once = |mode| LockOptions::no_wait().mode(mode);
        let guard = holder.acquire_advisory_lock(&key, try_once(held));
        let mut guard = guard.unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let guard = connect().acquire_advisory_lock(&key, block()).map(drop);
                guard.unwrap();
            });
            eventually("the waiter queues", || observer.waiters(&key).len() == 1);
            for (mode, expected) in [(held, true), (requested, grants)] {
                let granted = guard.try_acquire_advisory_lock(&key, try_once(mode));
                assert_eq!(granted.unwrap().is_some(), expected, "{held:?}, {mode:?}");
            }
            // In the server's queue, it is before the waiter.
            let granted = guard.acquire_advisory_lock(&key, block().mode(requested));
            granted.unwrap().release().unwrap();
            guard.release().unwrap();
            waiter.join().unwrap();
        });
    }
}
