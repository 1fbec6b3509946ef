//! `detect_pooler`, and the reports without it.

use std::thread;
use std::time::Duration;

use advisory_locking::{
    AdvisoryLocking, AsyncPooledAdvisoryLocking, LockErrorKind, LockOptions, PooledAdvisoryLocking,
    PoolingMode, WaitStrategy,
};
use diesel::Connection;
use diesel::connection::{CacheSize, SimpleConnection};
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use testkit::observer::Observe;
use testkit::pending::drop_at;
use testkit::server::{connect, eventually, fresh_key, kind_of, url, with_parameters};
use testkit::temp::TempDatabase;

use crate::actor_async::on_runtime;
use crate::pooler::{Mode, Pooler};
use crate::unprepared::unprepared;

fn diesel_finds(url: &str) -> PoolingMode {
    let [mut first, mut second] = [url, url].map(|url| PgConnection::establish(url).unwrap());
    first.detect_pooler(&mut second).unwrap()
}

/// r2d2 tests each connection with a statement that Diesel would prepare under a name.
#[derive(Debug)]
struct Unprepared;

impl CustomizeConnection<PgConnection, diesel::r2d2::Error> for Unprepared {
    fn on_acquire(&self, conn: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
        conn.set_prepared_statement_cache_size(CacheSize::Disabled);
        Ok(())
    }
}

fn r2d2_finds(url: &str) -> PoolingMode {
    let pool = Pool::builder()
        .max_size(2)
        .connection_customizer(Box::new(Unprepared))
        .build(ConnectionManager::<PgConnection>::new(url))
        .unwrap();
    pool.detect_pooler().unwrap()
}

fn bb8_finds(url: &str) -> PoolingMode {
    let mut found = None;
    on_runtime(async {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
        let pool = bb8::Pool::builder()
            .max_size(2)
            .build(manager)
            .await
            .unwrap();
        found = Some(pool.detect_pooler().await.unwrap());
    });
    found.unwrap()
}

fn sea_orm_finds(url: &str) -> PoolingMode {
    let mut found = None;
    on_runtime(async {
        let mut options = sea_orm::ConnectOptions::new(url);
        options.max_connections(2).sqlx_logging(false);
        let db = sea_orm::Database::connect(options).await.unwrap();
        found = Some(db.detect_pooler().await.unwrap());
    });
    found.unwrap()
}

fn sqlx_finds(url: &str) -> PoolingMode {
    let mut found = None;
    on_runtime(async {
        let pool = sqlx::PgPool::connect(url).await.unwrap();
        found = Some(pool.detect_pooler().await.unwrap());
    });
    found.unwrap()
}

fn client_finds(url: &str) -> PoolingMode {
    let mut found = None;
    on_runtime(async {
        let manager = bb8_postgres::PostgresConnectionManager::new(
            url.parse().unwrap(),
            tokio_postgres::NoTls,
        );
        let pool = ::bb8::Pool::builder().max_size(2).build(manager).await;
        found = Some(pool.unwrap().detect_pooler().await.unwrap());
    });
    found.unwrap()
}

#[test]
fn session_mode_keeps_sessions() {
    let pooler = Pooler::start(Mode::Session, 4, "");
    assert_eq!(diesel_finds(&pooler.url()), PoolingMode::Dedicated);
    assert_eq!(r2d2_finds(&pooler.url()), PoolingMode::Dedicated);
    assert_eq!(bb8_finds(&pooler.url()), PoolingMode::Dedicated);
    assert_eq!(sea_orm_finds(&pooler.url()), PoolingMode::Dedicated);
    assert_eq!(sqlx_finds(&pooler.url()), PoolingMode::Dedicated);
    assert_eq!(client_finds(&pooler.url()), PoolingMode::Dedicated);
}

/// An idle pooler with one session and with several, in both of PgBouncer's orders of reuse.
#[test]
fn transaction_mode_is_detected() {
    for (sessions, settings) in [
        (1, ""),
        (4, ""),
        (4, "server_round_robin = 1"),
        (4, "server_reset_query_always = 1"),
    ] {
        let pooler = Pooler::start(Mode::Transaction, sessions, settings);
        warm(&pooler, sessions);
        assert_eq!(
            diesel_finds(&pooler.url()),
            PoolingMode::Multiplexed,
            "{sessions} {settings}"
        );
        assert_eq!(
            r2d2_finds(&pooler.url()),
            PoolingMode::Multiplexed,
            "{sessions} {settings}"
        );
        assert_eq!(
            client_finds(&pooler.url()),
            PoolingMode::Multiplexed,
            "{sessions} {settings}"
        );
    }
}

/// Opens all of the pooler's sessions.
fn warm(pooler: &Pooler, sessions: u32) {
    let mut clients: Vec<_> = (0..sessions).map(|_| unprepared(&pooler.url())).collect();
    for statement in ["BEGIN; SELECT 1", "COMMIT"] {
        for client in &mut clients {
            client.batch_execute(statement).unwrap();
        }
    }
}

#[test]
fn two_databases_do_not_exclude_each_other() {
    let database = TempDatabase::create();
    let (mut first, mut second) = (connect(), database.connect());
    assert_eq!(
        first.detect_pooler(&mut second).unwrap(),
        PoolingMode::DifferentServers
    );
}

/// An idle pooler uses one session for both clients, where the second lock is a further level of
/// the first. Only `detect_pooler` shows it.
#[test]
fn a_shared_session_is_unnoticed_without_detection() {
    let pooler = Pooler::start(Mode::Transaction, 2, "");
    let [mut first, mut second] = [(), ()].map(|()| unprepared(&pooler.url()));
    let key = fresh_key();
    let outer = first.acquire_advisory_lock(&key, LockOptions::no_wait());
    let inner = second.acquire_advisory_lock(&key, LockOptions::no_wait());
    inner.unwrap().release().unwrap();
    outer.unwrap().release().unwrap();
    let found = first.detect_pooler(&mut second).unwrap();
    let refused = found.require_dedicated_sessions().unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::SessionChanged);
}

/// The release runs on another session than the acquire.
#[test]
fn a_swapped_session_is_reported() {
    let pooler = Pooler::start(Mode::Transaction, 2, "");
    let [mut holder, mut other] = [(), ()].map(|()| unprepared(&pooler.url()));
    let key = fresh_key();
    let guard = holder
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .unwrap();
    // Occupies the session that holds the lock.
    other.batch_execute("BEGIN; SELECT 1").unwrap();
    let error = guard.release().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::SessionChanged, "{error}");
    assert!(error.is_lost());
    other.batch_execute("COMMIT").unwrap();
}

/// The clean-up after a wait runs on the session that holds the lock for another client.
#[test]
fn clean_up_after_a_wait_releases_no_other_lock() {
    let pooler = Pooler::start(Mode::Transaction, 2, "server_round_robin = 1");
    warm(&pooler, 2);
    let [mut holder, mut waiter, mut first, mut second] =
        [(); 4].map(|()| unprepared(&pooler.url()));
    let (key, mut observer) = (fresh_key(), connect());
    let guard = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
    let guard = guard.unwrap();
    let pid = guard.session_pid().map(i64::from).unwrap();
    // The limit is long enough as soon as the clean-up finds the session of the holder free.
    let ended = [1, 8, 64].into_iter().find(|seconds| {
        // Both sessions, of which only that without the lock is for the waiter.
        for client in [&mut first, &mut second] {
            client.batch_execute("BEGIN").unwrap();
        }
        if second.pid() != pid {
            std::mem::swap(&mut first, &mut second);
        }
        first.batch_execute("COMMIT").unwrap();
        let limit = LockOptions::wait_up_to(Duration::from_secs(*seconds));
        let options = limit.strategy(WaitStrategy::Block);
        let wait = || waiter.acquire_advisory_lock(&key, options).map(drop);
        thread::scope(|scope| {
            let waiting = scope.spawn(wait);
            // On a stalled machine, the limit may pass first.
            eventually("a waiter, or its limit", || {
                waiting.is_finished() || observer.waiters(&key).len() == 1
            });
            second.batch_execute("COMMIT").unwrap();
            kind_of(waiting.join().unwrap()) == Some(LockErrorKind::SessionChanged)
        })
    });
    assert!(ended.is_some(), "the clean-up reached the waiter's session");
    assert_eq!(observer.holders(&key), [pid]);
    drop(guard);
}

/// Dropped at each pending point: no test lock stays held, and the pool works.
#[test]
fn a_dropped_detection_leaves_nothing() {
    let name = format!("al_probe_{}", std::process::id());
    let url = with_parameters(&url(), &format!("application_name={name}"));
    let mut server = connect();
    let locks = format!(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE locktype = 'advisory' AND application_name = '{name}'"
    );
    let mut dropped = 0;
    on_runtime(async {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
        let pool = bb8::Pool::builder()
            .max_size(2)
            .build(manager)
            .await
            .unwrap();
        while drop_at(dropped + 1, pool.detect_pooler()).await.is_none() {
            dropped += 1;
            eventually("the release of the test locks", || {
                server.number(&locks) == 0
            });
        }
        assert_eq!(pool.detect_pooler().await.unwrap(), PoolingMode::Dedicated);
    });
    // A reply may arrive before the poll, so the number of points varies. The first one is the
    // checkout.
    assert!(dropped > 0, "never dropped");
    println!("dropped at {dropped} points");
}
