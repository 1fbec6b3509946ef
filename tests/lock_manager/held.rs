//! What only an async guard can do: tell of its loss while something else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use advisory_locking::LockErrorKind::Lost;
use advisory_locking::lock_manager::{LockManager, LockManagerOptions, OwnedLockGuard};
use advisory_locking::{LockError, LockKey};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cases::{PATIENCE, fresh_key, once};
use crate::eyes::Eyes;
use crate::face::Face;
use crate::mount::in_runtime;
use crate::place::{Kind, Place};

async fn locker(kind: Kind) -> LockManager {
    let often = LockManagerOptions::new().keep_alive(std::time::Duration::from_secs(2));
    match Place::here(kind).locker(often).await {
        Face::Tasks(locker) => locker,
        Face::Threads(_) => panic!("{kind:?} is not async"),
    }
}

/// Says that it was dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn a_body_is_dropped_when_its_lock_is_lost(kind: Kind) {
    let (locker, key, mut eyes) = (
        locker(kind).await,
        fresh_key(),
        Eyes::at(&crate::support::url()),
    );
    let (dropped, (begun, begins)) = (Arc::default(), oneshot::channel());
    let call = tokio::spawn({
        let (locker, key, dropped) = (locker.clone(), key.clone(), Dropped(Arc::clone(&dropped)));
        async move {
            let body = async move |guard: &OwnedLockGuard| {
                let _dropped = dropped;
                begun.send(guard.generation()).unwrap();
                std::future::pending::<Result<(), LockError>>().await
            };
            locker.with_lock_while_held(key, once(), body).await
        }
    });
    begins.await.unwrap();
    eyes.terminate_holder(&key);
    let error = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.key()), (Lost, Some(&key)));
    assert!(dropped.load(Ordering::SeqCst));
    // With its lock, a body comes to its end.
    let body = async |_: &OwnedLockGuard| Ok::<_, LockError>(7);
    assert_eq!(
        locker
            .with_lock_while_held(key.clone(), once(), body)
            .await
            .unwrap(),
        7
    );
    assert!(eyes.is_free(&key));
}

/// Each time that it is waited for, and by several.
async fn a_loss_is_heard(kind: Kind) {
    let (locker, mut eyes) = (locker(kind).await, Eyes::at(&crate::support::url()));
    let keys: [LockKey; 2] = [fresh_key(), fresh_key()];
    let one = locker.acquire(keys[0].clone(), once()).await.unwrap();
    let other = locker.acquire(keys[1].clone(), once()).await.unwrap();
    assert!(futures_util::poll!(std::pin::pin!(one.lost())).is_pending());
    let hearing = tokio::spawn(async move {
        other.lost().await;
        other
    });
    eyes.terminate_holder(&keys[0]);
    timeout(PATIENCE, one.lost()).await.unwrap();
    one.lost().await;
    let other = timeout(PATIENCE, hearing).await.unwrap().unwrap();
    assert!(one.is_lost() && other.is_lost());
}

macro_rules! on_every_pool {
    ($($pool:ident => $kind:expr;)*) => {$(
        mod $pool {
            #[test]
            fn a_body_is_dropped_when_its_lock_is_lost() {
                super::in_runtime(super::a_body_is_dropped_when_its_lock_is_lost($kind));
            }

            #[test]
            fn a_loss_is_heard() {
                super::in_runtime(super::a_loss_is_heard($kind));
            }
        }
    )*};
}

on_every_pool! {
    bb8 => crate::place::Kind::Bb8;
    deadpool => crate::place::Kind::Deadpool;
    mobc => crate::place::Kind::Mobc;
    sea_orm => crate::place::Kind::SeaOrm;
}
