//! Errors: unsupported backends, and the conversion into SeaORM's errors.

use std::time::Duration;

use advisory_locking::{AsyncPooledAdvisoryLocking, LockError, LockErrorKind};
use sea_orm::{
    ConnAcquireErr, ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection,
    DbErr, MockDatabase, TransactionTrait,
};
use testkit::server::{fresh_key, url};

use crate::open::{NO_WAIT, postgres};

/// Returns the kind of the [`LockError`] in a [`DbErr`].
pub(crate) fn kind(error: &DbErr) -> Option<LockErrorKind> {
    match error {
        DbErr::TryIntoErr { source, .. } => Some(source.downcast_ref::<LockError>()?.kind()),
        _ => None,
    }
}

#[tokio::test]
async fn a_backend_without_locks_and_no_op_is_unsupported() {
    let connections = [
        DatabaseConnection::default(),
        MockDatabase::new(DatabaseBackend::MySql).into_connection(),
        MockDatabase::new(DatabaseBackend::Postgres).into_connection(),
    ];
    for db in connections {
        let body = async |_: &mut _| -> Result<(), DbErr> { panic!("the body must not run") };
        let rejected = db
            .with_advisory_lock("key", NO_WAIT, body)
            .await
            .unwrap_err();
        assert_eq!(kind(&rejected), Some(LockErrorKind::Unsupported), "{db:?}");
        let rejected = db
            .try_acquire_advisory_lock("key", NO_WAIT)
            .await
            .unwrap_err();
        assert_eq!(rejected.kind(), LockErrorKind::Unsupported, "{db:?}");
        assert_eq!(rejected.key(), Some(&"key".into()));
        assert_eq!(
            db.capabilities().await.unwrap_err().kind(),
            LockErrorKind::Unsupported,
            "{db:?}"
        );
    }
}

#[tokio::test]
async fn a_transaction_without_locks_and_no_op_is_unsupported() {
    use advisory_locking::AsyncTransactionAdvisoryLocking;
    let db = MockDatabase::new(DatabaseBackend::MySql).into_connection();
    let tx = db.begin().await.unwrap();
    let rejected = tx
        .acquire_advisory_xact_lock("key", NO_WAIT)
        .await
        .unwrap_err();
    assert_eq!(rejected.kind(), LockErrorKind::Unsupported);
    // A mock of PostgreSQL returns its prepared results, which contain no lock.
    let db = MockDatabase::new(DatabaseBackend::Postgres).into_connection();
    let tx = db.begin().await.unwrap();
    tx.acquire_advisory_xact_lock("key", NO_WAIT)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_mock_of_sqlite_is_the_no_op() {
    let db = MockDatabase::new(DatabaseBackend::Sqlite)
        .append_exec_results([sea_orm::MockExecResult::default()])
        .into_connection();
    assert!(!db.capabilities().await.unwrap().provides_mutual_exclusion());
    db.with_advisory_lock("key", NO_WAIT, async |db| {
        assert!(db.is_mock_connection());
        db.execute_unprepared("UPDATE driver SET name = 'ada'")
            .await
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_closed_pool_is_a_pool_error() {
    let db = postgres(1).await;
    db.close_by_ref().await.unwrap();
    let rejected = db.acquire_advisory_lock("key", NO_WAIT).await.unwrap_err();
    assert_eq!(rejected.kind(), LockErrorKind::Pool);
    let error = rejected.into_client_error::<DbErr>().unwrap();
    let closed = DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed);
    assert_eq!(error, closed);
}

#[tokio::test]
async fn a_checkout_timeout_is_sea_orms_error() {
    let mut options = ConnectOptions::new(url());
    options
        .connect_lazy(true)
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(200));
    let db = Database::connect(options).await.unwrap();
    let only = loop {
        // A loaded machine may need longer to open the connection.
        if let Ok(guard) = db.acquire_advisory_lock(fresh_key(), NO_WAIT).await {
            break guard;
        }
    };
    let rejected = db.acquire_advisory_lock(fresh_key(), NO_WAIT).await;
    let error = rejected.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Pool);
    let error = error.into_client_error::<DbErr>().unwrap();
    let timeout = DbErr::ConnectionAcquire(ConnAcquireErr::Timeout);
    assert_eq!(error, timeout);
    only.release().await.unwrap();
}

#[tokio::test]
async fn a_held_lock_is_sea_orms_error_in_a_body() {
    let (db, key) = (postgres(2).await, fresh_key());
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let rejected = db
        .with_advisory_lock(&key, NO_WAIT, async |_| Ok::<_, DbErr>(()))
        .await;
    assert_eq!(
        kind(&rejected.unwrap_err()),
        Some(LockErrorKind::HeldElsewhere)
    );
    guard.release().await.unwrap();
}

/// An application that retries after a serialization failure needs SeaORM's error.
#[tokio::test]
async fn a_failed_commit_is_sea_orms_own_error() {
    let db = postgres(1).await;
    let result = db
        .with_advisory_xact_lock(fresh_key(), NO_WAIT, async |db| {
            db.execute_unprepared(
                "CREATE TEMPORARY TABLE once (id INTEGER UNIQUE DEFERRABLE INITIALLY DEFERRED)",
            )
            .await?;
            db.execute_unprepared("INSERT INTO once VALUES (1), (1)")
                .await
                .map(drop)
        })
        .await;
    let error = result.unwrap_err();
    assert!(
        matches!(
            error.sql_err(),
            Some(sea_orm::SqlErr::UniqueConstraintViolation(_))
        ),
        "{error:?}"
    );
}
