//! Checks at compile time that guards and futures may move to another thread.

use advisory_locking::lock_manager::{LockManager, OwnedLockGuard, OwnedLockGuards};
use advisory_locking::{LockError, LockOptions};

fn assert_send_static<T: Send + 'static>() {}
fn assert_clone_sync<T: Send + Sync + Clone + 'static>() {}
const fn assert_send<T: Send>(_: &T) {}

#[test]
fn guards_are_send_and_the_manager_is_sync() {
    assert_send_static::<OwnedLockGuard>();
    assert_send_static::<OwnedLockGuards>();
    assert_clone_sync::<LockManager>();
}

/// Compiled, and never called.
#[allow(dead_code, reason = "the compiler is the test")]
fn futures_are_send(manager: &LockManager, guard: OwnedLockGuard, guards: OwnedLockGuards) {
    fn assert_value_send_static<T: Send + 'static>(_: T) {}
    let no_wait = LockOptions::no_wait;
    assert_send(&manager.acquire("key", no_wait()));
    assert_send(&manager.try_acquire("key", no_wait()));
    assert_send(&manager.acquire_fenced("key", no_wait()));
    assert_send(&manager.try_acquire_fenced("key", no_wait()));
    assert_send(&manager.acquire_all(["key"], no_wait()));
    assert_send(&manager.try_acquire_all(["key"], no_wait()));
    assert_send(&manager.close());
    assert_send(&guard.lost());
    let body = async |_: &OwnedLockGuard| Ok::<_, LockError>(());
    assert_send(&manager.with_lock("key", no_wait(), body));
    assert_send(&manager.try_with_lock("key", no_wait(), body));
    assert_send(&manager.with_lock_while_held("key", no_wait(), body));
    assert_send(&manager.try_with_lock_while_held("key", no_wait(), body));
    assert_value_send_static(guard.release());
    assert_value_send_static(guards.release());
}
