//! Runtimes that end before their lock manager, and calls that are dropped half-way.

use std::cell::RefCell;
use std::time::Duration;

use advisory_locking::LockErrorKind::{Closed, Lost, Pool};
use advisory_locking::lock_manager::OwnedLockGuard;
use advisory_locking::{LockError, LockKey};
use testkit::observer::Observe;
use testkit::server::{block, connect_to, eventually, eventually_async};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use crate::cases::{TIMEOUT, fresh_key, kind_of, no_wait, poll, without_keep_alive};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::{PoolKind, PoolUnderTest};
use crate::test_manager::{Caller, TestManager};

pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// The runtime ends while the lock manager holds one lock and waits for another. Guards report a
/// loss, and calls from other runtimes are rejected instead of hanging.
fn ended_runtime_closes_the_manager(kind: PoolKind) {
    let (pool_under_test, home, elsewhere) = (
        PoolUnderTest::new(kind, Caller::Async),
        runtime(),
        runtime(),
    );
    let (held, busy, mut observer) = (fresh_key(), fresh_key(), connect_to(&pool_under_test.url));
    let _competitor = CompetingSession::holding(&busy);
    let (manager, guard) = home.block_on(async {
        let manager = pool_under_test.manager(without_keep_alive()).await;
        let guard = manager.acquire(&held, no_wait()).await.unwrap();
        (manager, guard)
    });
    let waiting = elsewhere.spawn({
        let (manager, busy) = (manager.clone(), busy.clone());
        async move { kind_of(manager.acquire(&busy, block()).await) }
    });
    observer.wait_until_waiters(&busy, 1);
    drop(home);
    observer.assert_soon_free(&held, "the end of the runtime");
    eventually("the end of the wait", || observer.waiters(&busy).is_empty());
    elsewhere.block_on(async {
        // Rejected for the lost session, or for the closed lock manager.
        let told = timeout(TIMEOUT, waiting).await.unwrap().unwrap();
        assert!(matches!(told, Some(Closed | Pool)), "{told:?}");
        assert!(guard.is_lost());
        assert_eq!(kind_of(guard.release().await), Some(Lost));
        for options in [no_wait(), poll()] {
            let requested = timeout(TIMEOUT, manager.acquire(&fresh_key(), options)).await;
            assert_eq!(kind_of(requested.expect("a response")), Some(Closed));
        }
        timeout(TIMEOUT, manager.close())
            .await
            .expect("no session is left");
    });
}

/// The runtime ends before the first call.
fn first_call_after_the_runtime_is_rejected(kind: PoolKind) {
    let (pool_under_test, home, elsewhere) = (
        PoolUnderTest::new(kind, Caller::Async),
        runtime(),
        runtime(),
    );
    let manager = home.block_on(async { pool_under_test.manager(without_keep_alive()).await });
    drop(home);
    elsewhere.block_on(async {
        let requested = timeout(TIMEOUT, manager.acquire(&fresh_key(), poll())).await;
        assert_eq!(kind_of(requested.expect("a response")), Some(Closed));
    });
}

/// The guard is dropped after the runtime.
fn guard_may_outlive_the_runtime(kind: PoolKind) {
    let (pool_under_test, home) = (PoolUnderTest::new(kind, Caller::Async), runtime());
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let guard = home.block_on(async {
        let manager = pool_under_test.manager(without_keep_alive()).await;
        let guard = manager.acquire(&key, no_wait()).await.unwrap();
        assert!(!guard.is_lost());
        std::mem::forget(manager);
        guard
    });
    drop(home);
    drop(guard);
    observer.assert_soon_free(&key, "the end of the runtime");
}

/// Releases a lock in its destructor, as a type of an application may do.
struct ReleasedWhenDropped(Option<OwnedLockGuard>);

impl Drop for ReleasedWhenDropped {
    fn drop(&mut self) {
        // The test reads the state of both locks: a panic here would abort the process.
        let _ = self.0.take().map(OwnedLockGuard::release_blocking);
    }
}

thread_local! {
    static RELEASED_LAST: RefCell<Option<ReleasedWhenDropped>> = const { RefCell::new(None) };
}

/// The variable of the guard is older than tokio's, which are destroyed first.
fn release_at_the_end_of_a_thread_keeps_other_locks(kind: PoolKind) {
    let (pool_under_test, home) = (PoolUnderTest::new(kind, Caller::Async), runtime());
    let ([released, held], mut observer) =
        ([fresh_key(), fresh_key()], connect_to(&pool_under_test.url));
    let (_manager, guard, other) = home.block_on(async {
        let manager = pool_under_test.manager(without_keep_alive()).await.manager;
        let guard = manager.acquire(&released, no_wait()).await.unwrap();
        let other = manager.acquire(&held, no_wait()).await.unwrap();
        (manager, guard, other)
    });
    let ends = std::thread::spawn(move || {
        RELEASED_LAST.set(None);
        Handle::try_current().unwrap_err();
        RELEASED_LAST.set(Some(ReleasedWhenDropped(Some(guard))));
    });
    ends.join().unwrap();
    assert!(observer.is_free(&released));
    assert!(!other.is_lost());
    home.block_on(other.release()).unwrap();
}

/// A dropped waiter leaves neither a lock nor a wait on the server, and later calls are served.
fn dropped_wait_leaves_nothing(kind: PoolKind) {
    let (pool_under_test, home) = (PoolUnderTest::new(kind, Caller::Async), runtime());
    let mut observer = connect_to(&pool_under_test.url);
    home.block_on(async {
        let manager = pool_under_test.manager(without_keep_alive()).await;
        let [free, busy] = [fresh_key(), fresh_key()];
        let mut competitor = CompetingSession::holding(&busy);

        let waiting = tokio::spawn(acquire_and_release(manager.clone(), busy.clone()));
        observer.wait_until_waiters(&busy, 1);
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        soon("an abort", || observer.waiters(&busy).is_empty()).await;

        let limit = Duration::from_millis(50);
        timeout(limit, manager.acquire(&busy, block()))
            .await
            .unwrap_err();
        soon("a timeout", || observer.waiters(&busy).is_empty()).await;

        // The locks that the call held before the contended one.
        let mut keys = vec![free.clone(), busy.clone()];
        keys.sort_by_key(LockKey::raw);
        timeout(limit, manager.acquire_all(keys, poll()))
            .await
            .unwrap_err();
        observer.assert_soon_free(&free, "acquire_all");

        competitor.unlock(&busy);
        let guard = manager.acquire(&busy, poll()).await.unwrap();
        guard.release().await.unwrap();
        assert!(observer.is_free(&busy));
    });
}

async fn acquire_and_release(manager: TestManager, key: LockKey) {
    drop(manager.acquire(&key, block()).await);
}

async fn soon(after: &str, is_so: impl FnMut() -> bool) {
    eventually_async(&format!("nothing is left after {after}"), is_so).await;
}

/// Drops a call at its first pending poll, its second one, and so on.
fn call_dropped_at_each_point_leaves_nothing(kind: PoolKind) {
    // One thread, so that the lock manager's own tasks run only between two polls of the call.
    let home = Builder::new_current_thread().enable_all().build().unwrap();
    let pool_under_test = PoolUnderTest::new(kind, Caller::Async);
    let mut observer = connect_to(&pool_under_test.url);
    home.block_on(async {
        let pool = pool_under_test.pool(2).await;
        let manager = pool.manager(without_keep_alive());
        for method in [
            "acquire",
            "acquire_fenced",
            "try_acquire",
            "try_acquire_fenced",
            "acquire_all",
            "try_acquire_all",
            "with_lock",
            "try_with_lock",
            "with_lock_while_held",
            "try_with_lock_while_held",
        ] {
            let (mut limit, mut at_once) = (1, 0);
            loop {
                let key = fresh_key();
                let call = call(&manager, method, &key);
                let completed = testkit::pending::drop_at(limit, call).await.is_some();
                soon(method, || observer.is_free(&key)).await;
                let again = manager.acquire(&key, poll()).await.unwrap();
                again.release().await.unwrap();
                if !completed {
                    limit += 1;
                } else if limit > 1 {
                    break;
                } else {
                    // Sometimes the server replies before the first poll.
                    at_once += 1;
                    assert!(at_once < 100, "{method} was never pending");
                }
            }
        }
        // The same for `close` and `release`.
        let guard = manager.acquire(&fresh_key(), no_wait()).await.unwrap();
        assert!(
            testkit::pending::drop_at(1, manager.close())
                .await
                .is_none()
        );
        let refused = manager.acquire(&fresh_key(), no_wait()).await;
        assert_eq!(kind_of(refused), Some(Closed));
        let key = guard.key().clone();
        drop(testkit::pending::drop_at(1, guard.release()).await);
        soon("a release", || observer.is_free(&key)).await;
        drop(manager);
        let pids = pool.pids(2).await;
        assert_eq!(observer.lock_count(&pids), 0);
    });
}

/// A request and a release whose futures are not polled do not block other calls on their session.
fn unpolled_call_does_not_block_its_session(kind: PoolKind) {
    let (pool_under_test, home) = (PoolUnderTest::new(kind, Caller::Async), runtime());
    let mut observer = connect_to(&pool_under_test.url);
    home.block_on(async {
        let pool = pool_under_test.pool(2).await;
        let manager = pool.manager(without_keep_alive().max_sessions(1)).manager;
        let [before, requested, key] = [fresh_key(), fresh_key(), fresh_key()];
        let guard = manager.acquire(&before, no_wait()).await.unwrap();
        let releasing = guard.release();
        let mut acquiring = Box::pin(manager.acquire(&requested, no_wait()));
        drop(testkit::pending::until_pending(1, &mut acquiring).await);

        let other = timeout(TIMEOUT, manager.acquire(&key, no_wait())).await;
        let other = other.expect("not blocked").unwrap();
        soon("a release that is not awaited", || {
            observer.is_free(&before)
        })
        .await;
        drop((releasing, acquiring));
        soon("a call that was not polled", || {
            observer.is_free(&requested)
        })
        .await;
        other.release().await.unwrap();
    });
}

/// Acquires a free key with the named method, and releases it.
async fn call(manager: &TestManager, method: &str, key: &LockKey) {
    let keys = || vec![key.clone(), fresh_key()];
    let body = || Ok::<_, LockError>(());
    let granted = match method {
        "acquire" => manager.acquire(key, no_wait()).await.is_ok(),
        "acquire_fenced" => manager.acquire_fenced(key, no_wait()).await.is_ok(),
        "try_acquire" => manager.try_acquire(key, no_wait()).await.unwrap().is_some(),
        "try_acquire_fenced" => manager
            .try_acquire_fenced(key, no_wait())
            .await
            .unwrap()
            .is_some(),
        "acquire_all" => manager.acquire_all(keys(), no_wait()).await.is_ok(),
        "try_acquire_all" => manager
            .try_acquire_all(keys(), no_wait())
            .await
            .unwrap()
            .is_some(),
        "with_lock" => manager.with_lock(key, no_wait(), body).await.is_ok(),
        "try_with_lock" => manager
            .try_with_lock(key, no_wait(), body)
            .await
            .unwrap()
            .is_some(),
        "with_lock_while_held" => {
            let body = async |_: &OwnedLockGuard| body();
            let call = manager.manager.with_lock_while_held(key, no_wait(), body);
            call.await.is_ok()
        }
        "try_with_lock_while_held" => {
            let (manager, body) = (&manager.manager, async |_: &OwnedLockGuard| body());
            let call = manager.try_with_lock_while_held(key, no_wait(), body);
            call.await.unwrap().is_some()
        }
        other => panic!("no method {other}"),
    };
    assert!(granted, "{method} of a free key");
}

macro_rules! on_pools {
    ($($pool:ident => $kind:ident: $($case:ident),*;)*) => {$(
        mod $pool {
            $(
                #[test]
                fn $case() {
                    super::$case(crate::pool_under_test::PoolKind::$kind);
                }
            )*
        }
    )*};
}

macro_rules! on_async_pools {
    ($($pool:ident => $kind:ident;)*) => {
        on_pools! {$(
            $pool => $kind: ended_runtime_closes_the_manager, first_call_after_the_runtime_is_rejected, guard_may_outlive_the_runtime,
                release_at_the_end_of_a_thread_keeps_other_locks,
                dropped_wait_leaves_nothing, call_dropped_at_each_point_leaves_nothing, unpolled_call_does_not_block_its_session;
        )*}
    };
}

on_async_pools! {
    bb8 => Bb8;
    deadpool => Deadpool;
    mobc => Mobc;
    sea_orm => SeaOrm;
    sqlx => Sqlx;
    tokio_postgres => TokioPostgres;
    deadpool_postgres => DeadpoolPostgres;
}

on_pools! {
    r2d2 => R2d2: call_dropped_at_each_point_leaves_nothing, unpolled_call_does_not_block_its_session;
}
