//! A backend without locks: every request is granted, or the locks exclude within the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ::sea_orm::{ConnectOptions, Database};
use ::sqlx::sqlite::SqlitePoolOptions;
use advisory_locking::LockErrorKind::{HeldElsewhere, NoMutualExclusion};
use advisory_locking::lock_manager::{LockManager, LockManagerOptions, NoLockBackend};
use advisory_locking::{LockError, OnMissingLock};
use diesel::r2d2::ConnectionManager;
use diesel::sqlite::SqliteConnection;
use diesel_async::pooled_connection::{self as pools, AsyncDieselConnectionManager};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

use crate::cases::{fresh_key, kind_of, no_wait, poll};
use crate::instantiate::in_runtime;
use crate::pool_under_test::PoolKind;
use crate::test_manager::{Caller, TestManager};

type Sqlite = SyncConnectionWrapper<SqliteConnection>;

async fn test_manager(kind: PoolKind, caller: Caller, options: LockManagerOptions) -> TestManager {
    let manager = lock_manager(kind, options).await.unwrap();
    TestManager { manager, caller }
}

async fn lock_manager(
    kind: PoolKind,
    options: LockManagerOptions,
) -> Result<LockManager, LockError> {
    let manager = || AsyncDieselConnectionManager::<Sqlite>::new(":memory:");
    match kind {
        PoolKind::Bb8 => {
            let pool = pools::bb8::Pool::builder()
                .max_size(1)
                .build(manager())
                .await;
            LockManager::over_async_pool_with(pool.unwrap(), options)
        }
        PoolKind::Deadpool => {
            let pool = pools::deadpool::Pool::builder(manager())
                .max_size(1)
                .build();
            LockManager::over_async_pool_with(pool.unwrap(), options)
        }
        PoolKind::Mobc => {
            let pool = pools::mobc::Pool::builder().max_open(1).build(manager());
            LockManager::over_async_pool_with(pool, options)
        }
        PoolKind::SeaOrm => {
            let mut connect = ConnectOptions::new("sqlite::memory:");
            connect.max_connections(1).sqlx_logging(false);
            let pool = Database::connect(connect).await.unwrap();
            LockManager::over_async_pool_with(pool, options)
        }
        PoolKind::Sqlx => {
            let pool = SqlitePoolOptions::new().max_connections(1);
            let pool = pool.connect("sqlite::memory:").await.unwrap();
            LockManager::over_async_pool_with(pool, options)
        }
        PoolKind::TokioPostgres | PoolKind::DeadpoolPostgres => {
            unreachable!("{kind:?} has no SQLite")
        }
        PoolKind::R2d2 => {
            let manager = ConnectionManager::<SqliteConnection>::new(":memory:");
            let pool = diesel::r2d2::Pool::builder().max_size(1).build(manager);
            LockManager::over_blocking_pool_with(pool.unwrap(), options)
        }
    }
}

async fn every_request_is_granted(kind: PoolKind, caller: Caller) {
    let manager = test_manager(kind, caller, LockManagerOptions::new()).await;
    let key = fresh_key();
    let mut guards = Vec::new();
    for policy in [OnMissingLock::Warn, OnMissingLock::Ignore] {
        let guard = manager
            .acquire_fenced(&key, no_wait().on_missing_lock(policy))
            .await
            .unwrap();
        let shown = format!("OwnedLockGuard {{ key: {key:?}, mode: Exclusive, session_pid: None, ");
        assert!(format!("{:?}", *guard).starts_with(&shown), "{:?}", *guard);
        assert_eq!(
            (guard.generation(), guard.is_lost(), guard.session_pid()),
            (0, false, None)
        );
        guards.push(guard);
    }
    assert!(
        guards[0].fencing_token() < guards[1].fencing_token(),
        "numbers of the manager's"
    );
    let refused = manager
        .acquire(&key, no_wait().on_missing_lock(OnMissingLock::Error))
        .await;
    assert_eq!(kind_of(refused), Some(NoMutualExclusion));
    let all = manager
        .acquire_all(vec![key.clone(), fresh_key()], no_wait())
        .await
        .unwrap();
    all.release().await.unwrap();
    for guard in guards {
        guard.release().await.unwrap();
    }
    manager.close().await;
}

async fn in_process_locks_exclude_within_the_manager(kind: PoolKind, caller: Caller) {
    const TASKS: u32 = 8;
    let options = LockManagerOptions::new().on_no_lock_backend(NoLockBackend::InProcess);
    let manager = test_manager(kind, caller, options).await;
    let (key, inside) = (fresh_key(), Arc::new(AtomicU32::new(0)));
    let first = manager.acquire_fenced(&key, no_wait()).await.unwrap();
    assert_eq!(
        kind_of(manager.acquire(&key, no_wait()).await),
        Some(HeldElsewhere)
    );
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (manager, key, inside) = (manager.clone(), key.clone(), Arc::clone(&inside));
            tokio::spawn(async move {
                let mut last = None;
                for _ in 0..10 {
                    let guard = manager.acquire_fenced(&key, poll()).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    tokio::task::yield_now().await;
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two at once");
                    assert!(guard.fencing_token() > last);
                    last = guard.fencing_token();
                    guard.release().await.unwrap();
                }
            })
        })
        .collect();
    first.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let sharers = [
        manager.acquire(&key, no_wait().shared()).await.unwrap(),
        manager.acquire(&key, no_wait().shared()).await.unwrap(),
    ];
    assert!(
        manager
            .try_acquire(&key, no_wait())
            .await
            .unwrap()
            .is_none()
    );
    for sharer in sharers {
        sharer.release().await.unwrap();
    }
    manager
        .acquire(&key, no_wait())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    manager.close().await;
}

macro_rules! on_every_pool {
    ($($pool:ident => $kind:ident, $caller:ident;)*) => {$(
        mod $pool {
            use crate::pool_under_test::PoolKind::$kind;
            use crate::test_manager::Caller::$caller;

            #[test]
            fn every_request_is_granted() {
                super::in_runtime(super::every_request_is_granted($kind, $caller));
            }

            #[test]
            fn in_process_locks_exclude_within_the_manager() {
                super::in_runtime(super::in_process_locks_exclude_within_the_manager($kind, $caller));
            }
        }
    )*};
}

on_every_pool! {
    bb8 => Bb8, Async;
    deadpool => Deadpool, Async;
    mobc => Mobc, Async;
    sea_orm => SeaOrm, Async;
    sqlx => Sqlx, Async;
    r2d2 => R2d2, Blocking;
    bb8_from_threads => Bb8, Blocking;
    r2d2_from_tasks => R2d2, Async;
}
