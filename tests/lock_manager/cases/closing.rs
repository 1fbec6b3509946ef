//! `close`, and the drop of the last clone.

use advisory_locking::LockErrorKind::{Closed, Lost};
use advisory_locking::LockOptions;
use advisory_locking::WaitStrategy::Block;
use advisory_locking::lock_manager::LockManagerOptions;
use testkit::observer::Observe;
use testkit::server::connect_to;
use tokio::time::timeout;

use super::{TIMEOUT, fresh_key, kind_of, no_wait, poll, unlimited_hand_off, without_keep_alive};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::PoolUnderTest;

async fn is_closed(manager: &crate::test_manager::TestManager) {
    for options in [no_wait(), poll()] {
        assert_eq!(
            kind_of(manager.acquire(&fresh_key(), options).await),
            Some(Closed)
        );
        assert_eq!(
            kind_of(manager.try_acquire(&fresh_key(), options).await),
            Some(Closed)
        );
        let keys = vec![fresh_key(), fresh_key()];
        assert_eq!(
            kind_of(manager.acquire_all(keys, options).await),
            Some(Closed)
        );
    }
}

/// `close` waits for holders, and rejects waiters and later calls.
pub(crate) async fn close_rejects_waiters_and_awaits_holders(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let (key, other, mut observer) = (fresh_key(), fresh_key(), connect_to(&pool_under_test.url));
    let _competitor = CompetingSession::holding(&other);
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let spawn = |key: &advisory_locking::LockKey| {
        let (manager, key) = (manager.clone(), key.clone());
        tokio::spawn(async move { kind_of(manager.acquire(&key, poll()).await) })
    };
    let waiters = [spawn(&key), spawn(&other)];
    let closing = tokio::spawn({
        let manager = manager.clone();
        async move { manager.close().await }
    });
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), Some(Closed));
    }
    is_closed(&manager).await;
    assert!(!closing.is_finished() && !guard.is_lost());
    assert_eq!(observer.holders(&key).len(), 1);
    guard.release().await.unwrap();
    timeout(TIMEOUT, closing).await.unwrap().unwrap();
    assert!(observer.is_free(&key));
    timeout(TIMEOUT, manager.close()).await.unwrap();
    is_closed(&manager).await;

    let unused = pool_under_test.manager(LockManagerOptions::new()).await;
    timeout(TIMEOUT, unused.close()).await.unwrap();
    is_closed(&unused).await;
}

/// The waiter is rejected at once. The wait on the server ends, or its grant is released.
pub(crate) async fn close_does_not_await_server_waiters(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let mut competitor = CompetingSession::holding(&key);
    let acquiring = manager.spawn_acquire(&key, LockOptions::wait_forever().strategy(Block));
    observer.wait_until_waiters(&key, 1);
    timeout(TIMEOUT, manager.close()).await.unwrap();
    assert_eq!(kind_of(acquiring.await.unwrap()), Some(Closed));
    competitor.unlock(&key);
    observer.wait_until_free(&key);
}

/// Guards that outlive their lock manager report a loss.
pub(crate) async fn last_clone_releases_all_locks(pool_under_test: PoolUnderTest) {
    let (manager, mut observer) = (
        pool_under_test.manager(unlimited_hand_off()).await,
        connect_to(&pool_under_test.url),
    );
    let (key, shared) = (fresh_key(), fresh_key());
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let sharers = [
        manager.acquire(&shared, no_wait().shared()).await.unwrap(),
        manager.acquire(&shared, no_wait().shared()).await.unwrap(),
    ];
    let clone = manager.clone();
    drop(manager);
    assert!(!guard.is_lost(), "it was not the last");
    assert_eq!(observer.holders(&key).len(), 1);
    drop(clone);
    observer.assert_soon_free(&key, "the last clone");
    observer.assert_soon_free(&shared, "the last clone");
    assert!(guard.is_lost() && sharers.iter().all(|guard| guard.is_lost()));
    assert_eq!(kind_of(guard.release().await), Some(Lost));
    for sharer in sharers {
        assert_eq!(kind_of(sharer.release().await), Some(Lost));
    }
}

/// The pool is closed before its lock manager, whose session is idle or holds a lock.
pub(crate) async fn pool_closes_before_its_lock_manager(pool_under_test: PoolUnderTest) {
    for holds in [false, true] {
        let pool = pool_under_test.pool(2).await;
        let manager = pool.manager(without_keep_alive());
        let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
        let guard = manager.acquire(&key, no_wait()).await.unwrap();
        let guard = if holds {
            Some(guard)
        } else {
            guard.release().await.unwrap();
            None
        };
        let closing = tokio::spawn({
            let pool = pool.clone();
            async move { pool.close().await }
        });
        if let Some(guard) = guard {
            assert_eq!(observer.holders(&key).len(), 1);
            let released = timeout(TIMEOUT, guard.release()).await;
            released.unwrap().unwrap();
        }
        timeout(TIMEOUT, closing).await.unwrap().unwrap();
        assert!(observer.is_free(&key));
        // Only some pools report that they are closed.
        let later = timeout(TIMEOUT, manager.acquire(&key, no_wait()))
            .await
            .unwrap();
        assert!(matches!(kind_of(later), None | Some(Closed)));
        timeout(TIMEOUT, manager.close()).await.unwrap();
        is_closed(&manager).await;
    }
}

pub(crate) async fn connections_return_to_the_pool(pool_under_test: PoolUnderTest) {
    let (pool, mut observer) = (
        pool_under_test.pool(2).await,
        connect_to(&pool_under_test.url),
    );
    for round in 0..2 {
        let manager = pool.manager(without_keep_alive());
        let (key, other) = (fresh_key(), fresh_key());
        let mut competitor = CompetingSession::holding(&other);
        let guard = manager.acquire(&key, no_wait()).await.unwrap();
        let acquiring = manager.spawn_acquire(&other, super::block());
        observer.wait_until_waiters(&other, 1);
        competitor.unlock(&other);
        acquiring.await.unwrap().unwrap().release().await.unwrap();
        guard.release().await.unwrap();
        // In the first round the manager is closed, in the second one it is dropped.
        if round == 0 {
            timeout(TIMEOUT, manager.close()).await.unwrap();
        }
        drop(manager);
        let pids = pool.pids(2).await;
        assert_eq!(observer.lock_count(&pids), 0, "{pids:?}");
    }
}
