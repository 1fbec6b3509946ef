//! Bodies under a lock, and guards that move between threads.

use std::panic::AssertUnwindSafe;

use advisory_locking::LockError;
use advisory_locking::LockErrorKind::HeldElsewhere;
use advisory_locking::lock_manager::LockManagerOptions;
use futures_util::FutureExt as _;
use testkit::observer::Observe;
use testkit::server::connect_to;

use super::{fresh_key, no_wait};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::PoolUnderTest;
use crate::test_manager::TestGuard;

#[derive(Debug, PartialEq)]
enum Failure {
    Lock,
    Body,
}

impl From<LockError> for Failure {
    fn from(_: LockError) -> Self {
        Self::Lock
    }
}

pub(crate) async fn body_runs_under_the_lock(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(LockManagerOptions::new()).await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let look = || {
        let (key, mut observer) = (key.clone(), connect_to(&pool_under_test.url));
        move || Ok::<_, LockError>(observer.holders(&key).len())
    };
    assert_eq!(manager.with_lock(&key, no_wait(), look()).await.unwrap(), 1);
    assert!(observer.is_free(&key));
    assert_eq!(
        manager
            .try_with_lock(&key, no_wait(), look())
            .await
            .unwrap(),
        Some(1)
    );
    assert!(observer.is_free(&key));

    let _competitor = CompetingSession::holding(&key);
    let never = || -> Result<(), LockError> { panic!("the body ran") };
    assert!(
        manager
            .try_with_lock(&key, no_wait(), never)
            .await
            .unwrap()
            .is_none()
    );
    let error = manager.with_lock(&key, no_wait(), never).await.unwrap_err();
    assert_eq!(error.kind(), HeldElsewhere);
}

pub(crate) async fn body_error_has_precedence(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test
        .manager(LockManagerOptions::new().keep_alive(super::NO_KEEP_ALIVE))
        .await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let fails = || Err::<(), _>(Failure::Body);
    assert_eq!(
        manager.with_lock(&key, no_wait(), fails).await,
        Err(Failure::Body)
    );
    assert_eq!(
        manager.try_with_lock(&key, no_wait(), fails).await,
        Err(Failure::Body)
    );
    assert!(observer.is_free(&key));
    // Also over the error of the release, after the body has terminated the session.
    let ends_the_session = || {
        let (key, mut observer) = (key.clone(), connect_to(&pool_under_test.url));
        move || {
            let holder = observer.holder(&key);
            observer.terminate(holder);
        }
    };
    let mut body = ends_the_session();
    let failed = manager.with_lock(&key, no_wait(), move || {
        body();
        fails()
    });
    assert_eq!(failed.await, Err(Failure::Body));
    // A successful body does not hide that error.
    let mut body = ends_the_session();
    let succeeded = manager.with_lock(&key, no_wait(), move || {
        body();
        Ok(())
    });
    assert_eq!(succeeded.await, Err(Failure::Lock));
}

pub(crate) async fn panic_in_a_body_releases_the_lock(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(LockManagerOptions::new()).await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let body = || -> Result<(), LockError> { std::panic::resume_unwind(Box::new("the body's")) };
    let call = AssertUnwindSafe(manager.with_lock(&key, no_wait(), body));
    let panic = call.catch_unwind().await.unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"the body's"));
    observer.assert_soon_free(&key, "a panic");
    manager
        .acquire(&key, no_wait())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

pub(crate) async fn guard_dropped_anywhere_releases_the_lock(pool_under_test: PoolUnderTest) {
    type Way = (&'static str, fn(TestGuard));
    fn travels<T: Send + 'static>(guard: T) -> T {
        guard
    }
    let manager = pool_under_test.manager(LockManagerOptions::new()).await;
    let mut observer = connect_to(&pool_under_test.url);
    let ways: [Way; 3] = [
        ("a thread without a runtime", |guard| {
            std::thread::spawn(move || drop(guard)).join().unwrap();
        }),
        ("another runtime", |guard| {
            let other = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.unwrap().block_on(async move { drop(guard) });
            };
            std::thread::spawn(other).join().unwrap();
        }),
        ("here", drop),
    ];
    for (where_, dropping) in ways {
        let key = fresh_key();
        let guard = manager.acquire(&key, no_wait()).await.unwrap();
        dropping(travels(guard));
        observer.assert_soon_free(&key, where_);
    }
    // A guard may be released in another task.
    let key = fresh_key();
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    tokio::spawn(async move { guard.release().await.unwrap() })
        .await
        .unwrap();
    assert!(observer.is_free(&key));
}
