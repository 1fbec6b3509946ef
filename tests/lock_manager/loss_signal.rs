//! The loss signal of a guard: `lost`, and bodies that end with their lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use advisory_locking::LockErrorKind::Lost;
use advisory_locking::lock_manager::{LockManager, LockManagerOptions, OwnedLockGuard};
use advisory_locking::{LockError, LockKey};
use testkit::observer::Observe;
use testkit::server::connect;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cases::{SHORT_KEEP_ALIVE, TIMEOUT, fresh_key, no_wait};
use crate::instantiate::in_runtime;
use crate::pool_under_test::{PoolKind, PoolUnderTest};
use crate::test_manager::Caller;

async fn manager(kind: PoolKind) -> LockManager {
    let options = LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE);
    let pool_under_test = PoolUnderTest::new(kind, Caller::Async);
    pool_under_test.manager(options).await.manager
}

/// Records its drop.
struct DropFlag(Arc<AtomicBool>);

impl Drop for DropFlag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn body_is_dropped_when_its_lock_is_lost(kind: PoolKind) {
    let (manager, key, mut observer) = (manager(kind).await, fresh_key(), connect());
    let (dropped, (begun, begins)) = (Arc::default(), oneshot::channel());
    let call = tokio::spawn({
        let (manager, key, dropped) =
            (manager.clone(), key.clone(), DropFlag(Arc::clone(&dropped)));
        async move {
            let body = async move |guard: &OwnedLockGuard| {
                let _dropped = dropped;
                begun.send(guard.generation()).unwrap();
                std::future::pending::<Result<(), LockError>>().await
            };
            manager.with_lock_while_held(key, no_wait(), body).await
        }
    });
    begins.await.unwrap();
    observer.terminate_holder(&key);
    let error = timeout(TIMEOUT, call).await.unwrap().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.key()), (Lost, Some(&key)));
    assert!(dropped.load(Ordering::SeqCst));
    // A body that keeps its lock completes.
    let body = async |_: &OwnedLockGuard| Ok::<_, LockError>(7);
    assert_eq!(
        manager
            .with_lock_while_held(key.clone(), no_wait(), body)
            .await
            .unwrap(),
        7
    );
    assert!(observer.is_free(&key));
}

/// A contended key gives no body, a lost lock ends it, and a body that keeps its lock completes.
async fn try_body_runs_while_its_lock_is_held(kind: PoolKind) {
    let (manager, key, observer) = (manager(kind).await, fresh_key(), connect());
    let held = manager.acquire(&key, no_wait()).await.unwrap();
    let body = async |_: &OwnedLockGuard| Ok::<_, LockError>(7);
    let call = manager.try_with_lock_while_held(&key, no_wait(), body);
    assert_eq!(call.await.unwrap(), None);
    held.release().await.unwrap();
    let call = manager.try_with_lock_while_held(&key, no_wait(), body);
    assert_eq!(call.await.unwrap(), Some(7));
    let (observer, held) = (Mutex::new(observer), key.clone());
    let body = async |_: &OwnedLockGuard| {
        observer.lock().unwrap().terminate_holder(&held);
        std::future::pending::<Result<(), LockError>>().await
    };
    let call = manager.try_with_lock_while_held(&key, no_wait(), body);
    let error = timeout(TIMEOUT, call).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.key()), (Lost, Some(&key)));
}

/// Also if awaited twice, and by several tasks.
async fn lost_completes_for_every_listener(kind: PoolKind) {
    let (manager, mut observer) = (manager(kind).await, connect());
    let keys: [LockKey; 2] = [fresh_key(), fresh_key()];
    let one = manager.acquire(keys[0].clone(), no_wait()).await.unwrap();
    let other = manager.acquire(keys[1].clone(), no_wait()).await.unwrap();
    assert!(futures_util::poll!(std::pin::pin!(one.lost())).is_pending());
    let listening = tokio::spawn(async move {
        other.lost().await;
        other
    });
    observer.terminate_holder(&keys[0]);
    timeout(TIMEOUT, one.lost()).await.unwrap();
    one.lost().await;
    let other = timeout(TIMEOUT, listening).await.unwrap().unwrap();
    assert!(one.is_lost() && other.is_lost());
}

macro_rules! on_every_pool {
    ($($pool:ident => $kind:expr;)*) => {$(
        mod $pool {
            #[test]
            fn body_is_dropped_when_its_lock_is_lost() {
                super::in_runtime(super::body_is_dropped_when_its_lock_is_lost($kind));
            }

            #[test]
            fn try_body_runs_while_its_lock_is_held() {
                super::in_runtime(super::try_body_runs_while_its_lock_is_held($kind));
            }

            #[test]
            fn lost_completes_for_every_listener() {
                super::in_runtime(super::lost_completes_for_every_listener($kind));
            }
        }
    )*};
}

on_every_pool! {
    r2d2 => crate::pool_under_test::PoolKind::R2d2;
    bb8 => crate::pool_under_test::PoolKind::Bb8;
    deadpool => crate::pool_under_test::PoolKind::Deadpool;
    mobc => crate::pool_under_test::PoolKind::Mobc;
    sea_orm => crate::pool_under_test::PoolKind::SeaOrm;
    sqlx => crate::pool_under_test::PoolKind::Sqlx;
    tokio_postgres => crate::pool_under_test::PoolKind::TokioPostgres;
    deadpool_postgres => crate::pool_under_test::PoolKind::DeadpoolPostgres;
}
