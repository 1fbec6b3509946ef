//! Terminated sessions.

use std::time::Duration;

use advisory_locking::LockErrorKind::Lost;
use advisory_locking::lock_manager::LockManagerOptions;
use advisory_locking::{LockKey, LockOptions};
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::server::{connect_to, eventually};
use tokio::time::timeout;

use super::{
    SHORT_KEEP_ALIVE, TIMEOUT, block, fresh_key, kind_of, no_wait, poll, without_keep_alive,
};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::PoolUnderTest;
use crate::test_manager::{TestGuard, TestManager};

/// The loss signal fires by itself, the release fails, and no lost lock is re-acquired.
pub(crate) async fn holder_learns_of_its_loss(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let (key, other, mut observer) = (fresh_key(), fresh_key(), connect_to(&pool_under_test.url));
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let second = manager.acquire(&other, no_wait()).await.unwrap();
    assert_eq!(guard.generation(), second.generation(), "on one session");
    assert_eq!(
        guard.session_pid().map(i64::from),
        Some(observer.holder(&key))
    );
    assert!(!guard.is_lost());
    observer.terminate_holder(&key);
    eventually("news of the loss", || guard.is_lost() && second.is_lost());
    // The lock manager opens a new session.
    let third = manager.acquire(&fresh_key(), poll()).await.unwrap();
    assert!(third.generation() > guard.generation());
    assert!(
        observer.is_free(&key) && observer.is_free(&other),
        "re-acquired"
    );
    assert_eq!(kind_of(guard.release().await), Some(Lost));
    assert_eq!(kind_of(second.release().await), Some(Lost));
    assert!(!third.is_lost());
    third.release().await.unwrap();
}

/// Acquires a lock after a wait on the server or with polls.
async fn acquire_contended(
    manager: &TestManager,
    observer: &mut PgConnection,
    key: &LockKey,
    options: LockOptions,
) -> TestGuard {
    let mut competitor = CompetingSession::holding(key);
    let acquiring = manager.spawn_waiting(observer, key, options);
    competitor.unlock(key);
    acquiring.await.unwrap().unwrap()
}

/// Without a keep-alive too, if the client finds its connection closed.
pub(crate) async fn holder_learns_of_a_closed_connection(pool_under_test: PoolUnderTest) {
    assert!(pool_under_test.kind.finds_closed_connections());
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let mut observer = connect_to(&pool_under_test.url);
    for options in super::poll_and_block() {
        // After a wait on the server, on the session that has waited.
        let key = fresh_key();
        let guard = acquire_contended(&manager, &mut observer, &key, options).await;
        observer.terminate_holder(&key);
        timeout(TIMEOUT, guard.lost()).await.unwrap();
        assert!(guard.is_lost());
        assert_eq!(kind_of(guard.release().await), Some(Lost));
    }
}

/// Without a keep-alive the release itself detects the loss, also after a wait on the server.
pub(crate) async fn release_reports_a_loss(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let mut observer = connect_to(&pool_under_test.url);
    for options in super::poll_and_block() {
        let key = fresh_key();
        let guard = acquire_contended(&manager, &mut observer, &key, options).await;
        observer.terminate_holder(&key);
        if !pool_under_test.kind.finds_closed_connections() {
            assert!(!guard.is_lost(), "the loss is not known yet");
        }
        assert_eq!(kind_of(guard.release().await), Some(Lost));
        let again = manager.acquire(&key, poll()).await.unwrap();
        again.release().await.unwrap();
    }
    // For several keys as well.
    let keys = vec![fresh_key(), fresh_key()];
    let guards = manager.acquire_all(keys.clone(), no_wait()).await.unwrap();
    observer.terminate_holder(&keys[0]);
    assert_eq!(kind_of(guards.release().await), Some(Lost));
}

/// The session ends while it holds no lock. Callers do not notice it.
pub(crate) async fn idle_session_is_replaced(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    for options in [no_wait(), poll(), block()] {
        for method in ["acquire", "acquire_fenced", "try_acquire", "acquire_all"] {
            let guard = manager.acquire(&key, poll()).await.unwrap();
            let holder = observer.holder(&key);
            guard.release().await.unwrap();
            observer.terminate(holder);
            let released = match method {
                "acquire" => {
                    manager
                        .acquire(&key, options)
                        .await
                        .unwrap()
                        .release()
                        .await
                }
                "acquire_fenced" => {
                    let guard = manager.acquire_fenced(&key, options).await.unwrap();
                    guard.release().await
                }
                "try_acquire" => {
                    let guard = manager.try_acquire(&key, options).await.unwrap();
                    guard.expect("a free key").release().await
                }
                _ => {
                    let keys = vec![key.clone(), fresh_key()];
                    let guards = manager.acquire_all(keys, options).await.unwrap();
                    guards.release().await
                }
            };
            released.unwrap();
            assert!(observer.is_free(&key));
        }
    }
}

/// A call for several keys goes on until its limit, as a call for one key does.
pub(crate) async fn call_for_several_keys_survives_losses(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let mut keys = vec![fresh_key(), fresh_key()];
    keys.sort_by_key(LockKey::raw);
    let mut observer = connect_to(&pool_under_test.url);
    let mut competitor = CompetingSession::holding(&keys[1]);
    let options = poll().interval(Duration::from_millis(10));
    let acquiring = tokio::spawn({
        let (manager, keys) = (manager.clone(), keys.clone());
        async move { manager.acquire_all(keys, options).await }
    });
    let first = &keys[0];
    // The lock manager has read the grant. Before that, it would repeat the request.
    eventually("the smaller key is held", || {
        manager.manager.snapshot().holders() == 1
    });
    observer.terminate_holder(first);
    competitor.unlock(&keys[1]);
    // The first lock was lost, so the release says so.
    let guards = acquiring.await.unwrap().unwrap();
    assert!(guards.is_lost());
    assert_eq!(kind_of(guards.release().await), Some(Lost));
    assert!(keys.iter().all(|key| observer.is_free(key)));
}

/// The session on which a waiter polls ends between two polls.
pub(crate) async fn polling_waiters_survive_session_loss(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let (key, other, mut observer) = (fresh_key(), fresh_key(), connect_to(&pool_under_test.url));
    let held = manager.acquire(&other, no_wait()).await.unwrap();
    let mut competitor = CompetingSession::holding(&key);
    let options = LockOptions::wait_forever().interval(Duration::from_millis(10));
    let acquiring = manager.spawn_waiting(&mut observer, &key, options);
    observer.terminate_holder(&other);
    // The next poll detects the loss, for holders on the same session as well.
    eventually("the loss", || held.is_lost());
    competitor.unlock(&key);
    let guard = acquiring.await.unwrap().unwrap();
    assert!(guard.generation() > held.generation());
    guard.release().await.unwrap();
    assert_eq!(kind_of(held.release().await), Some(Lost));
}

pub(crate) async fn session_loss_affects_its_own_locks_only(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let (own, shared, mut observer) = (fresh_key(), fresh_key(), connect_to(&pool_under_test.url));
    let mut competitor = CompetingSession::holding(&own);
    let acquiring = manager.spawn_acquire(&own, block());
    observer.wait_until_waiters(&own, 1);
    competitor.unlock(&own);
    let own_guard = acquiring.await.unwrap().unwrap();
    let guard = manager.acquire(&shared, no_wait()).await.unwrap();
    assert_ne!(observer.holder(&own), observer.holder(&shared));
    observer.terminate_holder(&own);
    eventually("news of the loss", || own_guard.is_lost());
    assert!(!guard.is_lost());
    guard.release().await.unwrap();
    assert_eq!(kind_of(own_guard.release().await), Some(Lost));
}

/// A session that waits on the server is internal to the lock manager: its waiters get a new one.
pub(crate) async fn blocking_waiters_survive_session_loss(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let mut competitor = CompetingSession::holding(&key);
    let acquiring = manager.spawn_acquire(&key, block());
    observer.wait_until_waiters(&key, 1);
    let waiter = observer.waiters(&key)[0];
    observer.terminate(waiter);
    eventually("another one waits", || {
        let waiters = observer.waiters(&key);
        waiters.len() == 1 && !waiters.contains(&waiter)
    });
    competitor.unlock(&key);
    acquiring.await.unwrap().unwrap().release().await.unwrap();
}
