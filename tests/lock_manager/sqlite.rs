//! Where there are no locks: everybody is let in as the options say, or the locks are the process's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ::sea_orm::{ConnectOptions, Database};
use advisory_locking::LockErrorKind::{HeldElsewhere, NoMutualExclusion};
use advisory_locking::lock_manager::{
    BlockingLockManager, LockManager, LockManagerOptions, NoLockBackend,
};
use advisory_locking::{LockError, OnMissingLock};
use diesel::r2d2::ConnectionManager;
use diesel::sqlite::SqliteConnection;
use diesel_async::pooled_connection::{self as pools, AsyncDieselConnectionManager};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

use crate::cases::{fresh_key, kind_of, once, poll};
use crate::face::Face;
use crate::mount::in_runtime;
use crate::place::Kind;

type Sqlite = SyncConnectionWrapper<SqliteConnection>;

async fn locker(kind: Kind, options: LockManagerOptions) -> Result<Face, LockError> {
    let manager = || AsyncDieselConnectionManager::<Sqlite>::new(":memory:");
    match kind {
        Kind::Bb8 => {
            let pool = pools::bb8::Pool::builder()
                .max_size(1)
                .build(manager())
                .await;
            LockManager::with_options(pool.unwrap(), options).map(Face::Tasks)
        }
        Kind::Deadpool => {
            let pool = pools::deadpool::Pool::builder(manager())
                .max_size(1)
                .build();
            LockManager::with_options(pool.unwrap(), options).map(Face::Tasks)
        }
        Kind::Mobc => {
            let pool = pools::mobc::Pool::builder().max_open(1).build(manager());
            LockManager::with_options(pool, options).map(Face::Tasks)
        }
        Kind::SeaOrm => {
            let mut connect = ConnectOptions::new("sqlite::memory:");
            connect.max_connections(1).sqlx_logging(false);
            let pool = Database::connect(connect).await.unwrap();
            LockManager::with_options(pool, options).map(Face::Tasks)
        }
        Kind::R2d2 => {
            let manager = ConnectionManager::<SqliteConnection>::new(":memory:");
            let pool = diesel::r2d2::Pool::builder().max_size(1).build(manager);
            BlockingLockManager::with_options(pool.unwrap(), options).map(Face::Threads)
        }
    }
}

async fn everybody_is_let_in(kind: Kind) {
    let locker = locker(kind, LockManagerOptions::new()).await.unwrap();
    let key = fresh_key();
    let mut guards = Vec::new();
    for policy in [OnMissingLock::Warn, OnMissingLock::Ignore] {
        let guard = locker
            .acquire_fenced(&key, once().on_missing_lock(policy))
            .await
            .unwrap();
        assert_eq!((guard.generation(), guard.is_lost()), (0, false));
        guards.push(guard);
    }
    assert!(
        guards[0].token() < guards[1].token(),
        "numbers of the locker's"
    );
    let refused = locker
        .acquire(&key, once().on_missing_lock(OnMissingLock::Error))
        .await;
    assert_eq!(kind_of(refused), Some(NoMutualExclusion));
    let all = locker
        .acquire_all(vec![key.clone(), fresh_key()], once())
        .await
        .unwrap();
    all.release().await.unwrap();
    for guard in guards {
        guard.release().await.unwrap();
    }
    locker.close().await;
}

async fn the_process_alone_is_excluded(kind: Kind) {
    const TASKS: u32 = 8;
    let options = LockManagerOptions::new().on_no_lock_backend(NoLockBackend::InProcess);
    let locker = locker(kind, options).await.unwrap();
    let (key, inside) = (fresh_key(), Arc::new(AtomicU32::new(0)));
    let first = locker.acquire_fenced(&key, once()).await.unwrap();
    assert_eq!(
        kind_of(locker.acquire(&key, once()).await),
        Some(HeldElsewhere)
    );
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (locker, key, inside) = (locker.clone(), key.clone(), Arc::clone(&inside));
            tokio::spawn(async move {
                let mut last = None;
                for _ in 0..10 {
                    let guard = locker.acquire_fenced(&key, poll()).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    tokio::task::yield_now().await;
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two at once");
                    assert!(guard.token() > last);
                    last = guard.token();
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
        locker.acquire(&key, once().shared()).await.unwrap(),
        locker.acquire(&key, once().shared()).await.unwrap(),
    ];
    assert!(locker.try_acquire(&key, once()).await.unwrap().is_none());
    for sharer in sharers {
        sharer.release().await.unwrap();
    }
    locker
        .acquire(&key, once())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    locker.close().await;
}

macro_rules! on_every_pool {
    ($($pool:ident => $kind:expr;)*) => {$(
        mod $pool {
            #[test]
            fn everybody_is_let_in() {
                super::in_runtime(super::everybody_is_let_in($kind));
            }

            #[test]
            fn the_process_alone_is_excluded() {
                super::in_runtime(super::the_process_alone_is_excluded($kind));
            }
        }
    )*};
}

on_every_pool! {
    bb8 => crate::place::Kind::Bb8;
    deadpool => crate::place::Kind::Deadpool;
    mobc => crate::place::Kind::Mobc;
    sea_orm => crate::place::Kind::SeaOrm;
    r2d2 => crate::place::Kind::R2d2;
}
