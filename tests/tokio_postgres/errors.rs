//! Errors, closed connections and closed pools.

use std::ops::DerefMut;
use std::time::Duration;

use advisory_locking::session::AsyncLockSession;
use advisory_locking::{
    AsyncAdvisoryLockGuard, AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError,
    LockErrorKind, LockKey, LockOptions,
};
use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::Observe;
use testkit::server::{TIMEOUT, connect as observer, fresh_key, fresh_name, kind_of, url};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::open::{Error, connect, connect_to, deadpool};

/// The application's error contains that of the lock, whose source is that of the client.
#[tokio::test]
async fn lock_error_is_found_in_the_applications_error() {
    let key = fresh_key();
    let (mut client, mut other) = (connect().await, connect().await);
    let held = other
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .await
        .unwrap();
    let refused = client
        .with_advisory_lock(&key, LockOptions::no_wait(), async |_| Ok::<_, Error>(()))
        .await;
    let error = refused.unwrap_err();
    let found = LockError::find(&*error).map(LockError::kind);
    assert_eq!(found, Some(LockErrorKind::HeldElsewhere));
    held.release().await.unwrap();
}

/// Ends the session of a guard, which must learn of it without a statement.
async fn end_session_of<C>(mut guard: AsyncAdvisoryLockGuard<C>)
where
    C: DerefMut<Target: AsyncLockSession + Sized> + Send,
{
    assert!(!guard.is_lost());
    let key = guard.key().clone();
    observer().terminate_holder(&key);
    let learns = async {
        while !guard.is_lost() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, learns).await.unwrap();
    assert_eq!(kind_of(guard.release().await), Some(LockErrorKind::Lost));
}

#[tokio::test]
async fn guard_learns_of_a_closed_connection() {
    let (mut client, pool, key) = (connect().await, deadpool().await, fresh_key());
    let guard = client.acquire_advisory_lock(&key, LockOptions::no_wait());
    end_session_of(guard.await.unwrap()).await;
    let guard = pool.acquire_advisory_lock(&key, LockOptions::no_wait());
    end_session_of(guard.await.unwrap()).await;
}

/// Runs a transaction whose commit violates a constraint, and asserts its error.
async fn fail_a_commit(client: &mut Client, key: &LockKey) {
    let table = fresh_name();
    let create = format!(
        "CREATE TEMPORARY TABLE {table} (number int4 UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    );
    client.batch_execute(&create).await.unwrap();
    let failed = client
        .with_advisory_xact_lock(key, LockOptions::no_wait(), async |client| {
            let insert = format!("INSERT INTO {table} VALUES (1), (1)");
            client
                .batch_execute(&insert)
                .await
                .map_err(|error| LockError::new(LockErrorKind::Database).with_source(error))
        })
        .await;
    let error = failed.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::CommitFailed);
    let error = error.into_client_error::<tokio_postgres::Error>().unwrap();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
}

#[tokio::test]
async fn failed_commit_is_the_clients_error() {
    let (mut client, key) = (connect().await, fresh_key());
    fail_a_commit(&mut client, &key).await;
    // The connection stays usable.
    let guard = client.acquire_advisory_lock(&key, LockOptions::no_wait());
    guard.await.unwrap().release().await.unwrap();
}

/// The server rejects the commit, and ends the session right after that.
#[tokio::test]
async fn rejected_commit_on_an_ended_session_is_a_failed_one() {
    let server = FakeServer::start([Rule::end_session_after("COMMIT", "57P01")]);
    let (mut client, key) = (connect_to(&server.url()).await, fresh_key());
    fail_a_commit(&mut client, &key).await;
    observer().assert_free(&key, "the end of the session").await;
}

/// The task that polls the `Connection` has ended, so the client can send nothing.
#[tokio::test]
async fn client_without_its_connection_task_fails() {
    let (mut client, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
    let task = tokio::spawn(connection);
    task.abort();
    let _ = task.await;
    let failed = client.acquire_advisory_lock(fresh_key(), LockOptions::no_wait());
    assert_eq!(kind_of(failed.await), Some(LockErrorKind::Database));
    let failed = client.with_advisory_xact_lock(fresh_key(), LockOptions::no_wait(), async |_| {
        Ok::<_, LockError>(())
    });
    assert_eq!(kind_of(failed.await), Some(LockErrorKind::Database));
    let failed = client.advisory_lock_holders(fresh_key()).await;
    assert_eq!(kind_of(failed), Some(LockErrorKind::Database));
}

#[tokio::test]
async fn closed_pool_is_a_pool_error() {
    let pool = deadpool().await;
    pool.close();
    let refused = pool.acquire_advisory_lock(fresh_key(), LockOptions::no_wait());
    assert_eq!(kind_of(refused.await), Some(LockErrorKind::Pool));
}

/// A terminated session never returns to its pool as a usable one.
#[tokio::test]
async fn pool_replaces_a_terminated_session() {
    let (key, mut observer) = (fresh_key(), observer());
    let pool = deadpool().await;
    let failed = pool
        .with_advisory_lock(&key, LockOptions::no_wait(), async |client| {
            client
                .batch_execute("BEGIN; CREATE TEMPORARY TABLE written ()")
                .await?;
            Ok::<_, Error>(())
        })
        .await;
    let error = failed.unwrap_err();
    let kind = LockError::find(&*error).map(LockError::kind);
    assert_eq!(kind, Some(LockErrorKind::TransactionLeftOpen));
    // With the pool's default, which sends nothing to check a connection.
    let client = pool.get().await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    observer.wait_until_free(&key);
}

/// The pool discards the state of each session that it hands out again, and the session loses its
/// prepared statements.
#[tokio::test]
async fn discard_all_of_a_pool_affects_no_lock() {
    let config = deadpool_postgres::ManagerConfig {
        recycling_method: deadpool_postgres::RecyclingMethod::Custom("DISCARD ALL".to_owned()),
    };
    let manager = deadpool_postgres::Manager::from_config(url().parse().unwrap(), NoTls, config);
    let pool = deadpool_postgres::Pool::builder(manager)
        .max_size(1)
        .build();
    let (pool, mut observer, key) = (pool.unwrap(), observer(), fresh_key());
    let session = pid(&pool.get().await.unwrap()).await;
    for _ in 0..3 {
        let guard = pool.acquire_advisory_lock(&key, LockOptions::no_wait());
        let guard = guard.await.unwrap();
        assert!(!observer.is_free(&key));
        guard.release().await.unwrap();
        assert!(observer.is_free(&key));
    }
    // The loop has found lost statements, so none is prepared in a transaction.
    for _ in 0..3 {
        let done = pool.with_advisory_xact_lock(&key, LockOptions::no_wait(), async |client| {
            let inner = (fresh_key(), LockOptions::no_wait());
            client.acquire_advisory_xact_lock(inner.0, inner.1).await
        });
        done.await.unwrap();
    }
    assert_eq!(pid(&pool.get().await.unwrap()).await, session);
}

/// The session keeps the lock, which the release prepares its statement for again.
#[tokio::test]
async fn deallocated_statements_affect_no_release() {
    let (pool, key) = (deadpool().await, fresh_key());
    for _ in 0..2 {
        let done = pool.with_advisory_lock(&key, LockOptions::no_wait(), async |client| {
            client.batch_execute("DEALLOCATE ALL").await?;
            Ok::<_, Error>(())
        });
        done.await.unwrap();
        assert!(observer().is_free(&key));
    }
}

async fn pid(client: &Client) -> i32 {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
    row.unwrap().get(0)
}
