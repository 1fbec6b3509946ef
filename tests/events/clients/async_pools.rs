//! Cases on each async pool.

use std::time::Duration;

use advisory_locking::session::AsyncLockPool;
use advisory_locking::{
    AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions,
};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool, mobc};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};
use sqlx::PgPool;
use testkit::observer::Observe;
use testkit::server::{connect, eventually_async, fresh_key, url};

use super::{
    CONTENDED, DROPPED, GRANTED, LIMITS, LOST, NOT_RELEASED, OVERDUE, QUEUED, RELEASE_FAILED,
    RELEASED, REQUESTED, TERMINATED, TIMED_OUT, WAITING, assert_events, assert_eventual_events,
    assert_eventual_warning, assert_scope, assert_spans, has_waited, run, send_in_body,
};
use crate::NO_WAIT;
use crate::recorder::{Event, events_of};

/// A client whose pool has async locks.
trait Client: AsyncLockPool + Sync {
    /// The event of a dropped guard.
    const DROPPED_GUARD: &str;

    /// The event of a dropped body in a transaction of the library.
    const DROPPED_TRANSACTION: &str = TERMINATED;

    async fn open() -> Self;

    /// Runs a statement, which fails if the session has ended.
    async fn run(session: &mut Self::Session) -> bool;
}

macro_rules! diesel_async_pools {
    ($($pool:ty: $open:expr;)*) => {$(
        impl Client for $pool {
            // diesel-async does not show the reply to a message whose future was dropped.
            const DROPPED_GUARD: &str = QUEUED;

            async fn open() -> Self {
                let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
                ($open)(manager).await
            }

            async fn run(session: &mut AsyncPgConnection) -> bool {
                session.batch_execute("SELECT 1").await.is_ok()
            }
        }
    )*};
}

diesel_async_pools! {
    bb8::Pool<AsyncPgConnection>: async |manager| {
        bb8::Pool::builder().max_size(2).build(manager).await.unwrap()
    };
    deadpool::Pool<AsyncPgConnection>: async |manager| {
        deadpool::Pool::builder(manager).max_size(2).build().unwrap()
    };
    mobc::Pool<AsyncPgConnection>: async |manager| {
        mobc::Pool::builder().max_open(2).build(manager)
    };
}

impl Client for deadpool_postgres::Pool {
    const DROPPED_GUARD: &str = QUEUED;

    async fn open() -> Self {
        let config = url().parse().unwrap();
        let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
        Self::builder(manager).max_size(2).build().unwrap()
    }

    async fn run(session: &mut Self::Session) -> bool {
        session.batch_execute("SELECT 1").await.is_ok()
    }
}

impl Client for DatabaseConnection {
    const DROPPED_GUARD: &str = RELEASED;

    async fn open() -> Self {
        let mut options = ConnectOptions::new(url());
        options.max_connections(2).sqlx_logging(false);
        Database::connect(options).await.unwrap()
    }

    async fn run(session: &mut Self::Session) -> bool {
        session.execute_unprepared("SELECT 1").await.is_ok()
    }
}

impl Client for PgPool {
    // sqlx reads the reply when the connection returns to the pool.
    const DROPPED_GUARD: &str = QUEUED;
    const DROPPED_TRANSACTION: &str = QUEUED;

    async fn open() -> Self {
        Self::connect(&url()).await.unwrap()
    }

    async fn run(session: &mut Self::Session) -> bool {
        // The first statement returns the server's error, the second one sees the closed socket.
        for _ in 0..2 {
            let ran = sqlx::query("SELECT 1").execute(&mut **session).await;
            if ran.is_ok() {
                return true;
            }
        }
        false
    }
}

async fn release_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    guard.release().await.unwrap();
    assert_events(&key, &[REQUESTED, GRANTED, RELEASED]);
}

async fn dropped_guard_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    drop(pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap());
    connect().assert_free(&key, "the drop").await;
    assert_eventual_events(&key, &[REQUESTED, GRANTED, P::DROPPED_GUARD]);
}

async fn dropped_body_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let body = async |_: &mut P::Session| -> Result<(), LockError> { std::future::pending().await };
    let call = pool.with_advisory_lock(&key, NO_WAIT, body);
    tokio::select! {
        result = call => panic!("{result:?}"),
        () = granted(&key) => {}
    }
    assert_eventual_events(&key, &[REQUESTED, GRANTED, P::DROPPED_GUARD]);
    let key = fresh_key();
    let call = pool.with_advisory_xact_lock(&key, NO_WAIT, body);
    tokio::select! {
        result = call => panic!("{result:?}"),
        () = granted(&key) => {}
    }
    assert_events(&key, &[REQUESTED, GRANTED, P::DROPPED_TRANSACTION]);
}

/// Waits for the event of the grant.
async fn granted(key: &LockKey) {
    let is_grant = |event: &Event| event.message() == GRANTED;
    eventually_async("the grant", || events_of(key).iter().any(is_grant)).await;
}

async fn end_of_a_transaction_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    pool.with_advisory_xact_lock(&key, NO_WAIT, async |_| Ok::<_, LockError>(()))
        .await
        .unwrap();
    let error = || LockError::new(LockErrorKind::Closed);
    let body = async |_: &mut P::Session| -> Result<(), LockError> { Err(error()) };
    pool.with_advisory_xact_lock(&key, NO_WAIT, body)
        .await
        .unwrap_err();
    assert_events(&key, &[[REQUESTED, GRANTED, RELEASED]; 2].concat());
    assert_scope(&key, "transaction");
}

async fn contention_and_limit_are_logged<P: Client>() {
    let (pool, mut waited) = (P::open().await, false);
    for limit in LIMITS {
        let key = fresh_key();
        let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        pool.acquire_advisory_lock(&key, limit).await.unwrap_err();
        guard.release().await.unwrap();
        waited = has_waited(&key);
        if waited {
            let events = [REQUESTED, GRANTED, REQUESTED, WAITING, TIMED_OUT, RELEASED];
            assert_events(&key, &events);
            break;
        }
    }
    assert!(waited, "each limit passed before the wait");
    let key = fresh_key();
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let refused = pool.try_acquire_advisory_lock(&key, NO_WAIT).await;
    assert!(refused.unwrap().is_none());
    let wait = LockOptions::wait_forever();
    let waiting = pool.acquire_advisory_lock(&key, wait);
    let mut waiting = Box::pin(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("granted"),
        () = waits(&key) => {}
    }
    drop(waiting);
    guard.release().await.unwrap();
    assert_events(
        &key,
        &[
            REQUESTED, GRANTED, REQUESTED, CONTENDED, REQUESTED, WAITING, DROPPED, RELEASED,
        ],
    );
}

/// Waits until a request waits.
async fn waits(key: &LockKey) {
    eventually_async("a wait", || has_waited(key)).await;
}

async fn body_runs_in_a_span<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let body = async |_: &mut P::Session| {
        // The span is entered at each poll.
        tokio::time::sleep(Duration::from_millis(1)).await;
        send_in_body(&key);
        Ok::<_, LockError>(())
    };
    pool.with_advisory_lock(&key, NO_WAIT, body).await.unwrap();
    assert_spans(&key);
    let key = fresh_key();
    let body = async |_: &mut P::Session| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        send_in_body(&key);
        Ok::<_, LockError>(())
    };
    pool.with_advisory_xact_lock(&key, NO_WAIT, body)
        .await
        .unwrap();
    assert_spans(&key);
}

/// The warning appears while the body runs, and not for a hold that ended before.
async fn long_hold_is_warned_about<P: Client>() {
    let (pool, key, soon) = (P::open().await, fresh_key(), Duration::from_millis(1));
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT.warn_after(soon));
    let guard = guard.await.unwrap();
    assert_eventual_warning(&key);
    guard.release().await.unwrap();
    let late = NO_WAIT.warn_after(Duration::from_secs(3600));
    let body = async |_: &mut P::Session| Ok::<_, LockError>(());
    pool.with_advisory_lock(&key, late, body).await.unwrap();
    let warned = [REQUESTED, GRANTED, OVERDUE, RELEASED];
    assert_events(
        &key,
        &[&warned[..], &[REQUESTED, GRANTED, RELEASED]].concat(),
    );
    let key = fresh_key();
    let body = async |_: &mut P::Session| {
        assert_eventual_warning(&key);
        Ok::<_, LockError>(())
    };
    let options = NO_WAIT.warn_after(soon);
    pool.with_advisory_xact_lock(&key, options, body)
        .await
        .unwrap();
    assert_events(&key, &warned);
}

async fn lost_lock_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    connect().terminate_holder(&key);
    assert!(guard.release().await.unwrap_err().is_lost());
    assert_events(&key, &[REQUESTED, GRANTED, LOST]);
}

async fn lost_lock_of_a_dropped_guard_is_an_error<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    connect().terminate_holder(&key);
    // The client learns of the end of the session: first from the server's error, which precedes
    // the end of the connection.
    for _ in 0..2 {
        assert!(!P::run(&mut guard).await);
    }
    drop(guard);
    assert_eventual_events(&key, &[REQUESTED, GRANTED, LOST, RELEASE_FAILED]);
}

/// SeaORM's adapter reads the reply. No other one does.
#[test]
fn failed_release_of_a_dropped_guard_is_logged() {
    run(async {
        let db = DatabaseConnection::open().await;
        for (statement, ended) in [
            ("SELECT pg_advisory_unlock_all()", LOST),
            ("BEGIN; SELECT txid_current()", NOT_RELEASED),
        ] {
            let key = fresh_key();
            let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
            guard.execute_unprepared(statement).await.unwrap();
            drop(guard);
            assert_eventual_events(&key, &[REQUESTED, GRANTED, ended, RELEASE_FAILED]);
            connect().assert_free(&key, "the end of the session").await;
        }
    });
}

macro_rules! on_every_client {
    ($($case:ident),*) => {
        on_every_client!(@ through_bb8, bb8::Pool<AsyncPgConnection>, $($case),*);
        on_every_client!(@ through_deadpool, deadpool::Pool<AsyncPgConnection>, $($case),*);
        on_every_client!(@ through_mobc, mobc::Pool<AsyncPgConnection>, $($case),*);
        on_every_client!(@ through_sea_orm, DatabaseConnection, $($case),*);
        on_every_client!(@ through_sqlx, PgPool, $($case),*);
        on_every_client!(@ through_tokio_postgres, deadpool_postgres::Pool, $($case),*);
    };
    (@ $module:ident, $pool:ty, $($case:ident),*) => {
        mod $module {
            use super::*;

            $(
                #[test]
                fn $case() {
                    run(super::$case::<$pool>());
                }
            )*
        }
    };
}

on_every_client!(
    release_is_logged,
    dropped_guard_is_logged,
    dropped_body_is_logged,
    end_of_a_transaction_is_logged,
    contention_and_limit_are_logged,
    body_runs_in_a_span,
    long_hold_is_warned_about,
    lost_lock_is_logged,
    lost_lock_of_a_dropped_guard_is_an_error
);
