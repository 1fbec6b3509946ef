//! What the compiler is to say of guards and futures: they may go to another thread, and own what they hold.

use advisory_locking::lock_manager::{
    BlockingLockManager, BlockingOwnedLockGuard, BlockingOwnedLockGuards, LockManager,
    OwnedLockGuard, OwnedLockGuards,
};
use advisory_locking::{LockError, LockOptions};

fn travels<T: Send + 'static>() {}
fn is_shared<T: Send + Sync + Clone + 'static>() {}
const fn is_send<T: Send>(_: &T) {}

#[test]
fn guards_travel_and_lockers_are_shared() {
    travels::<OwnedLockGuard>();
    travels::<OwnedLockGuards>();
    travels::<BlockingOwnedLockGuard>();
    travels::<BlockingOwnedLockGuards>();
    is_shared::<LockManager>();
    is_shared::<BlockingLockManager>();
}

/// Compiled, and never called.
#[allow(dead_code, reason = "the compiler is the test")]
fn futures_are_send(locker: &LockManager, guard: OwnedLockGuard, guards: OwnedLockGuards) {
    fn outlives<T: Send + 'static>(_: T) {}
    let no_wait = LockOptions::no_wait;
    is_send(&locker.acquire("key", no_wait()));
    is_send(&locker.try_acquire("key", no_wait()));
    is_send(&locker.acquire_fenced("key", no_wait()));
    is_send(&locker.try_acquire_fenced("key", no_wait()));
    is_send(&locker.acquire_all(["key"], no_wait()));
    is_send(&locker.try_acquire_all(["key"], no_wait()));
    is_send(&locker.close());
    is_send(&guard.lost());
    let body = async |_: &OwnedLockGuard| Ok::<_, LockError>(());
    is_send(&locker.with_lock("key", no_wait(), body));
    is_send(&locker.try_with_lock("key", no_wait(), body));
    is_send(&locker.with_lock_while_held("key", no_wait(), body));
    outlives(guard.release());
    outlives(guards.release());
}
