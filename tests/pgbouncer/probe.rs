//! The probe, and what is known without it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use advisory_locking::{
    AdvisoryLocking, AsyncPooledAdvisoryLocking, LockErrorKind, LockOptions, PooledAdvisoryLocking,
    PoolingMode,
};
use diesel::connection::{CacheSize, SimpleConnection};
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::{Connection, sql_query};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};

use crate::actor_async::on_runtime;
use crate::clients::unprepared;
use crate::harness::postgres::Number;
use crate::pooler::{Mode, Pooler, server_url};

fn fresh_key() -> advisory_locking::LockKey {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    advisory_locking::KeyNamespace::new("pgbouncer")
        .within(std::process::id())
        .key(number)
}

fn diesel_finds(url: &str) -> PoolingMode {
    let [mut first, mut second] = [url, url].map(|url| PgConnection::establish(url).unwrap());
    first.detect_pooler(&mut second).unwrap()
}

/// r2d2 asks each connection whether it lives, by a statement that Diesel would prepare under a name.
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

#[test]
fn a_direct_connection_keeps_its_session() {
    let url = server_url();
    assert_eq!(diesel_finds(&url), PoolingMode::Dedicated);
    assert_eq!(r2d2_finds(&url), PoolingMode::Dedicated);
    assert_eq!(bb8_finds(&url), PoolingMode::Dedicated);
    assert_eq!(sea_orm_finds(&url), PoolingMode::Dedicated);
}

#[test]
fn session_mode_keeps_sessions() {
    let pooler = Pooler::start(Mode::Session, 4, "");
    assert_eq!(diesel_finds(&pooler.url()), PoolingMode::Dedicated);
    assert_eq!(r2d2_finds(&pooler.url()), PoolingMode::Dedicated);
    assert_eq!(bb8_finds(&pooler.url()), PoolingMode::Dedicated);
    assert_eq!(sea_orm_finds(&pooler.url()), PoolingMode::Dedicated);
}

/// Idle and alone, with one session and with several, dealt out in either of PgBouncer's two orders.
#[test]
fn transaction_mode_is_found() {
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
    }
}

/// Opens all of the pooler's sessions, so that they are there to be dealt out.
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
    let mut first = PgConnection::establish(&server_url()).unwrap();
    let server = server_url();
    let (path, _) = server.rsplit_once('/').unwrap();
    let mut second = PgConnection::establish(&format!("{path}/postgres")).unwrap();
    assert_eq!(
        first.detect_pooler(&mut second).unwrap(),
        PoolingMode::DifferentServers
    );
}

/// What DESIGN.md says is left: an idle pooler gives both clients one session, where the second lock is one level more of the first. The
/// probe is for this.
#[test]
fn two_clients_that_meet_in_one_session_are_not_noticed_without_the_probe() {
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

/// Another session answers the release than the one that was granted the lock.
#[test]
fn a_session_that_was_exchanged_is_reported() {
    let pooler = Pooler::start(Mode::Transaction, 2, "");
    let [mut holder, mut other] = [(), ()].map(|()| unprepared(&pooler.url()));
    let key = fresh_key();
    let guard = holder
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .unwrap();
    // Takes the session that the lock is on.
    other.batch_execute("BEGIN; SELECT 1").unwrap();
    let error = guard.release().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::SessionChanged, "{error}");
    assert!(error.is_lost());
    other.batch_execute("COMMIT").unwrap();
}

/// Dropped at every point where it waits for the server: no lock of the probe stays, and the pool gives new connections.
#[test]
fn a_dropped_probe_leaves_nothing() {
    let name = format!("al_probe_{}", std::process::id());
    let url = format!("{}?application_name={name}", server_url());
    let mut server = PgConnection::establish(&server_url()).unwrap();
    let locks = format!(
        "SELECT count(*) AS number FROM pg_locks JOIN pg_stat_activity USING (pid) \
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
        while polled(pool.detect_pooler(), dropped + 1).await.is_none() {
            dropped += 1;
            let began = Instant::now();
            let mut held = || {
                let row = diesel::RunQueryDsl::get_result::<Number>(sql_query(&locks), &mut server);
                row.unwrap().number.unwrap()
            };
            while held() > 0 {
                assert!(
                    began.elapsed() < Duration::from_secs(20),
                    "a lock stays after {dropped} polls"
                );
            }
        }
        assert_eq!(pool.detect_pooler().await.unwrap(), PoolingMode::Dedicated);
    });
    // How many points there are is a matter of luck, for an answer may be there already. At the first one there is no connection yet.
    assert!(dropped > 0, "the probe was never dropped");
    println!("dropped at {dropped} points");
}

/// Polls a future so many times, then drops it. Its output if it was done by then.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            left -= 1;
            if left == 0 {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        }
    })
    .await
}
