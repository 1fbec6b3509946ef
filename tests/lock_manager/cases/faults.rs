//! Servers that stop, and networks that fall silent or lose messages.
#![allow(
    clippy::future_not_send,
    reason = "the guard of the private server stays on one thread"
)]

use std::time::Duration;

use advisory_locking::LockErrorKind::{Database, Lost, TimedOut};
use advisory_locking::LockMode::Exclusive;
use advisory_locking::WaitStrategy::Block;
use advisory_locking::lock_manager::LockManagerOptions;
use tokio::time::timeout;

use super::{
    PATIENCE, SHORT_KEEP_ALIVE, block, fresh_key, kind_of, no_wait, poll, within,
    without_keep_alive,
};
use crate::cluster::Private;
use crate::pool_under_test::PoolUnderTest;
use crate::relay::Direction::{ToClient, ToServer};
use crate::relay::{Flow, Relay};
use crate::server_observer::{CompetingSession, ServerObserver};
use crate::support::{eventually, run};

pub(crate) async fn the_server_restarts(pool_under_test: PoolUnderTest) {
    all_sessions_are_terminated(pool_under_test, "fast").await;
}

/// As [`the_server_restarts`], without an orderly shutdown.
pub(crate) async fn the_server_crashes(pool_under_test: PoolUnderTest) {
    all_sessions_are_terminated(pool_under_test, "immediate").await;
}

/// Holders report a loss, waiters of both strategies are served, and no lost lock is re-acquired.
async fn all_sessions_are_terminated(pool_under_test: PoolUnderTest, mode: &str) {
    let server = Private::take();
    let pool_under_test = pool_under_test.on_server(server.url());
    let manager = pool_under_test
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let [held, polled, blocked] = [fresh_key(), fresh_key(), fresh_key()];
    let guard = manager.acquire(&held, no_wait()).await.unwrap();
    let (mut competitor, mut observer) = (
        CompetingSession::at(&pool_under_test.url),
        ServerObserver::at(&pool_under_test.url),
    );
    let waiting: Vec<_> = [(polled, poll()), (blocked.clone(), block())]
        .into_iter()
        .map(|(key, options)| {
            assert!(competitor.try_lock(&key, Exclusive));
            let acquiring = manager.spawn_acquire(&key, options);
            (key, options, acquiring)
        })
        .collect();
    observer.wait_for_waiters(&blocked, 1);

    server.ctl(&["-m", mode, "-w", "restart"]);
    eventually("news of the loss", || guard.is_lost());
    for (key, options, acquiring) in waiting {
        // The waiter may have been granted the lock between the ends of the two sessions.
        let released = acquiring.await.unwrap().unwrap().release().await;
        assert!(matches!(kind_of(released), None | Some(Lost)));
        let again = manager.acquire(&key, options).await.unwrap();
        assert!(again.generation() > guard.generation());
        again.release().await.unwrap();
    }
    let mut observer = ServerObserver::at(&pool_under_test.url);
    assert!(observer.is_free(&held), "re-acquired");
    assert_eq!(kind_of(guard.release().await), Some(Lost));
    let again = manager.acquire(&held, poll()).await.unwrap();
    again.release().await.unwrap();
}

/// Passes new connections on. Connections that were cut off stay so.
fn pass(relay: &Relay) {
    relay.set(ToServer, Flow::Pass);
    relay.set(ToClient, Flow::Pass);
}

fn behind_a_relay(pool_under_test: &PoolUnderTest) -> (Relay, PoolUnderTest) {
    let relay = Relay::start(&pool_under_test.url);
    let far = pool_under_test.on_server(relay.through(&pool_under_test.url));
    (relay, far)
}

/// The loss signal fires in time, while the lock is still held on the server.
pub(crate) async fn silence_under_a_holder(pool_under_test: PoolUnderTest) {
    let (relay, far) = behind_a_relay(&pool_under_test);
    let manager = far
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let (key, mut observer) = (fresh_key(), ServerObserver::at(&pool_under_test.url));
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let holder = observer.holder(&key);
    relay.fall_silent();
    eventually("news of the loss", || guard.is_lost());
    assert_eq!(observer.holders(&key), [holder]);
    let generation = guard.generation();
    assert_eq!(kind_of(guard.release().await), Some(Lost));

    // Waiters are served as soon as the server has ended the session.
    pass(&relay);
    let acquiring = manager.spawn_acquire(&key, poll());
    let noticed = format!("SELECT pg_terminate_backend({holder})");
    run(&mut observer.0, &noticed);
    let again = acquiring.await.unwrap().unwrap();
    assert!(again.generation() > generation);
    again.release().await.unwrap();
    observer.wait_until_free(&key);
}

/// The waiter times out at its limit, at which the server ends the wait by itself.
pub(crate) async fn silence_under_a_waiter(pool_under_test: PoolUnderTest) {
    let (relay, far) = behind_a_relay(&pool_under_test);
    let manager = far.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), ServerObserver::at(&pool_under_test.url));
    let mut competitor = CompetingSession::holding(&key);
    let acquiring = manager.spawn_acquire(&key, within(Duration::from_secs(5), Block));
    observer.wait_for_waiters(&key, 1);
    relay.fall_silent();
    assert_eq!(kind_of(acquiring.await.unwrap()), Some(TimedOut));
    observer.wait_for_waiters(&key, 0);
    competitor.unlock(&key);
    assert!(observer.is_free(&key));
}

/// The waiter polls on a session that is cut off. It is served on a new session long before its
/// limit.
pub(crate) async fn silence_under_a_poller(pool_under_test: PoolUnderTest) {
    let (relay, far) = behind_a_relay(&pool_under_test);
    let manager = far
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let (key, mut observer) = (fresh_key(), ServerObserver::at(&pool_under_test.url));
    let other = manager.acquire(&fresh_key(), poll()).await.unwrap();
    relay.fall_silent();
    relay.set(ToServer, Flow::Lost);
    let acquiring = manager.spawn_acquire(&key, poll());
    relay.until_kept_back(ToServer);
    pass(&relay);
    let guard = acquiring.await.unwrap().unwrap();
    assert!(guard.generation() > other.generation());
    guard.release().await.unwrap();
    observer.wait_until_free(&key);
    assert_eq!(kind_of(other.release().await), Some(Lost));
}

/// `close` ends although the server does not reply.
pub(crate) async fn close_does_not_await_a_silent_server(pool_under_test: PoolUnderTest) {
    let (relay, far) = behind_a_relay(&pool_under_test);
    let manager = far
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let guard = manager.acquire(&fresh_key(), no_wait()).await.unwrap();
    relay.fall_silent();
    timeout(PATIENCE, manager.close()).await.unwrap();
    assert_eq!(kind_of(guard.release().await), Some(Lost));
}

/// The connection breaks before the release reaches the server. The end of the session frees the
/// lock.
pub(crate) async fn a_lost_release(pool_under_test: PoolUnderTest) {
    let (relay, far) = behind_a_relay(&pool_under_test);
    let manager = far.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), ServerObserver::at(&pool_under_test.url));
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let holder = observer.holder(&key);
    relay.set(ToServer, Flow::Held);
    let releasing = tokio::spawn(guard.release());
    relay.until_kept_back(ToServer);
    assert_eq!(observer.holders(&key), [holder]);
    relay.break_connections();
    assert_eq!(kind_of(releasing.await.unwrap()), Some(Lost));
    observer.wait_until_free(&key);
    relay.set(ToServer, Flow::Pass);
    let again = manager.acquire(&key, poll()).await.unwrap();
    again.release().await.unwrap();
}

/// The server grants the lock, and the connection breaks before the reply. A waiter requests the
/// lock again; a request that does not wait fails.
pub(crate) async fn a_lost_grant(pool_under_test: PoolUnderTest) {
    let (relay, far) = behind_a_relay(&pool_under_test);
    let manager = far.manager(without_keep_alive()).await;
    for (options, granted) in [(poll(), true), (no_wait(), false)] {
        let (key, mut observer) = (fresh_key(), ServerObserver::at(&pool_under_test.url));
        // Opens the session.
        let first = manager.acquire(&fresh_key(), poll()).await.unwrap();
        relay.set(ToClient, Flow::Held);
        let acquiring = manager.spawn_acquire(&key, options);
        eventually("the grant", || !observer.holders(&key).is_empty());
        let holder = observer.holder(&key);
        relay.break_connections();
        relay.set(ToClient, Flow::Pass);
        match acquiring.await.unwrap() {
            Ok(guard) => {
                assert!(granted);
                assert_ne!(observer.holder(&key), holder);
                assert!(guard.generation() > first.generation());
                guard.release().await.unwrap();
            }
            Err(error) => assert_eq!((granted, error.kind()), (false, Database)),
        }
        observer.wait_until_free(&key);
        assert_eq!(kind_of(first.release().await), Some(Lost));
    }
}
