//! Sessions that end.

use std::time::Duration;

use advisory_locking::LockErrorKind::Lost;
use advisory_locking::LockOptions;
use advisory_locking::lock_manager::LockManagerOptions;

use super::{SHORT_KEEP_ALIVE, block, fresh_key, kind_of, no_wait, poll, without_keep_alive};
use crate::pool_under_test::PoolUnderTest;
use crate::server_observer::{CompetingSession, ServerObserver};
use crate::support::eventually;

/// Whoever holds is told without acquiring, releases with an error, and nothing is taken again for it.
pub(crate) async fn a_holder_learns_of_its_loss(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let (key, other, mut observer) = (
        fresh_key(),
        fresh_key(),
        ServerObserver::at(&pool_under_test.url),
    );
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let second = manager.acquire(&other, no_wait()).await.unwrap();
    assert_eq!(guard.generation(), second.generation(), "on one session");
    assert!(!guard.is_lost());
    observer.terminate_holder(&key);
    eventually("news of the loss", || guard.is_lost() && second.is_lost());
    // The manager goes on, on a new session.
    let third = manager.acquire(&fresh_key(), poll()).await.unwrap();
    assert!(third.generation() > guard.generation());
    assert!(
        observer.is_free(&key) && observer.is_free(&other),
        "taken again silently"
    );
    assert_eq!(kind_of(guard.release().await), Some(Lost));
    assert_eq!(kind_of(second.release().await), Some(Lost));
    assert!(!third.is_lost());
    third.release().await.unwrap();
}

/// Nobody looks after the session, so the release itself finds it out; one that was waited for on the server too.
pub(crate) async fn a_release_reports_a_loss(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let mut observer = ServerObserver::at(&pool_under_test.url);
    for options in super::poll_and_block() {
        let key = fresh_key();
        let mut competitor = CompetingSession::holding(&key);
        let acquiring = manager.spawn_acquire(&key, options);
        competitor.unlock(&key);
        let guard = acquiring.await.unwrap().unwrap();
        observer.terminate_holder(&key);
        assert!(!guard.is_lost(), "nobody has noticed");
        assert_eq!(kind_of(guard.release().await), Some(Lost));
        let again = manager.acquire(&key, poll()).await.unwrap();
        again.release().await.unwrap();
    }
    // Of several, each.
    let keys = vec![fresh_key(), fresh_key()];
    let guards = manager.acquire_all(keys.clone(), no_wait()).await.unwrap();
    observer.terminate_holder(&keys[0]);
    assert_eq!(kind_of(guards.release().await), Some(Lost));
}

/// It ends while nothing is held on it. Those who wait do not notice; whoever asks but once is told at most once.
pub(crate) async fn an_idle_session_is_replaced(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), ServerObserver::at(&pool_under_test.url));
    for options in super::poll_and_block() {
        let guard = manager.acquire(&key, poll()).await.unwrap();
        let (holder, generation) = (observer.holder(&key), guard.generation());
        guard.release().await.unwrap();
        observer.terminate(holder);
        let guard = manager.acquire(&key, options).await.unwrap();
        assert!(guard.generation() > generation);
        assert_ne!(observer.holder(&key), holder);
        guard.release().await.unwrap();
    }
}

/// The session on which somebody asks again and again ends between two questions.
pub(crate) async fn those_who_poll_go_on(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let (key, other, mut observer) = (
        fresh_key(),
        fresh_key(),
        ServerObserver::at(&pool_under_test.url),
    );
    let held = manager.acquire(&other, no_wait()).await.unwrap();
    let mut competitor = CompetingSession::holding(&key);
    let options = LockOptions::wait_forever().interval(Duration::from_millis(10));
    let acquiring = manager.spawn_acquire(&key, options);
    observer.terminate_holder(&other);
    // The next question finds it out, for those who hold too.
    eventually("the loss", || held.is_lost());
    competitor.unlock(&key);
    let guard = acquiring.await.unwrap().unwrap();
    assert!(guard.generation() > held.generation());
    guard.release().await.unwrap();
    assert_eq!(kind_of(held.release().await), Some(Lost));
}

pub(crate) async fn sessions_lose_only_their_own(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let (own, shared, mut observer) = (
        fresh_key(),
        fresh_key(),
        ServerObserver::at(&pool_under_test.url),
    );
    let mut competitor = CompetingSession::holding(&own);
    let acquiring = manager.spawn_acquire(&own, block());
    observer.wait_for_waiters(&own, 1);
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

/// A session that waits on the server is the manager's own affair: those who wait there go on without it.
pub(crate) async fn those_who_block_go_on(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), ServerObserver::at(&pool_under_test.url));
    let mut competitor = CompetingSession::holding(&key);
    let acquiring = manager.spawn_acquire(&key, block());
    observer.wait_for_waiters(&key, 1);
    let waiter = observer.waiters(&key)[0];
    observer.terminate(waiter);
    eventually("another one waits", || {
        let waiters = observer.waiters(&key);
        waiters.len() == 1 && !waiters.contains(&waiter)
    });
    competitor.unlock(&key);
    acquiring.await.unwrap().unwrap().release().await.unwrap();
}
