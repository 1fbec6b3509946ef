//! A mock of SQLite, whose log shows the transactions of a body.

use std::mem;

use advisory_locking::{AsyncPooledAdvisoryLocking, LockErrorKind};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, MockDatabase, MockExecResult,
    TransactionTrait,
};

use crate::errors::kind;
use crate::open::NO_WAIT;

fn mock() -> DatabaseConnection {
    MockDatabase::new(DatabaseBackend::Sqlite)
        .append_exec_results([(); 8].map(|()| MockExecResult::default()))
        .into_connection()
}

/// Returns the statements that the mock has recorded, by transaction.
fn log(db: DatabaseConnection) -> Vec<Vec<String>> {
    let log = db.into_transaction_log();
    let texts = log.iter().map(|transaction| {
        let statements = transaction.statements().iter();
        statements.map(|statement| statement.sql.clone()).collect()
    });
    texts.collect()
}

/// Without a task: the log is read as soon as the call has returned.
#[tokio::test]
async fn dropped_transaction_is_rolled_back_at_once_on_a_mock() {
    let db = mock();
    db.with_advisory_lock("key", NO_WAIT, async |db| {
        let tx = db.begin().await?;
        tx.execute_unprepared("UPDATE a").await?;
        drop(tx);
        db.execute_unprepared("UPDATE b").await?;
        drop(db.begin().await?);
        Ok::<_, DbErr>(())
    })
    .await
    .unwrap();
    let logged = [
        vec!["BEGIN", "UPDATE a", "ROLLBACK"],
        vec!["UPDATE b"],
        vec!["BEGIN", "ROLLBACK"],
    ];
    assert_eq!(log(db), logged);
}

#[tokio::test]
async fn body_that_fails_is_rolled_back_on_a_mock() {
    let db = mock();
    let failed = db.with_advisory_xact_lock("key", NO_WAIT, async |db| {
        let _nested = db.begin().await?;
        Err::<(), _>(DbErr::Custom("failed".to_owned()))
    });
    failed.await.unwrap_err();
    let savepoint = ["SAVEPOINT savepoint_1", "ROLLBACK TO SAVEPOINT savepoint_1"];
    let logged = ["BEGIN", savepoint[0], savepoint[1], "ROLLBACK"];
    assert_eq!(log(db), [logged]);
}

#[tokio::test]
async fn nested_transaction_ends_with_the_outer_one_on_a_mock() {
    let db = mock();
    db.with_advisory_lock("key", NO_WAIT, async |db| {
        let outer = db.begin().await?;
        let inner = outer.begin().await?;
        outer.commit().await?;
        let ended = inner.execute_unprepared("UPDATE a").await;
        ended.expect_err("the transaction has ended");
        inner.rollback().await
    })
    .await
    .unwrap();
    let savepoint = ["SAVEPOINT savepoint_1", "ROLLBACK TO SAVEPOINT savepoint_1"];
    let logged = ["BEGIN", savepoint[0], savepoint[1], "COMMIT"];
    assert_eq!(log(db), [logged]);
}

#[tokio::test]
async fn transaction_left_open_on_a_mock_is_reported() {
    let left_open = mock()
        .with_advisory_lock("key", NO_WAIT, async |db| {
            mem::forget(db.begin().await?);
            Ok::<_, DbErr>(())
        })
        .await
        .unwrap_err();
    assert_eq!(kind(&left_open), Some(LockErrorKind::TransactionLeftOpen));
}
