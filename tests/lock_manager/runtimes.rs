//! Runtimes that end before their manager, and futures of it that are dropped half-way. On every pool of an async client.

use std::time::Duration;

use advisory_locking::LockErrorKind::{Closed, Lost, Pool};
use advisory_locking::lock_manager::OwnedLockGuard;
use advisory_locking::{LockError, LockKey};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::cases::{PATIENCE, fresh_key, kind_of, no_wait, poll, without_keep_alive};
use crate::pool_under_test::{PoolKind, PoolUnderTest};
use crate::server_observer::{CLEANUP_DEADLINE, CompetingSession, ServerObserver};
use crate::support::{block, eventually};
use crate::test_manager::{Caller, TestManager};

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Ends with its runtime while it holds and waits. Guards have lost; whoever asks from elsewhere is refused and does not hang.
fn a_runtime_ends(kind: PoolKind) {
    let (pool_under_test, home, elsewhere) = (
        PoolUnderTest::new(kind, Caller::Async),
        runtime(),
        runtime(),
    );
    let (held, busy, mut observer) = (
        fresh_key(),
        fresh_key(),
        ServerObserver::at(&pool_under_test.url),
    );
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
    observer.wait_for_waiters(&busy, 1);
    drop(home);
    observer.assert_soon_free(&held, "the end of the runtime");
    eventually("the end of the wait", || observer.waiters(&busy).is_empty());
    elsewhere.block_on(async {
        // By its session that has gone, or by the manager that has.
        let told = timeout(PATIENCE, waiting).await.unwrap().unwrap();
        assert!(matches!(told, Some(Closed | Pool)), "{told:?}");
        assert!(guard.is_lost());
        assert_eq!(kind_of(guard.release().await), Some(Lost));
        for options in [no_wait(), poll()] {
            let asked = timeout(PATIENCE, manager.acquire(&fresh_key(), options)).await;
            assert_eq!(kind_of(asked.expect("an answer")), Some(Closed));
        }
        timeout(PATIENCE, manager.close())
            .await
            .expect("nothing is left");
    });
}

/// It was made, and the runtime ended before anybody asked.
fn a_runtime_ends_before_the_first_call(kind: PoolKind) {
    let (pool_under_test, home, elsewhere) = (
        PoolUnderTest::new(kind, Caller::Async),
        runtime(),
        runtime(),
    );
    let manager = home.block_on(async { pool_under_test.manager(without_keep_alive()).await });
    drop(home);
    elsewhere.block_on(async {
        let asked = timeout(PATIENCE, manager.acquire(&fresh_key(), poll())).await;
        assert_eq!(kind_of(asked.expect("an answer")), Some(Closed));
    });
}

/// The guard goes after the runtime has.
fn a_guard_outlives_the_runtime(kind: PoolKind) {
    let (pool_under_test, home) = (PoolUnderTest::new(kind, Caller::Async), runtime());
    let (key, mut observer) = (fresh_key(), ServerObserver::at(&pool_under_test.url));
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

/// Whoever is dropped leaves nothing, wherever it was; whoever comes next is served.
fn a_wait_is_dropped(kind: PoolKind) {
    let (pool_under_test, home) = (PoolUnderTest::new(kind, Caller::Async), runtime());
    let mut observer = ServerObserver::at(&pool_under_test.url);
    home.block_on(async {
        let manager = pool_under_test.manager(without_keep_alive()).await;
        let [free, busy] = [fresh_key(), fresh_key()];
        let mut competitor = CompetingSession::holding(&busy);

        let waiting = tokio::spawn(wait_for(manager.clone(), busy.clone()));
        observer.wait_for_waiters(&busy, 1);
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        soon("an abort", || observer.waiters(&busy).is_empty()).await;

        let limit = Duration::from_millis(50);
        timeout(limit, manager.acquire(&busy, block()))
            .await
            .unwrap_err();
        soon("a time-out", || observer.waiters(&busy).is_empty()).await;

        // What it had before the one that it waits for.
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

async fn wait_for(manager: TestManager, key: LockKey) {
    drop(manager.acquire(&key, block()).await);
}

async fn soon(after: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let found = timeout(CLEANUP_DEADLINE, looking).await;
    assert!(found.is_ok(), "left behind after {after}");
}

/// A request is dropped each time it was pending, as often as it may be.
fn a_call_is_dropped_at_each_point(kind: PoolKind) {
    // One thread: what a call leaves to the manager's own tasks is not done before the call has been polled.
    let home = Builder::new_current_thread().enable_all().build().unwrap();
    let pool_under_test = PoolUnderTest::new(kind, Caller::Async);
    let mut observer = ServerObserver::at(&pool_under_test.url);
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
        ] {
            let (mut limit, mut at_once) = (1, 0);
            loop {
                let key = fresh_key();
                let call = call(&manager, method, &key);
                let completed = crate::pending::drop_at(limit, call).await.is_some();
                soon(method, || observer.is_free(&key)).await;
                let again = manager.acquire(&key, poll()).await.unwrap();
                again.release().await.unwrap();
                if !completed {
                    limit += 1;
                } else if limit > 1 {
                    break;
                } else {
                    // Now and then the server has answered before the call looks for it.
                    at_once += 1;
                    assert!(at_once < 100, "{method} was never pending");
                }
            }
        }
        // The same with its end.
        let guard = manager.acquire(&fresh_key(), no_wait()).await.unwrap();
        assert!(crate::pending::drop_at(1, manager.close()).await.is_none());
        let refused = manager.acquire(&fresh_key(), no_wait()).await;
        assert_eq!(kind_of(refused), Some(Closed));
        let key = guard.key().clone();
        drop(crate::pending::drop_at(1, guard.release()).await);
        soon("a release", || observer.is_free(&key)).await;
        drop(manager);
        let pids = pool.pids(2).await;
        assert_eq!(observer.locks_of(&pids), 0);
    });
}

/// Whoever asks, or gives back, and does not look for the answer holds up nobody else on the same session.
fn a_call_that_is_not_polled_holds_up_nobody(kind: PoolKind) {
    let (pool_under_test, home) = (PoolUnderTest::new(kind, Caller::Async), runtime());
    let mut observer = ServerObserver::at(&pool_under_test.url);
    home.block_on(async {
        let pool = pool_under_test.pool(2).await;
        let manager = pool.manager(without_keep_alive().max_sessions(1)).manager;
        let [before, asked, key] = [fresh_key(), fresh_key(), fresh_key()];
        let guard = manager.acquire(&before, no_wait()).await.unwrap();
        let given_back = guard.release();
        let mut acquiring = Box::pin(manager.acquire(&asked, no_wait()));
        drop(crate::pending::until_pending(1, &mut acquiring).await);

        let other = timeout(PATIENCE, manager.acquire(&key, no_wait())).await;
        let other = other.expect("it is not held up").unwrap();
        soon("a release that nobody waits for", || {
            observer.is_free(&before)
        })
        .await;
        drop((given_back, acquiring));
        soon("a call that was not polled", || observer.is_free(&asked)).await;
        other.release().await.unwrap();
    });
}

/// Takes a free key in one of the ways there are, and gives it back.
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
            $pool => $kind: a_runtime_ends, a_runtime_ends_before_the_first_call, a_guard_outlives_the_runtime,
                a_wait_is_dropped, a_call_is_dropped_at_each_point, a_call_that_is_not_polled_holds_up_nobody;
        )*}
    };
}

on_async_pools! {
    bb8 => Bb8;
    deadpool => Deadpool;
    mobc => Mobc;
    sea_orm => SeaOrm;
}

on_pools! {
    r2d2 => R2d2: a_call_is_dropped_at_each_point, a_call_that_is_not_polled_holds_up_nobody;
}
