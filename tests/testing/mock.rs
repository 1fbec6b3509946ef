//! A mock of SeaORM that plays PostgreSQL.

use advisory_locking::testing::{Event, TestLocks};
use advisory_locking::{
    AsyncPooledAdvisoryLocking, AsyncTransactionAdvisoryLocking, LockErrorKind,
};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, MockDatabase, MockExecResult,
    TransactionTrait,
};

use crate::{QUIET, kind};

fn mock() -> DatabaseConnection {
    let results = [(); 8].map(|()| MockExecResult {
        last_insert_id: 0,
        rows_affected: 1,
    });
    MockDatabase::new(DatabaseBackend::Postgres)
        .append_exec_results(results)
        .into_connection()
}

#[tokio::test]
async fn mock_of_postgresql_is_the_no_op_in_a_test() {
    let (db, locks) = (mock(), TestLocks::enter());
    let synced = db.with_advisory_lock("key", QUIET, async |db| {
        let result = db.execute_unprepared("UPDATE a SET b = 1").await?;
        Ok::<_, DbErr>(result.rows_affected())
    });
    assert_eq!(synced.await.unwrap(), 1);
    db.with_advisory_xact_lock("key", QUIET, async |db| {
        db.execute_unprepared("UPDATE a SET b = 2").await
    })
    .await
    .unwrap();
    // A transaction of the body, whose lock has a scope of its own.
    db.with_advisory_lock("outer", QUIET, async |db| {
        let tx = db.begin().await?;
        tx.acquire_advisory_xact_lock("key", QUIET).await?;
        tx.commit().await
    })
    .await
    .unwrap();
    let (acquired, released) = (Event::acquired("key"), Event::released("key"));
    assert_eq!(
        locks.events(),
        [
            acquired.clone(),
            released.clone(),
            acquired.clone().in_transaction(),
            released.in_transaction(),
            Event::acquired("outer"),
            acquired.in_transaction(),
            Event::released("outer"),
        ]
    );
    // The statements of locks do not reach the mock.
    drop(locks);
    let log = format!("{:?}", db.into_transaction_log());
    assert!(
        log.contains("UPDATE a SET b = 2") && !log.contains("advisory"),
        "{log}"
    );
}

#[tokio::test]
async fn contention_reaches_code_with_a_mock() {
    let (db, locks) = (mock(), TestLocks::enter());
    let _other = locks.hold_from_other_session("key");
    let refused = db.try_acquire_advisory_lock("key", QUIET).await.unwrap();
    assert!(refused.is_none());
    let refused = db.try_with_advisory_xact_lock("key", QUIET, async |db| {
        db.execute_unprepared("UPDATE a SET b = 3").await
    });
    assert!(refused.await.unwrap().is_none());
}

#[tokio::test]
async fn mock_of_postgresql_is_refused_outside_a_test() {
    let outcome = mock().acquire_advisory_lock("key", QUIET).await;
    assert_eq!(kind(outcome), LockErrorKind::Unsupported);
}
