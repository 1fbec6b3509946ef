//! The end of a locker.

use advisory_locking::LockErrorKind::{Closed, Lost};
use advisory_locking::LockOptions;
use advisory_locking::WaitStrategy::Block;
use advisory_locking::lock_manager::LockManagerOptions;
use tokio::time::timeout;

use super::{PATIENCE, fresh_key, kind_of, once, poll, unwatched};
use crate::eyes::{Eyes, Rival};
use crate::place::Place;

async fn is_closed(locker: &crate::face::Face) {
    for options in [once(), poll()] {
        assert_eq!(
            kind_of(locker.acquire(&fresh_key(), options).await),
            Some(Closed)
        );
        assert_eq!(
            kind_of(locker.try_acquire(&fresh_key(), options).await),
            Some(Closed)
        );
        let keys = vec![fresh_key(), fresh_key()];
        assert_eq!(
            kind_of(locker.acquire_all(keys, options).await),
            Some(Closed)
        );
    }
}

/// What is held is waited for; whoever waits is refused, and so is whoever comes later.
pub(crate) async fn closing_drains(place: Place) {
    let locker = place.locker(unwatched()).await;
    let (key, other, mut eyes) = (fresh_key(), fresh_key(), Eyes::at(&place.url));
    let _rival = Rival::holding(&other);
    let guard = locker.acquire(&key, once()).await.unwrap();
    let spawn = |key: &advisory_locking::LockKey| {
        let (locker, key) = (locker.clone(), key.clone());
        tokio::spawn(async move { kind_of(locker.acquire(&key, poll()).await) })
    };
    let waiters = [spawn(&key), spawn(&other)];
    let closing = tokio::spawn({
        let locker = locker.clone();
        async move { locker.close().await }
    });
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), Some(Closed));
    }
    is_closed(&locker).await;
    assert!(!closing.is_finished() && !guard.is_lost());
    assert_eq!(eyes.holders(&key).len(), 1);
    guard.release().await.unwrap();
    timeout(PATIENCE, closing).await.unwrap().unwrap();
    assert!(eyes.is_free(&key));
    timeout(PATIENCE, locker.close()).await.unwrap();
    is_closed(&locker).await;

    let unused = place.locker(LockManagerOptions::new()).await;
    timeout(PATIENCE, unused.close()).await.unwrap();
    is_closed(&unused).await;
}

/// Whoever waits on the server is refused at once, and the wait there ends or comes to nothing.
pub(crate) async fn closing_does_not_wait_for_others(place: Place) {
    let locker = place.locker(unwatched()).await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let mut rival = Rival::holding(&key);
    let asking = locker.ask(&key, LockOptions::wait_forever().strategy(Block));
    eyes.until_waited_for(&key, 1);
    timeout(PATIENCE, locker.close()).await.unwrap();
    assert_eq!(kind_of(asking.await.unwrap()), Some(Closed));
    rival.gives_back(&key);
    eyes.until_free(&key);
}

/// Guards outlive their locker, but have lost.
pub(crate) async fn the_last_clone_frees_everything(place: Place) {
    let (locker, mut eyes) = (place.locker(unwatched()).await, Eyes::at(&place.url));
    let (key, shared) = (fresh_key(), fresh_key());
    let guard = locker.acquire(&key, once()).await.unwrap();
    let sharers = [
        locker.acquire(&shared, once().shared()).await.unwrap(),
        locker.acquire(&shared, once().shared()).await.unwrap(),
    ];
    let clone = locker.clone();
    drop(locker);
    assert!(!guard.is_lost(), "it was not the last");
    assert_eq!(eyes.holders(&key).len(), 1);
    drop(clone);
    eyes.soon_free(&key, "the last clone");
    eyes.soon_free(&shared, "the last clone");
    assert!(guard.is_lost() && sharers.iter().all(crate::face::Guard::is_lost));
    assert_eq!(kind_of(guard.release().await), Some(Lost));
    for sharer in sharers {
        assert_eq!(kind_of(sharer.release().await), Some(Lost));
    }
}

pub(crate) async fn the_pool_gets_its_connections_back(place: Place) {
    let (pool, mut eyes) = (place.pool(2).await, Eyes::at(&place.url));
    for round in 0..2 {
        let locker = pool.locker(unwatched());
        let (key, other) = (fresh_key(), fresh_key());
        let mut rival = Rival::holding(&other);
        let guard = locker.acquire(&key, once()).await.unwrap();
        let asking = locker.ask(&other, super::block());
        eyes.until_waited_for(&other, 1);
        rival.gives_back(&other);
        asking.await.unwrap().unwrap().release().await.unwrap();
        guard.release().await.unwrap();
        // Once it is closed, and once it is dropped.
        if round == 0 {
            timeout(PATIENCE, locker.close()).await.unwrap();
        }
        drop(locker);
        let pids = pool.pids(2).await;
        assert_eq!(eyes.locks_of(&pids), 0, "{pids:?}");
    }
}
