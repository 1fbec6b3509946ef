//! Several keys at once.

use std::mem::ManuallyDrop;
use std::time::Duration;

use advisory_locking::LockErrorKind::{HeldElsewhere, TimedOut};
use advisory_locking::lock_manager::LockManagerOptions;
use advisory_locking::{LockKey, WaitStrategy};

use super::{PATIENCE, fresh_key, once, unwatched, within};
use crate::eyes::{Eyes, Rival};
use crate::place::Place;
use crate::proxy::{Proxy, by_port, in_the_clear};

/// So many keys, in the order in which they are taken.
fn keys(count: usize) -> Vec<LockKey> {
    let mut keys: Vec<_> = (0..count).map(|_| fresh_key()).collect();
    keys.sort_by_key(LockKey::raw);
    keys
}

pub(crate) async fn each_key_once_and_in_order(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let (keys, mut eyes) = (keys(5), Eyes::at(&place.url));
    let named = [4, 1, 0, 3, 1, 2, 4].map(|at| keys[at].clone());
    let guards = locker.acquire_all(named.to_vec(), once()).await.unwrap();
    assert_eq!(guards.keys(), keys);
    assert!(!guards.is_lost());
    for key in &keys {
        assert_eq!(eyes.holders(key).len(), 1);
    }
    let again = locker.try_acquire_all(vec![keys[2].clone()], once()).await;
    assert!(again.unwrap().is_none());
    guards.release().await.unwrap();
    assert!(keys.iter().all(|key| eyes.is_free(key)));

    let none = locker.acquire_all(Vec::new(), once()).await.unwrap();
    assert_eq!(none.keys(), []);
    none.release().await.unwrap();
}

pub(crate) async fn none_if_one_is_refused(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let (keys, mut eyes) = (keys(5), Eyes::at(&place.url));
    for busy in &keys {
        let mut rival = Rival::holding(busy);
        let error = locker.acquire_all(keys.clone(), once()).await.unwrap_err();
        assert_eq!((error.kind(), error.key()), (HeldElsewhere, Some(busy)));
        for key in keys.iter().filter(|key| *key != busy) {
            assert!(eyes.is_free(key), "not when the call has returned");
        }
        let shared = once().shared();
        assert!(
            locker
                .try_acquire_all(keys.clone(), shared)
                .await
                .unwrap()
                .is_none()
        );
        rival.gives_back(busy);
    }
}

pub(crate) async fn none_if_the_time_is_out(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let (keys, mut eyes) = (keys(5), Eyes::at(&place.url));
    let _rival = Rival::holding(&keys[3]);
    for strategy in [WaitStrategy::Poll, WaitStrategy::Block] {
        let options = within(Duration::from_millis(60), strategy);
        let error = locker.acquire_all(keys.clone(), options).await.unwrap_err();
        assert_eq!((error.kind(), error.key()), (TimedOut, Some(&keys[3])));
        for key in [0, 1, 2, 4].map(|at| &keys[at]) {
            assert!(eyes.is_free(key), "not when the call has returned");
        }
    }
}

pub(crate) async fn opposite_orders_do_not_deadlock(place: Place) {
    const ROUNDS: u64 = 25;
    let keys = keys(4);
    let lockers = [
        place.locker(LockManagerOptions::new()).await,
        place
            .locker(LockManagerOptions::new().max_sessions(2))
            .await,
    ];
    let tasks: Vec<_> = (0..6)
        .map(|task: usize| {
            let (locker, keys) = (lockers[task % 2].clone(), keys.clone());
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(task as u64);
                for _ in 0..ROUNDS {
                    let mut keys = keys.clone();
                    random.shuffle(&mut keys);
                    keys.truncate(2 + random.usize(..3));
                    let options = within(
                        PATIENCE,
                        random
                            .choice([WaitStrategy::Poll, WaitStrategy::Block])
                            .unwrap(),
                    );
                    let guards = locker.acquire_all(keys, options).await;
                    guards
                        .expect("nobody waits in a circle")
                        .release()
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

pub(crate) async fn a_thousand_keys_in_one_round_trip(place: Place) {
    let (proxy, port) = Proxy::to(&place.url);
    // It ends with its connection, for which a test that fails cannot wait.
    let proxy = ManuallyDrop::new(proxy);
    let through = Place {
        url: in_the_clear(&by_port(&place.url, port)),
        ..place.clone()
    };
    let pool = through.pool(1).await;
    let locker = pool.locker(unwatched());
    // The connection is there, and its statements are prepared.
    for _ in 0..2 {
        locker
            .acquire_all(keys(2), once())
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    }
    let (keys, before) = (keys(1000), proxy.round_trips());
    let guards = locker.acquire_all(keys.clone(), once()).await.unwrap();
    let taken = proxy.round_trips() - before;
    assert_eq!(taken, 1);
    let mut eyes = Eyes::at(&place.url);
    let holder = eyes.holder(&keys[0]);
    assert_eq!(eyes.locks_of(&[holder]), 1000);
    let before = proxy.round_trips();
    guards.release().await.unwrap();
    let given = proxy.round_trips() - before;
    assert_eq!(given, 1);
    assert_eq!(eyes.locks_of(&[holder]), 0);
    locker.close().await;
    // Nothing of a locker that is closed keeps its pool, whatever it was to do later.
    drop((locker, pool));
    drop(ManuallyDrop::into_inner(proxy));
}
