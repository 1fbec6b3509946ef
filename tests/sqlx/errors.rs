//! Errors, closed connections and closed pools.

use std::time::Duration;

use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, OnMissingLock,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Error, SqlitePool};
use testkit::gate::Gate;
use testkit::observer::Observe;
use testkit::server::{connect as observer, fresh_key, fresh_name, kind_of, url, with_parameters};

use crate::{NO_WAIT, connect, pid, pool_of};

/// The client's error in a lock error.
fn cause(error: &LockError) -> &Error {
    let source = std::error::Error::source(error).unwrap();
    source.downcast_ref().unwrap()
}

#[tokio::test]
async fn lock_error_converts_to_the_clients_error() {
    let key = fresh_key();
    let (mut conn, mut other) = (connect().await, connect().await);
    let held = other.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let refused = conn
        .with_advisory_lock(&key, NO_WAIT, async |conn| {
            sqlx::query("SELECT 1").execute(conn).await
        })
        .await;
    let error = refused.unwrap_err();
    let found = LockError::find(&error).map(LockError::kind);
    assert_eq!(found, Some(LockErrorKind::HeldElsewhere));
    let Error::Encode(boxed) = error else {
        panic!("{error:?}")
    };
    assert!(boxed.is::<LockError>());
    held.release().await.unwrap();
}

#[tokio::test]
async fn missing_lock_on_sqlite_converts_too() {
    let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
    let strict = NO_WAIT.on_missing_lock(OnMissingLock::Error);
    let refused = pool
        .with_advisory_lock(fresh_key(), strict, async |conn| {
            sqlx::query("SELECT 1").execute(conn).await
        })
        .await;
    let error = refused.unwrap_err();
    let found = LockError::find(&error).map(LockError::kind);
    assert_eq!(found, Some(LockErrorKind::NoMutualExclusion));
}

#[tokio::test]
async fn failed_commit_is_the_clients_error() {
    let (key, table) = (fresh_key(), fresh_name());
    let mut conn = connect().await;
    let create = format!(
        "CREATE TEMPORARY TABLE {table} (number int4 UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    );
    let create = sqlx::raw_sql(AssertSqlSafe(create));
    create.execute(&mut conn).await.unwrap();
    let failed = conn
        .with_advisory_xact_lock(&key, NO_WAIT, async |conn| {
            let insert = format!("INSERT INTO {table} VALUES (1), (1)");
            sqlx::raw_sql(AssertSqlSafe(insert)).execute(conn).await
        })
        .await;
    let error = failed.unwrap_err();
    let code = error.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("23505"));
    // The connection stays usable.
    let guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    guard.release().await.unwrap();
}

#[tokio::test]
async fn closed_pool_is_a_pool_error() {
    let pool = pool_of(1).await;
    pool.close().await;
    let refused = pool.acquire_advisory_lock(fresh_key(), NO_WAIT).await;
    let error = refused.map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Pool);
    assert!(matches!(cause(&error), Error::PoolClosed), "{error:?}");
}

#[tokio::test]
async fn checkout_timeout_is_a_pool_error() {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(200))
        .connect_lazy(&url())
        .unwrap();
    let only = loop {
        // A loaded machine may need longer to open the connection.
        if let Ok(conn) = pool.acquire().await {
            break conn;
        }
    };
    let refused = pool.acquire_advisory_lock(fresh_key(), NO_WAIT).await;
    let error = refused.map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Pool);
    assert!(matches!(cause(&error), Error::PoolTimedOut), "{error:?}");
    drop(only);
}

/// The test server has no TLS. Without sqlx's feature for TLS, its error has the same variant.
#[tokio::test]
async fn required_tls_that_is_missing_is_a_pool_error() {
    let url = with_parameters(&url(), "sslmode=require");
    let pool = sqlx::PgPool::connect_lazy(&url).unwrap();
    let refused = pool.acquire_advisory_lock(fresh_key(), NO_WAIT).await;
    let error = refused.map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Pool);
    assert!(matches!(cause(&error), Error::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn session_that_ended_while_idle_is_an_error() {
    let (mut conn, key) = (connect().await, fresh_key());
    let ended = pid(&mut conn).await;
    observer().terminate(ended);
    let refused = conn.acquire_advisory_lock(&key, NO_WAIT).await;
    assert_eq!(kind_of(refused.map(drop)), Some(LockErrorKind::Database));
}

#[tokio::test]
async fn pool_replaces_a_session_that_ended_while_idle() {
    let (pool, key) = (pool_of(1).await, fresh_key());
    let ended = pid(&mut pool.acquire().await.unwrap()).await;
    observer().terminate(ended);
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    assert_ne!(pid(&mut guard).await, ended);
    guard.release().await.unwrap();
}

/// A statement fails after its future was dropped: the release succeeds.
#[tokio::test]
async fn error_of_a_dropped_statement_is_not_the_releases() {
    let (mut conn, key) = (connect().await, fresh_key());
    let (mut gate, mut observer) = (Gate::closed(), observer());
    let failing = "SELECT 1 / (count(*) - 1) FROM ";
    let failing = gate.statement().replacen("SELECT ", failing, 1);
    let mut guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let failing = sqlx::query(AssertSqlSafe(failing)).execute(&mut *guard);
    gate.drop_there(&mut observer, failing).await;
    gate.open();
    guard.release().await.unwrap();
    observer.assert_free(&key, "the release").await;
}
