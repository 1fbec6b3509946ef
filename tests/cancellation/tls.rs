//! Calls over TLS whose future is dropped.

use std::time::{Duration, Instant};

use ::tokio_postgres::Client;
use advisory_locking::backends::tokio_postgres::set_cancel_tls;
use advisory_locking::session::AsyncLockSession;
use advisory_locking::{AdvisoryLocking, AsyncAdvisoryLocking, LockKey, LockOptions, WaitStrategy};
use diesel::pg::PgConnection;
use testkit::cluster::ClusterGuard;
use testkit::observer::{LockEntry, Observe};
use testkit::server::{connect, connect_to, dropped_waits, fresh_key, url, with_parameters};
use testkit::timeouts::notices_disconnects;
use testkit::tls::accept_tls;
use tokio::task::{AbortHandle, JoinSet};

use crate::adapters::{Adapter, Borrowed, Call, Pooled, connect_async};
use crate::dropping::drop_everywhere;
use crate::pools::{Bb8, Deadpool, Mobc};
use crate::timeouts::race_time_outs_over_tls;
use crate::tokio_postgres::config;

async fn connect_client(url: &str) -> (Client, AbortHandle) {
    let (config, connector) = config(url);
    let (client, connection) = config.connect(connector).await.unwrap();
    (client, tokio::spawn(connection).abort_handle())
}

/// Waits on the server without a limit, and drops the call while it waits.
async fn drop_a_wait<C: AsyncLockSession>(
    conn: &mut C,
    key: &LockKey,
    observer: &mut PgConnection,
) {
    let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    let queued = |entries: &[LockEntry]| entries.len() == 2;
    tokio::select! {
        granted = conn.acquire_advisory_lock(key, options) => {
            panic!("granted though it is held: {:?}", granted.map(drop));
        }
        () = observer.wait_for(key, queued, "a waiter") => {}
    }
}

/// Asserts that a dropped wait leaves the queue, or that it stays there until its grant.
async fn assert_leaves(observer: &mut PgConnection, key: &LockKey, leaves: bool, what: &str) {
    if leaves {
        let alone = |entries: &[LockEntry]| entries.len() == 1;
        observer.wait_for(key, alone, what).await;
    } else {
        assert_eq!(observer.lock_entries(key).len(), 2, "{what}");
    }
}

/// The client sends no cancel request without a TLS connector. Then the server notices that the
/// connection was closed: soon since PostgreSQL 14, and at the grant before. With a connector, a
/// wait ends also on an open connection.
async fn drop_waits(server: &str, tls: &str, cancels: bool) {
    let (mut holder, mut observer, key) = (connect_to(server), connect_to(server), fresh_key());
    let leaves = cancels || notices_disconnects(&mut observer);
    let mut longest = Duration::ZERO;
    for _ in 0..dropped_waits() {
        let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
        let guard = guard.unwrap();
        let mut conn = connect_async(tls).await;
        drop_a_wait(&mut conn, &key, &mut observer).await;
        let open = Some(conn).filter(|_| cancels);
        let dropped = Instant::now();
        assert_leaves(&mut observer, &key, leaves, "AsyncPgConnection").await;
        longest = longest.max(dropped.elapsed());
        drop(open);
        guard.release().unwrap();
        observer.assert_free(&key, "the release").await;

        let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
        let guard = guard.unwrap();
        let (mut client, connection) = connect_client(tls).await;
        drop_a_wait(&mut client, &key, &mut observer).await;
        // A `Client` that is dropped leaves its connection open until the reply.
        if !cancels {
            connection.abort();
        }
        assert_leaves(&mut observer, &key, leaves, "Client").await;
        guard.release().unwrap();
        observer.assert_free(&key, "the release").await;
    }
    println!("TLS, with cancel requests: {cancels}, at most {longest:?}");
}

/// Without a connector, the pool closes the connection of a dropped wait.
async fn drop_a_wait_of_a_pool<A: Adapter>(server: &str, tls: &str) {
    let (mut holder, mut observer, key) = (connect_to(server), connect_to(server), fresh_key());
    let leaves = notices_disconnects(&mut observer);
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let guard = guard.unwrap();
    let mut pool = A::open(tls).await;
    let options = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    let queued = |entries: &[LockEntry]| entries.len() == 2;
    tokio::select! {
        granted = pool.call(Call::Acquire, &key, options) => panic!("{}: {granted:?}", A::NAME),
        () = observer.wait_for(&key, queued, "a waiter") => {}
    }
    assert_leaves(&mut observer, &key, leaves, A::NAME).await;
    pool.check().await;
    guard.release().unwrap();
    observer.assert_free(&key, A::NAME).await;
}

/// The connector that was set also serves connections to servers without TLS.
async fn drop_a_wait_without_tls() {
    let (mut holder, mut observer, key) = (connect(), connect(), fresh_key());
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let guard = guard.unwrap();
    let mut client = crate::tokio_postgres::connect(&url()).await;
    drop_a_wait(&mut client, &key, &mut observer).await;
    let alone = |entries: &[LockEntry]| entries.len() == 1;
    observer.wait_for(&key, alone, "still queued").await;
    guard.release().unwrap();
}

/// Calls that are dropped at every point, and timeouts that race with the grant.
async fn call_over_tls<A: Adapter + 'static>(server: String, tls: String) {
    drop_everywhere::<A>(&server, &tls).await;
    race_time_outs_over_tls::<A>(server, tls).await;
}

/// In one test, because the connector for cancel requests is one for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_over_tls_leave_nothing_behind() {
    let cluster = ClusterGuard::acquire();
    accept_tls(&cluster);
    let server = cluster.url();
    let tls = with_parameters(&server, "sslmode=require");
    drop_waits(&server, &tls, false).await;
    drop_a_wait_of_a_pool::<Pooled<Bb8>>(&server, &tls).await;
    drop_a_wait_of_a_pool::<Pooled<Deadpool>>(&server, &tls).await;
    drop_a_wait_of_a_pool::<Pooled<Mobc>>(&server, &tls).await;
    drop_a_wait_of_a_pool::<crate::tokio_postgres::Deadpool>(&server, &tls).await;
    let (_, connector) = config(&tls);
    set_cancel_tls(connector);
    drop_waits(&server, &tls, true).await;
    drop_a_wait_without_tls().await;

    let mut adapters = JoinSet::new();
    macro_rules! on_adapters {
        ($($adapter:ty,)*) => {$(
            adapters.spawn(call_over_tls::<$adapter>(server.clone(), tls.clone()));
        )*};
    }
    on_adapters!(
        Borrowed,
        Pooled<Bb8>,
        Pooled<Deadpool>,
        Pooled<Mobc>,
        crate::sea_orm::SeaOrm,
        crate::sqlx::Borrowed,
        crate::sqlx::Pooled,
        crate::tokio_postgres::Borrowed,
        crate::tokio_postgres::Bb8,
        crate::tokio_postgres::Deadpool,
    );
    adapters.join_all().await;
}
