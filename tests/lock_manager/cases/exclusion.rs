//! Who keeps out whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use advisory_locking::LockErrorKind::{HeldElsewhere, TimedOut};
use advisory_locking::LockMode::{Exclusive, Shared};
use advisory_locking::lock_manager::LockManagerOptions;
use advisory_locking::{LockKey, LockMode, LockOptions};

use super::{block, fresh_key, kind_of, once, poll};
use crate::eyes::{Eyes, Rival};
use crate::face::Face;
use crate::place::Place;
use crate::support::fresh_number;

/// Held in one mode and asked for in another.
const PAIRS: [(LockMode, LockMode); 4] = [
    (Exclusive, Exclusive),
    (Exclusive, Shared),
    (Shared, Exclusive),
    (Shared, Shared),
];

fn compatible(one: LockMode, other: LockMode) -> bool {
    (one, other) == (Shared, Shared)
}

/// Whoever does not wait is kept out, and told so as it asked.
async fn is_kept_out(locker: &Face, key: &LockKey, mode: LockMode) {
    let error = locker.acquire(key, once().mode(mode)).await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (HeldElsewhere, Some(key)));
    let zero = LockOptions::wait_up_to(Duration::ZERO).mode(mode);
    assert_eq!(kind_of(locker.acquire(key, zero).await), Some(TimedOut));
    for options in [once().mode(mode), zero] {
        assert!(locker.try_acquire(key, options).await.unwrap().is_none());
        assert!(
            locker
                .try_acquire_fenced(key, options)
                .await
                .unwrap()
                .is_none()
        );
    }
}

async fn is_let_in(locker: &Face, key: &LockKey, mode: LockMode) {
    for options in [once(), LockOptions::wait_up_to(Duration::ZERO)] {
        let guard = locker.acquire(key, options.mode(mode)).await.unwrap();
        assert_eq!((guard.key(), guard.mode()), (key, mode));
        guard.release().await.unwrap();
    }
}

async fn excluded_if_not_compatible(locker: &Face, key: &LockKey, held: LockMode, asked: LockMode) {
    if compatible(held, asked) {
        is_let_in(locker, key, asked).await;
    } else {
        is_kept_out(locker, key, asked).await;
    }
}

pub(crate) async fn a_second_locker_is_refused(place: Place) {
    let one = place.locker(LockManagerOptions::new()).await;
    let other = place.locker(LockManagerOptions::new()).await;
    for (held, asked) in PAIRS {
        let key = fresh_key();
        let guard = one.acquire(&key, once().mode(held)).await.unwrap();
        excluded_if_not_compatible(&other, &key, held, asked).await;
        guard.release().await.unwrap();
        is_let_in(&other, &key, Exclusive).await;
    }
}

pub(crate) async fn users_of_one_locker_exclude_each_other(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let mut eyes = Eyes::at(&place.url);
    for (held, asked) in PAIRS {
        let key = fresh_key();
        let guard = locker.acquire(&key, once().mode(held)).await.unwrap();
        excluded_if_not_compatible(&locker, &key, held, asked).await;
        // Those who share here are one holder there.
        assert_eq!(eyes.holders(&key).len(), 1);
        guard.release().await.unwrap();
        assert!(eyes.is_free(&key), "after a release that was waited for");
    }
}

pub(crate) async fn a_plain_lock_and_a_locker_exclude_each_other(place: Place) {
    let pool = place.pool(3).await;
    let locker = pool.locker(LockManagerOptions::new());
    for (held, asked) in PAIRS {
        let key = fresh_key();
        let meanwhile = async || excluded_if_not_compatible(&locker, &key, held, asked).await;
        pool.plainly(&key, once().mode(held), meanwhile)
            .await
            .unwrap();

        let guard = locker.acquire(&key, once().mode(held)).await.unwrap();
        let plain = pool.plainly(&key, once().mode(asked), async || ()).await;
        let expected = (!compatible(held, asked)).then_some(HeldElsewhere);
        assert_eq!(kind_of(plain), expected, "{asked:?} under {held:?}");
        guard.release().await.unwrap();
        let plain = pool.plainly(&key, once(), async || ()).await;
        plain.unwrap();
    }
}

pub(crate) async fn a_locker_excludes_plain_sql(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let mut rival = Rival::at(&place.url);
    for (held, asked) in PAIRS {
        // Both key spaces.
        let half = i32::try_from(fresh_number()).unwrap();
        for key in [fresh_key(), LockKey::from((half, i32::MIN))] {
            assert!(rival.takes(&key, held));
            excluded_if_not_compatible(&locker, &key, held, asked).await;
            rival.gives_back_in(&key, held);

            let guard = locker.acquire(&key, once().mode(held)).await.unwrap();
            assert_eq!(rival.takes(&key, asked), compatible(held, asked));
            guard.release().await.unwrap();
            if compatible(held, asked) {
                rival.gives_back_in(&key, asked);
            }
        }
    }
}

pub(crate) async fn contention_never_overlaps(place: Place) {
    const TASKS: u32 = 12;
    const TURNS: u32 = 15;
    let key = fresh_key();
    // One that hands on for ever, one that never does, one as they come.
    let lockers = [
        place.locker(LockManagerOptions::new()).await,
        place
            .locker(LockManagerOptions::new().hand_off_limit(0, Duration::ZERO))
            .await,
        place
            .locker(LockManagerOptions::new().hand_off_limit(3, Duration::from_secs(60)))
            .await,
    ];
    let (inside, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let locker = lockers[task as usize % lockers.len()].clone();
            let (key, inside, done) = (key.clone(), Arc::clone(&inside), Arc::clone(&done));
            tokio::spawn(async move {
                for turn in 0..TURNS {
                    let options = if (task + turn) % 3 == 0 {
                        block()
                    } else {
                        poll()
                    };
                    let guard = locker.acquire(&key, options).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    tokio::task::yield_now().await;
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two at once");
                    guard.release().await.unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(done.load(Ordering::SeqCst), TASKS * TURNS);
    assert!(Eyes::at(&place.url).is_free(&key));
}
