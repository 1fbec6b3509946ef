//! Bodies under a lock, and guards that travel.

use std::panic::AssertUnwindSafe;

use advisory_locking::LockError;
use advisory_locking::LockErrorKind::HeldElsewhere;
use advisory_locking::lock_manager::LockManagerOptions;
use futures_util::FutureExt as _;

use super::{fresh_key, once};
use crate::eyes::{Eyes, Rival};
use crate::face::Guard;
use crate::place::Place;

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

pub(crate) async fn a_body_runs_under_the_lock(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let look = || {
        let (key, mut eyes) = (key.clone(), Eyes::at(&place.url));
        move || Ok::<_, LockError>(eyes.holders(&key).len())
    };
    assert_eq!(locker.with_lock(&key, once(), look()).await.unwrap(), 1);
    assert!(eyes.is_free(&key));
    assert_eq!(
        locker.try_with_lock(&key, once(), look()).await.unwrap(),
        Some(1)
    );
    assert!(eyes.is_free(&key));

    let _rival = Rival::holding(&key);
    let never = || -> Result<(), LockError> { panic!("the body ran") };
    assert!(
        locker
            .try_with_lock(&key, once(), never)
            .await
            .unwrap()
            .is_none()
    );
    let error = locker.with_lock(&key, once(), never).await.unwrap_err();
    assert_eq!(error.kind(), HeldElsewhere);
}

pub(crate) async fn the_bodys_error_wins(place: Place) {
    let locker = place
        .locker(LockManagerOptions::new().keep_alive(super::NEVER))
        .await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let fails = || Err::<(), _>(Failure::Body);
    assert_eq!(
        locker.with_lock(&key, once(), fails).await,
        Err(Failure::Body)
    );
    assert_eq!(
        locker.try_with_lock(&key, once(), fails).await,
        Err(Failure::Body)
    );
    assert!(eyes.is_free(&key));
    // Also over the error of the release: the body has ended the session.
    let ends_the_session = || {
        let (key, mut eyes) = (key.clone(), Eyes::at(&place.url));
        move || {
            let holder = eyes.holder(&key);
            eyes.terminate(holder);
        }
    };
    let mut body = ends_the_session();
    let failed = locker.with_lock(&key, once(), move || {
        body();
        fails()
    });
    assert_eq!(failed.await, Err(Failure::Body));
    // And its success does not hide that error.
    let mut body = ends_the_session();
    let succeeded = locker.with_lock(&key, once(), move || {
        body();
        Ok(())
    });
    assert_eq!(succeeded.await, Err(Failure::Lock));
}

pub(crate) async fn a_panic_in_a_body_gives_the_lock_back(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let body = || -> Result<(), LockError> { std::panic::resume_unwind(Box::new("the body's")) };
    let call = AssertUnwindSafe(locker.with_lock(&key, once(), body));
    let panic = call.catch_unwind().await.unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"the body's"));
    eyes.soon_free(&key, "a panic");
    locker
        .acquire(&key, once())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

pub(crate) async fn a_guard_may_be_dropped_anywhere(place: Place) {
    type Way = (&'static str, fn(Guard));
    fn travels<T: Send + 'static>(guard: T) -> T {
        guard
    }
    let locker = place.locker(LockManagerOptions::new()).await;
    let mut eyes = Eyes::at(&place.url);
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
        let guard = locker.acquire(&key, once()).await.unwrap();
        dropping(travels(guard));
        eyes.soon_free(&key, where_);
    }
    // It may also be released elsewhere.
    let key = fresh_key();
    let guard = locker.acquire(&key, once()).await.unwrap();
    tokio::spawn(async move { guard.release().await.unwrap() })
        .await
        .unwrap();
    assert!(eyes.is_free(&key));
}
