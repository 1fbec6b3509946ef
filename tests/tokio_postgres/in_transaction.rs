//! Locks in a `Transaction` of the application.

use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, LockErrorKind, LockOptions, WaitStrategy};
use testkit::observer::Observe;
use testkit::pending::drop_at;
use testkit::server::{connect as observer, fresh_key, fresh_name, kind_of};
use testkit::temp::{TempDatabase, TempRole};
use tokio_postgres::IsolationLevel;

use crate::open::{Error, connect, connect_to, deadpool};

#[tokio::test]
async fn transaction_holds_its_lock_until_it_ends() {
    let (key, mut observer) = (fresh_key(), observer());
    let (mut client, mut other) = (connect().await, connect().await);
    for commits in [true, false] {
        let mut tx = client.transaction().await.unwrap();
        tx.acquire_advisory_xact_lock(&key, LockOptions::no_wait())
            .await
            .unwrap();
        let refused = other.acquire_advisory_lock(&key, LockOptions::no_wait());
        assert_eq!(kind_of(refused.await), Some(LockErrorKind::HeldElsewhere));
        let ended = if commits {
            tx.commit().await
        } else {
            tx.rollback().await
        };
        ended.unwrap();
        assert_eq!(observer.lock_entries(&key), []);
    }
}

#[tokio::test]
async fn transaction_of_deadpool_holds_its_lock() {
    let (key, mut observer) = (fresh_key(), observer());
    let mut client = deadpool().await.get().await.unwrap();
    let mut tx = client.transaction().await.unwrap();
    let granted = tx.try_acquire_advisory_xact_lock(&key, LockOptions::no_wait());
    assert!(granted.await.unwrap());
    assert_eq!(observer.lock_entries(&key).len(), 1);
    tx.commit().await.unwrap();
    assert_eq!(observer.lock_entries(&key), []);
}

#[tokio::test]
async fn session_lock_in_a_transaction_is_refused() {
    let key = fresh_key();
    let mut client = connect().await;
    let mut tx = client.transaction().await.unwrap();
    let refused = tx.acquire_advisory_lock(&key, LockOptions::no_wait()).await;
    assert_eq!(kind_of(refused), Some(LockErrorKind::InTransaction));
    let allowed = LockOptions::no_wait().allow_in_transaction();
    let guard = tx.acquire_advisory_lock(&key, allowed).await.unwrap();
    guard.release().await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn every_kind_of_transaction_acquires_a_lock() {
    let (key, mut observer) = (fresh_key(), observer());
    let mut client = connect().await;
    for level in [
        IsolationLevel::ReadCommitted,
        IsolationLevel::RepeatableRead,
        IsolationLevel::Serializable,
    ] {
        for (read_only, deferrable) in [(false, false), (true, false), (true, true)] {
            let tx = client
                .build_transaction()
                .isolation_level(level)
                .read_only(read_only)
                .deferrable(deferrable)
                .start();
            let mut tx = tx.await.unwrap();
            let block = testkit::server::block();
            tx.acquire_advisory_xact_lock(&key, block).await.unwrap();
            assert_eq!(observer.lock_entries(&key).len(), 1, "{level:?}");
            tx.commit().await.unwrap();
            assert_eq!(observer.lock_entries(&key), []);
        }
    }
}

/// The options of the session also apply to the transactions that this crate begins.
#[tokio::test]
async fn lock_is_granted_in_a_deferrable_session() {
    let key = fresh_key();
    let mut client = connect().await;
    client
        .batch_execute(
            "SET default_transaction_isolation = 'serializable'; \
             SET default_transaction_read_only = on; SET default_transaction_deferrable = on",
        )
        .await
        .unwrap();
    let seen = client.with_advisory_xact_lock(&key, LockOptions::no_wait(), async |client| {
        let row = client.query_one("SHOW transaction_deferrable", &[]).await?;
        Ok::<String, Error>(row.get(0))
    });
    assert_eq!(seen.await.unwrap(), "on");
    let guard = client.acquire_advisory_lock(&key, LockOptions::no_wait());
    guard.await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn body_in_a_transaction_has_a_savepoint() {
    let (key, table) = (fresh_key(), fresh_name());
    let mut client = connect().await;
    let create = format!("CREATE TEMPORARY TABLE {table} (number int4)");
    client.batch_execute(&create).await.unwrap();
    let insert = format!("INSERT INTO {table} VALUES (1)");
    let mut tx = client.transaction().await.unwrap();
    let failed = tx
        .with_advisory_xact_lock(&key, LockOptions::no_wait(), async |tx| {
            tx.execute(&insert, &[]).await?;
            Err::<(), Error>("the body fails".into())
        })
        .await;
    assert_eq!(failed.unwrap_err().to_string(), "the body fails");
    tx.with_advisory_xact_lock(&key, LockOptions::no_wait(), async |tx| {
        tx.execute(&insert, &[]).await?;
        // A savepoint in the savepoint.
        tx.with_advisory_xact_lock(&key, LockOptions::no_wait(), async |tx| {
            tx.execute(&insert, &[]).await?;
            Ok::<_, Error>(())
        })
        .await
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let count = format!("SELECT count(*) FROM {table}");
    let count = client.query_one(&count, &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 2);
}

#[tokio::test]
async fn wait_that_times_out_leaves_the_transaction_usable() {
    let (key, mut observer) = (fresh_key(), observer());
    let mut client = connect().await;
    let mut other = connect().await;
    let held = other
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .await
        .unwrap();
    for strategy in [WaitStrategy::Block, WaitStrategy::Poll] {
        let wait = LockOptions::wait_up_to(Duration::from_millis(20)).strategy(strategy);
        let mut tx = client.transaction().await.unwrap();
        let waited = tx.acquire_advisory_xact_lock(&key, wait).await;
        assert_eq!(kind_of(waited), Some(LockErrorKind::TimedOut));
        assert_eq!(observer.lock_entries(&key).len(), 1, "the holder");
        let row = tx.query_one("SHOW lock_timeout", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "0");
        tx.commit().await.unwrap();
    }
    held.release().await.unwrap();
}

/// `Client::transaction` in a body begins no second transaction, and its commit ends the first.
#[tokio::test]
async fn clients_own_transaction_in_a_body_is_reported() {
    let (key, mut observer) = (fresh_key(), observer());
    let mut client = connect().await;
    let ended = client
        .with_advisory_xact_lock(&key, LockOptions::no_wait(), async |client| {
            let tx = client.transaction().await?;
            tx.execute("SELECT 1", &[]).await?;
            tx.commit().await?;
            Ok::<_, Error>(())
        })
        .await;
    let error = ended.unwrap_err();
    let error = advisory_locking::LockError::find(&*error).expect("a lock error");
    assert_eq!(error.kind(), LockErrorKind::NotHeld);
    assert_eq!(observer.lock_entries(&key), []);
}

/// The transaction was rolled back with its session, so the caller's commit must not succeed.
#[tokio::test]
async fn commit_after_a_dropped_request_fails_after_set_role() {
    let (role, key, mut client) = (TempRole::create(), fresh_key(), connect().await);
    let set_role = format!("SET ROLE {}", role.name());
    client.batch_execute(&set_role).await.unwrap();
    let mut tx = client.transaction().await.unwrap();
    let request = tx.acquire_advisory_xact_lock(&key, LockOptions::no_wait());
    assert!(drop_at(1, request).await.is_none());
    tx.commit().await.unwrap_err();
}

/// A database in which no role may end a session.
fn without_termination() -> TempDatabase {
    let database = TempDatabase::create();
    let revoke = "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_terminate_backend FROM PUBLIC";
    database.connect().run(revoke);
    database
}

/// The transaction was rolled back and the session goes on, so no statement may be committed alone.
#[tokio::test]
async fn transaction_in_a_session_that_goes_on_is_rejected() {
    let (database, login, key) = (without_termination(), TempRole::create(), fresh_key());
    let mut client = connect_to(&login.url(&database.url())).await;
    let mut tx = client.transaction().await.unwrap();
    let request = tx.acquire_advisory_xact_lock(&key, LockOptions::no_wait());
    assert!(drop_at(1, request).await.is_none());
    tx.batch_execute("SELECT 1").await.unwrap_err();
    assert!(database.connect().is_free(&key));
    tx.rollback().await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
}

/// A server that forbids the termination: the session goes on, with the role of the application.
#[tokio::test]
async fn session_that_cannot_be_ended_keeps_its_role() {
    let (database, login, role) = (
        without_termination(),
        TempRole::create(),
        TempRole::create(),
    );
    let grant = format!("GRANT {} TO {}", role.name(), login.name());
    database.connect().run(&grant);
    let mut client = connect_to(&login.url(&database.url())).await;
    let set_role = format!("SET ROLE {}", role.name());
    client.batch_execute(&set_role).await.unwrap();
    let mut tx = client.transaction().await.unwrap();
    let request = tx.acquire_advisory_xact_lock(fresh_key(), LockOptions::no_wait());
    assert!(drop_at(1, request).await.is_none());
    drop(tx);
    let row = client.query_one("SELECT current_user::text", &[]).await;
    assert_eq!(row.unwrap().get::<_, String>(0), role.name());
}
