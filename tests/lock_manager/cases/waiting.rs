//! Waits for holders outside the process: by polling, or in the server's queue.

use std::time::{Duration, Instant};

use advisory_locking::LockErrorKind::{InvalidOptions, TimedOut};
use advisory_locking::WaitStrategy::{Block, Poll};
use advisory_locking::lock_manager::{LockManagerOptions, TokenSource};
use advisory_locking::{LockError, LockKey, LockOptions};
use testkit::observer::Observe;
use testkit::server::{TIMEOUT, connect_to};

use super::{
    block, fresh_key, kind_of, no_wait, open_session, poll, poll_and_block, within,
    without_keep_alive,
};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::PoolUnderTest;
use crate::test_manager::TestManager;

pub(crate) async fn elapsed_limit_leaves_nothing(pool_under_test: PoolUnderTest) {
    const LIMIT: Duration = Duration::from_millis(60);
    let manager = pool_under_test.manager(without_keep_alive()).await;
    // The limit bounds the opening of a session, too.
    open_session(&manager).await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let competitor = CompetingSession::holding(&key);
    for strategy in [Poll, Block] {
        let began = Instant::now();
        let options = within(LIMIT, strategy);
        let error = manager.acquire(&key, options).await.unwrap_err();
        assert_eq!((error.kind(), error.key()), (TimedOut, Some(&key)));
        assert!(began.elapsed() >= LIMIT, "before its limit");
        assert_eq!(error.limit(), Some(LIMIT));
        assert!(error.waited() >= Some(LIMIT), "{error}");
        assert!(
            manager
                .try_acquire(&key, options.shared())
                .await
                .unwrap()
                .is_none()
        );
        testkit::server::eventually("an empty queue", || observer.waiters(&key).is_empty());
    }
    assert_eq!(observer.holders(&key), [competitor.pid]);
    drop(competitor);
    observer.wait_until_free(&key);
    // An attempt of the last request may still be in flight.
    manager
        .acquire(&key, poll())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

pub(crate) async fn waiter_is_granted_when_the_key_is_free(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(LockManagerOptions::new()).await;
    let forever = LockOptions::wait_forever;
    let ways = poll_and_block()
        .into_iter()
        .chain([forever(), forever().strategy(Block)]);
    for options in ways {
        let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
        let mut competitor = CompetingSession::holding(&key);
        let acquiring = manager.spawn_waiting(&mut observer, &key, options);
        competitor.unlock(&key);
        let guard = acquiring.await.unwrap().unwrap();
        assert_ne!(observer.holder(&key), competitor.pid);
        guard.release().await.unwrap();
        assert!(observer.is_free(&key));
    }
}

pub(crate) async fn blocking_waiter_waits_on_the_server(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(LockManagerOptions::new()).await;
    let (key, shared, mut observer) = (fresh_key(), fresh_key(), connect_to(&pool_under_test.url));
    let other = manager.acquire(&shared, no_wait()).await.unwrap();
    let mut first = CompetingSession::holding(&key);
    let acquiring = manager.spawn_acquire(&key, block());
    observer.wait_until_waiters(&key, 1);
    let [waiter] = observer.waiters(&key)[..] else {
        panic!("not one waiter")
    };
    assert_ne!(waiter, observer.holder(&shared), "on a session of its own");
    let last = CompetingSession::at(&pool_under_test.url).queue(&mut observer, &key, || ());
    first.unlock(&key);
    let guard = acquiring.await.unwrap().unwrap();
    // Served in order of arrival.
    assert_eq!(observer.holders(&key), [waiter]);
    assert_eq!(observer.waiters(&key).len(), 1);
    assert_ne!(guard.generation(), other.generation());
    guard.release().await.unwrap();
    last.granted().unlock(&key);
    other.release().await.unwrap();
}

pub(crate) async fn blocking_waiter_polls_without_waiting_sessions(pool_under_test: PoolUnderTest) {
    // A pool of one connection suffices.
    let pool = pool_under_test.pool(1).await;
    let manager = pool.manager(LockManagerOptions::new().max_waiting_sessions(0));
    let (key, other, mut observer) = (fresh_key(), fresh_key(), connect_to(&pool_under_test.url));
    let other = manager.acquire(&other, no_wait()).await.unwrap();
    let mut competitor = CompetingSession::holding(&key);
    let acquiring = manager.spawn_waiting(&mut observer, &key, block());
    competitor.unlock(&key);
    let guard = acquiring.await.unwrap().unwrap();
    assert_eq!(guard.generation(), other.generation());
    guard.release().await.unwrap();
    other.release().await.unwrap();
}

/// The lock manager has the only connection of the pool, so no session can wait on the server.
pub(crate) async fn blocking_waiter_polls_without_a_connection(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test
        .pool(1)
        .await
        .manager(LockManagerOptions::new());
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let mut competitor = CompetingSession::holding(&key);
    let holding = [block(), poll(), block()].map(|options| {
        let (manager, key) = (manager.clone(), key.clone());
        tokio::spawn(async move { manager.acquire(&key, options).await?.release().await })
    });
    // Several polls.
    tokio::time::sleep(Duration::from_millis(300)).await;
    competitor.unlock(&key);
    for holding in holding {
        holding.await.unwrap().unwrap();
    }
    assert!(observer.is_free(&key));
}

/// Some opened sessions wait on the server, and the other keys are polled.
pub(crate) async fn waiters_share_the_free_connections(pool_under_test: PoolUnderTest) {
    let pool = pool_under_test.pool(2).await;
    let manager = pool.manager(LockManagerOptions::new().max_waiting_sessions(3));
    let keys: Vec<_> = (0..3).map(|_| fresh_key()).collect();
    let mut observer = connect_to(&pool_under_test.url);
    let mut competitor = CompetingSession::new();
    let acquiring: Vec<_> = keys
        .iter()
        .map(|key| {
            assert!(competitor.try_lock(key, advisory_locking::LockMode::Exclusive));
            manager.spawn_acquire(key, block())
        })
        .collect();
    testkit::server::eventually("one session waits on the server", || {
        keys.iter()
            .map(|key| observer.waiters(key).len())
            .sum::<usize>()
            == 1
    });
    for key in &keys {
        competitor.unlock(key);
    }
    for acquiring in acquiring {
        acquiring.await.unwrap().unwrap().release().await.unwrap();
    }
    assert!(keys.iter().all(|key| observer.is_free(key)));
}

pub(crate) async fn invalid_options_are_rejected(pool_under_test: PoolUnderTest) {
    let pool = pool_under_test.pool(1).await;
    let manager = pool.manager(LockManagerOptions::new());
    let key = fresh_key();
    for options in [
        no_wait().allow_in_transaction(),
        no_wait().strategy(Block),
        no_wait().interval(Duration::from_millis(1)),
        poll().interval(Duration::ZERO),
        block().interval(Duration::from_millis(1)),
    ] {
        let invalid = Some(InvalidOptions);
        assert_eq!(kind_of(manager.acquire(&key, options).await), invalid);
        assert_eq!(
            kind_of(manager.acquire_fenced(&key, options).await),
            invalid
        );
        assert_eq!(kind_of(manager.try_acquire(&key, options).await), invalid);
        let keys = vec![key.clone()];
        assert_eq!(kind_of(manager.acquire_all(keys, options).await), invalid);
    }
    let sequence =
        |name: &str| LockManagerOptions::new().fencing_tokens(TokenSource::Sequence(name.into()));
    for (options, bound) in [
        (LockManagerOptions::new().max_sessions(0), "1 session"),
        (
            LockManagerOptions::new().keep_alive(Duration::ZERO),
            "100 ms",
        ),
        (
            LockManagerOptions::new().keep_alive(Duration::from_nanos(1)),
            "100 ms",
        ),
        (
            LockManagerOptions::new().keep_alive(Duration::from_millis(99)),
            "100 ms",
        ),
        (sequence(""), "empty"),
        (sequence("fencing\0"), "NUL"),
    ] {
        let error = pool.try_manager(options.clone()).unwrap_err();
        assert_eq!(error.kind(), InvalidOptions, "{options:?}");
        assert!(error.to_string().contains(bound), "{error}");
    }
    // Extreme options work.
    let most = LockManagerOptions::new()
        .max_sessions(usize::MAX)
        .max_waiting_sessions(usize::MAX)
        .hand_off_limit(u32::MAX, Duration::MAX)
        .keep_alive(Duration::MAX);
    let least = LockManagerOptions::new()
        .max_waiting_sessions(0)
        .hand_off_limit(0, Duration::ZERO)
        .keep_alive(Duration::from_millis(100));
    for options in [most, least] {
        let manager = pool_under_test.manager(options).await;
        // A pause of this machine may be longer than the keep-alive, which ends the session.
        let began = Instant::now();
        while let Err(error) = acquire_and_release(&manager, &key).await {
            assert_ne!(error.kind(), InvalidOptions, "{error}");
            assert!(began.elapsed() < TIMEOUT, "{error}");
        }
        manager.close().await;
    }
}

async fn acquire_and_release(manager: &TestManager, key: &LockKey) -> Result<(), LockError> {
    manager.acquire(key, poll()).await?.release().await
}
