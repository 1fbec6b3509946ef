//! Servers that stop, and networks that fall silent or lose messages.
#![allow(
    clippy::future_not_send,
    reason = "the guard of the private server stays on one thread"
)]

use std::time::Duration;

use advisory_locking::LockErrorKind::{HeldElsewhere, Lost, TimedOut};
use advisory_locking::LockMode::Exclusive;
use advisory_locking::WaitStrategy::Block;
use advisory_locking::lock_manager::LockManagerOptions;
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::proxy::{Policy, Proxy};
use testkit::server::{connect_to, eventually};
use tokio::time::timeout;

use super::{
    SHORT_KEEP_ALIVE, TIMEOUT, block, fresh_key, kind_of, no_wait, poll, within, without_keep_alive,
};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::PoolUnderTest;
use testkit::proxy::Direction::{ToClient, ToServer};

pub(crate) async fn the_server_restarts(pool_under_test: PoolUnderTest) {
    all_sessions_are_terminated(pool_under_test, "fast").await;
}

/// As [`the_server_restarts`], without an orderly shutdown.
pub(crate) async fn the_server_crashes(pool_under_test: PoolUnderTest) {
    all_sessions_are_terminated(pool_under_test, "immediate").await;
}

/// Holders report a loss, waiters of both strategies are served, and no lost lock is re-acquired.
async fn all_sessions_are_terminated(pool_under_test: PoolUnderTest, mode: &str) {
    let server = ClusterGuard::acquire();
    let pool_under_test = pool_under_test.on_server(server.url());
    let manager = pool_under_test
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let [held, polled, blocked] = [fresh_key(), fresh_key(), fresh_key()];
    let guard = manager.acquire(&held, no_wait()).await.unwrap();
    let (mut competitor, mut observer) = (
        CompetingSession::at(&pool_under_test.url),
        connect_to(&pool_under_test.url),
    );
    let waiting: Vec<_> = [(polled, poll()), (blocked.clone(), block())]
        .into_iter()
        .map(|(key, options)| {
            assert!(competitor.try_lock(&key, Exclusive));
            let acquiring = manager.spawn_acquire(&key, options);
            (key, options, acquiring)
        })
        .collect();
    observer.wait_until_waiters(&blocked, 1);

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
    let mut observer = connect_to(&pool_under_test.url);
    assert!(observer.is_free(&held), "re-acquired");
    assert_eq!(kind_of(guard.release().await), Some(Lost));
    let again = manager.acquire(&held, poll()).await.unwrap();
    again.release().await.unwrap();
}

fn behind_a_proxy(pool_under_test: &PoolUnderTest) -> (Proxy, PoolUnderTest) {
    let proxy = Proxy::to(&pool_under_test.url);
    let far = pool_under_test.on_server(proxy.url());
    (proxy, far)
}

/// The loss signal fires in time, while the lock is still held on the server.
pub(crate) async fn silence_under_a_holder(pool_under_test: PoolUnderTest) {
    let (proxy, far) = behind_a_proxy(&pool_under_test);
    let manager = far
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let holder = observer.holder(&key);
    proxy.fall_silent();
    eventually("news of the loss", || guard.is_lost());
    assert_eq!(observer.holders(&key), [holder]);
    let generation = guard.generation();
    assert_eq!(kind_of(guard.release().await), Some(Lost));

    // Waiters are served as soon as the server has ended the session.
    proxy.forward();
    let acquiring = manager.spawn_acquire(&key, poll());
    let noticed = format!("SELECT pg_terminate_backend({holder})");
    observer.run(&noticed);
    let again = acquiring.await.unwrap().unwrap();
    assert!(again.generation() > generation);
    again.release().await.unwrap();
    observer.wait_until_free(&key);
}

/// The waiter times out at its limit, at which the server ends the wait by itself.
pub(crate) async fn silence_under_a_waiter(pool_under_test: PoolUnderTest) {
    let (proxy, far) = behind_a_proxy(&pool_under_test);
    let manager = far.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let mut competitor = CompetingSession::holding(&key);
    let mut stalls = 0;
    let acquiring = loop {
        let acquiring = manager.spawn_acquire(&key, within(Duration::from_secs(5), Block));
        eventually("a waiter on the server, or its limit", || {
            acquiring.is_finished() || observer.waiters(&key).len() == 1
        });
        if !acquiring.is_finished() {
            break acquiring;
        }
        // On a stalled machine, the limit may pass first.
        assert_eq!(kind_of(acquiring.await.unwrap()), Some(TimedOut));
        stalls += 1;
        assert!(stalls < 10, "no waiter on the server");
    };
    proxy.fall_silent();
    assert_eq!(kind_of(acquiring.await.unwrap()), Some(TimedOut));
    observer.wait_until_waiters(&key, 0);
    competitor.unlock(&key);
    assert!(observer.is_free(&key));
}

/// The waiter polls on a session that is cut off. It is served on a new session long before its
/// limit.
pub(crate) async fn silence_under_a_poller(pool_under_test: PoolUnderTest) {
    let (proxy, far) = behind_a_proxy(&pool_under_test);
    let manager = far
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let other = manager.acquire(&fresh_key(), poll()).await.unwrap();
    proxy.fall_silent();
    proxy.set(ToServer, Policy::Discard);
    let acquiring = manager.spawn_acquire(&key, poll());
    proxy.wait_until_held(ToServer);
    proxy.forward();
    let guard = acquiring.await.unwrap().unwrap();
    assert!(guard.generation() > other.generation());
    guard.release().await.unwrap();
    observer.wait_until_free(&key);
    assert_eq!(kind_of(other.release().await), Some(Lost));
}

/// The pool returns an idle connection that was cut off, too, and does not check it.
pub(crate) async fn silent_idle_connection_is_replaced(pool_under_test: PoolUnderTest) {
    let (proxy, far) = behind_a_proxy(&pool_under_test);
    let pool = far.pool(2).await;
    // Opens both connections.
    pool.pids(2).await;
    let manager = pool.manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE));
    let guard = manager.acquire(&fresh_key(), no_wait()).await.unwrap();
    proxy.fall_silent();
    eventually("news of the loss", || guard.is_lost());
    proxy.forward();
    // Far within the limit: two keep-alives.
    let again = manager.acquire(&fresh_key(), poll()).await.unwrap();
    again.release().await.unwrap();
    assert_eq!(kind_of(guard.release().await), Some(Lost));
}

/// `close` ends although the server does not reply.
pub(crate) async fn close_does_not_await_a_silent_server(pool_under_test: PoolUnderTest) {
    let (proxy, far) = behind_a_proxy(&pool_under_test);
    let manager = far
        .manager(LockManagerOptions::new().keep_alive(SHORT_KEEP_ALIVE))
        .await;
    let guard = manager.acquire(&fresh_key(), no_wait()).await.unwrap();
    proxy.fall_silent();
    timeout(TIMEOUT, manager.close()).await.unwrap();
    assert_eq!(kind_of(guard.release().await), Some(Lost));
}

/// The connection breaks before the release reaches the server. The end of the session frees the
/// lock.
pub(crate) async fn a_lost_release(pool_under_test: PoolUnderTest) {
    let (proxy, far) = behind_a_proxy(&pool_under_test);
    let manager = far.manager(without_keep_alive()).await;
    let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let holder = observer.holder(&key);
    proxy.set(ToServer, Policy::Hold);
    let releasing = tokio::spawn(guard.release());
    proxy.wait_until_held(ToServer);
    assert_eq!(observer.holders(&key), [holder]);
    proxy.break_connections();
    assert_eq!(kind_of(releasing.await.unwrap()), Some(Lost));
    observer.wait_until_free(&key);
    proxy.set(ToServer, Policy::Forward);
    let again = manager.acquire(&key, poll()).await.unwrap();
    again.release().await.unwrap();
}

/// The server grants the lock, and the connection breaks before the reply. The lock is requested
/// again on a new session. For a request that does not wait, the ended session may still hold it.
pub(crate) async fn a_lost_grant(pool_under_test: PoolUnderTest) {
    let (proxy, far) = behind_a_proxy(&pool_under_test);
    let manager = far.manager(without_keep_alive()).await;
    for options in [poll(), no_wait()] {
        let (key, mut observer) = (fresh_key(), connect_to(&pool_under_test.url));
        // Opens the session.
        let first = manager.acquire(&fresh_key(), poll()).await.unwrap();
        proxy.set(ToClient, Policy::Hold);
        let acquiring = manager.spawn_acquire(&key, options);
        eventually("the grant", || !observer.holders(&key).is_empty());
        let holder = observer.holder(&key);
        proxy.break_connections();
        proxy.set(ToClient, Policy::Forward);
        match acquiring.await.unwrap() {
            Ok(guard) => {
                assert_ne!(observer.holder(&key), holder);
                assert!(guard.generation() > first.generation());
                guard.release().await.unwrap();
            }
            Err(error) => assert_eq!((options, error.kind()), (no_wait(), HeldElsewhere)),
        }
        observer.wait_until_free(&key);
        assert_eq!(kind_of(first.release().await), Some(Lost));
    }
}
