//! What the compiler is to say of guards and futures: they may go to another thread, and own what they hold.

use advisory_locking::locker::{
    AsyncLocker, AsyncLockerGuard, AsyncLockerGuards, Locker, LockerGuard, LockerGuards,
};
use advisory_locking::{LockError, LockOptions};

fn travels<T: Send + 'static>() {}
fn is_shared<T: Send + Sync + Clone + 'static>() {}
const fn is_send<T: Send>(_: &T) {}

#[test]
fn guards_travel_and_lockers_are_shared() {
    travels::<AsyncLockerGuard>();
    travels::<AsyncLockerGuards>();
    travels::<LockerGuard>();
    travels::<LockerGuards>();
    is_shared::<AsyncLocker>();
    is_shared::<Locker>();
}

/// Compiled, and never called.
#[allow(dead_code, reason = "the compiler is the test")]
fn futures_are_send(locker: &AsyncLocker, guard: AsyncLockerGuard, guards: AsyncLockerGuards) {
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
    let body = async |_: &AsyncLockerGuard| Ok::<_, LockError>(());
    is_send(&locker.with_lock("key", no_wait(), body));
    is_send(&locker.try_with_lock("key", no_wait(), body));
    is_send(&locker.with_lock_while_held("key", no_wait(), body));
    outlives(guard.release());
    outlives(guards.release());
}
