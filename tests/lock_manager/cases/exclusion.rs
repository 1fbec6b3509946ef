//! Exclusion between callers, lock managers, plain locks and plain SQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use advisory_locking::LockErrorKind::{HeldElsewhere, TimedOut};
use advisory_locking::LockMode::{Exclusive, Shared};
use advisory_locking::lock_manager::LockManagerOptions;
use advisory_locking::{LockKey, LockMode, LockOptions};
use testkit::observer::Observe;
use testkit::server::{connect_to, fresh_pair};

use super::{block, fresh_key, kind_of, no_wait, poll, unlimited_hand_off};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::PoolUnderTest;
use crate::test_manager::TestManager;

/// The mode of the holder, and the mode of the request.
const PAIRS: [(LockMode, LockMode); 4] = [
    (Exclusive, Exclusive),
    (Exclusive, Shared),
    (Shared, Exclusive),
    (Shared, Shared),
];

fn compatible(one: LockMode, other: LockMode) -> bool {
    (one, other) == (Shared, Shared)
}

/// Asserts that requests that do not wait fail, each with its error.
async fn assert_excluded(manager: &TestManager, key: &LockKey, mode: LockMode) {
    let error = manager
        .acquire(key, no_wait().mode(mode))
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.key()), (HeldElsewhere, Some(key)));
    let zero = LockOptions::wait_up_to(Duration::ZERO).mode(mode);
    assert_eq!(kind_of(manager.acquire(key, zero).await), Some(TimedOut));
    for options in [no_wait().mode(mode), zero] {
        assert!(manager.try_acquire(key, options).await.unwrap().is_none());
        assert!(
            manager
                .try_acquire_fenced(key, options)
                .await
                .unwrap()
                .is_none()
        );
    }
}

async fn assert_granted(manager: &TestManager, key: &LockKey, mode: LockMode) {
    for options in [no_wait(), LockOptions::wait_up_to(Duration::ZERO)] {
        let guard = manager.acquire(key, options.mode(mode)).await.unwrap();
        assert_eq!((guard.key(), guard.mode()), (key, mode));
        guard.release().await.unwrap();
    }
}

async fn assert_excluded_if_conflicting(
    manager: &TestManager,
    key: &LockKey,
    held: LockMode,
    asked: LockMode,
) {
    if compatible(held, asked) {
        assert_granted(manager, key, asked).await;
    } else {
        assert_excluded(manager, key, asked).await;
    }
}

pub(crate) async fn second_manager_is_excluded(pool_under_test: PoolUnderTest) {
    let one = pool_under_test.manager(LockManagerOptions::new()).await;
    let other = pool_under_test.manager(LockManagerOptions::new()).await;
    for (held, asked) in PAIRS {
        let key = fresh_key();
        let guard = one.acquire(&key, no_wait().mode(held)).await.unwrap();
        assert_excluded_if_conflicting(&other, &key, held, asked).await;
        guard.release().await.unwrap();
        assert_granted(&other, &key, Exclusive).await;
    }
}

pub(crate) async fn callers_of_one_manager_exclude_each_other(pool_under_test: PoolUnderTest) {
    // After the hand-off limit, a sharer would be refused.
    let manager = pool_under_test.manager(unlimited_hand_off()).await;
    let mut observer = connect_to(&pool_under_test.url);
    for (held, asked) in PAIRS {
        let key = fresh_key();
        let guard = manager.acquire(&key, no_wait().mode(held)).await.unwrap();
        assert_excluded_if_conflicting(&manager, &key, held, asked).await;
        // Holders that share the lock in the process are one holder on the server.
        assert_eq!(observer.holders(&key).len(), 1);
        guard.release().await.unwrap();
        assert!(
            observer.is_free(&key),
            "after a release that was waited for"
        );
    }
}

pub(crate) async fn plain_lock_and_manager_exclude_each_other(pool_under_test: PoolUnderTest) {
    let pool = pool_under_test.pool(3).await;
    let manager = pool.manager(LockManagerOptions::new());
    for (held, asked) in PAIRS {
        let key = fresh_key();
        let meanwhile = async || assert_excluded_if_conflicting(&manager, &key, held, asked).await;
        pool.with_plain_lock(&key, no_wait().mode(held), meanwhile)
            .await
            .unwrap();

        let guard = manager.acquire(&key, no_wait().mode(held)).await.unwrap();
        let plain = pool
            .with_plain_lock(&key, no_wait().mode(asked), async || ())
            .await;
        let expected = (!compatible(held, asked)).then_some(HeldElsewhere);
        assert_eq!(kind_of(plain), expected, "{asked:?} under {held:?}");
        guard.release().await.unwrap();
        let plain = pool.with_plain_lock(&key, no_wait(), async || ()).await;
        plain.unwrap();
    }
}

pub(crate) async fn manager_excludes_plain_sql(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(LockManagerOptions::new()).await;
    let mut competitor = CompetingSession::at(&pool_under_test.url);
    for (held, asked) in PAIRS {
        // One key of each key space.
        for key in [fresh_key(), LockKey::from(fresh_pair())] {
            assert!(competitor.try_lock(&key, held));
            assert_excluded_if_conflicting(&manager, &key, held, asked).await;
            competitor.unlock_in(&key, held);

            let guard = manager.acquire(&key, no_wait().mode(held)).await.unwrap();
            assert_eq!(competitor.try_lock(&key, asked), compatible(held, asked));
            guard.release().await.unwrap();
            if compatible(held, asked) {
                competitor.unlock_in(&key, asked);
            }
        }
    }
}

pub(crate) async fn contending_holders_never_overlap(pool_under_test: PoolUnderTest) {
    const TASKS: u32 = 12;
    const TURNS: u32 = 15;
    let key = fresh_key();
    // Hand-off by default, without hand-offs, and with three at most.
    let managers = [
        pool_under_test.manager(LockManagerOptions::new()).await,
        pool_under_test
            .manager(LockManagerOptions::new().hand_off_limit(0, Duration::ZERO))
            .await,
        pool_under_test
            .manager(LockManagerOptions::new().hand_off_limit(3, Duration::from_secs(60)))
            .await,
    ];
    let (inside, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let manager = managers[task as usize % managers.len()].clone();
            let (key, inside, done) = (key.clone(), Arc::clone(&inside), Arc::clone(&done));
            tokio::spawn(async move {
                for turn in 0..TURNS {
                    let options = if (task + turn) % 3 == 0 {
                        block()
                    } else {
                        poll()
                    };
                    let guard = manager.acquire(&key, options).await.unwrap();
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
    assert!(connect_to(&pool_under_test.url).is_free(&key));
}
