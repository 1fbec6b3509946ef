//! The lockers on a real server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use advisory_locking::locker::{AsyncLocker, Locker, LockerOptions};
use advisory_locking::{LockErrorKind, LockOptions, WaitStrategy};
use diesel::r2d2::{ConnectionManager, Pool};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};

fn url() -> String {
    std::env::var("DATABASE_URL").expect("run it in scripts/postgres")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smoke_async() {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
    let pool = bb8::Pool::builder()
        .max_size(3)
        .build(manager)
        .await
        .unwrap();
    let locker = AsyncLocker::new(pool.clone()).unwrap();
    let other = AsyncLocker::with_options(pool, LockerOptions::new()).unwrap();
    let guard = locker.acquire("a", LockOptions::no_wait()).await.unwrap();
    let error = other
        .acquire("a", LockOptions::no_wait())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::HeldElsewhere);
    assert!(
        locker
            .try_acquire("a", LockOptions::no_wait())
            .await
            .unwrap()
            .is_none()
    );
    guard.release().await.unwrap();
    let inside = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for i in 0..200 {
        let locker = if i % 2 == 0 {
            locker.clone()
        } else {
            other.clone()
        };
        let inside = Arc::clone(&inside);
        tasks.push(tokio::spawn(async move {
            let options = LockOptions::wait_forever();
            let options = if i % 3 == 0 {
                options.strategy(WaitStrategy::Block)
            } else {
                options
            };
            let guard = locker.acquire_fenced("b", options).await.unwrap();
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
            let token = guard.fencing_token().unwrap();
            guard.release().await.unwrap();
            token
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let all = locker
        .acquire_all(["x", "y", "x", "z"], LockOptions::no_wait())
        .await
        .unwrap();
    assert_eq!(all.guards().len(), 3);
    assert!(
        other
            .try_acquire_all(
                ["w", "y"],
                LockOptions::wait_up_to(Duration::from_millis(20))
            )
            .await
            .unwrap()
            .is_none()
    );
    all.release().await.unwrap();
    other
        .acquire_all(["w", "y"], LockOptions::no_wait())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    locker.close().await;
    other.close().await;
    assert_eq!(
        locker
            .acquire("a", LockOptions::no_wait())
            .await
            .unwrap_err()
            .kind(),
        LockErrorKind::Closed
    );
}

#[test]
fn smoke_blocking() {
    let pool = Pool::builder()
        .max_size(3)
        .build(ConnectionManager::<diesel::PgConnection>::new(url()))
        .unwrap();
    let locker = Locker::new(pool.clone()).unwrap();
    let inside = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let guard = locker.acquire("c", LockOptions::wait_forever()).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    guard.release().unwrap();
                }
            });
        }
    });
    locker.close();
}

/// With its runtime, a locker ends: calls from elsewhere are answered.
#[test]
fn a_locker_ends_with_its_runtime() {
    let runtime = |threads| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .unwrap()
    };
    let (home, elsewhere) = (runtime(1), runtime(1));
    let locker = home.block_on(async {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
        let pool = bb8::Pool::builder()
            .max_size(2)
            .build(manager)
            .await
            .unwrap();
        AsyncLocker::new(pool).unwrap()
    });
    let held = home
        .block_on(locker.acquire("runtime", LockOptions::no_wait()))
        .unwrap();
    drop(home);
    let options = LockOptions::wait_forever();
    let late = elsewhere.block_on(locker.acquire("runtime", options));
    assert_eq!(late.unwrap_err().kind(), LockErrorKind::Closed);
    assert!(held.is_lost());
    let released = elsewhere.block_on(held.release());
    assert_eq!(released.unwrap_err().kind(), LockErrorKind::Lost);
}
