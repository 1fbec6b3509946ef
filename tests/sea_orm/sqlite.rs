//! The connection of a SQLite pool that a body keeps, as on PostgreSQL.

use std::time::Duration;

use ::sea_orm::{
    ConnAcquireErr, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr,
    SqliteTransactionMode, Statement, StreamTrait, TransactionOptions, TransactionTrait,
};
use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::{AsyncPooledAdvisoryLocking, LockError, LockErrorKind};
use futures_util::TryStreamExt;
use testkit::server::fresh_key;

use crate::open::{NO_WAIT, connect, number, poll_times, sqlite};

const INSERT: &str = "INSERT INTO written VALUES (1)";
const COUNT: &str = "SELECT COUNT(*) FROM written";

async fn with_table(db: DatabaseConnection) -> DatabaseConnection {
    db.execute_unprepared("CREATE TABLE written (number INTEGER)")
        .await
        .unwrap();
    db
}

/// Returns the path and the URL of a database in a file, which two pools can open.
pub(crate) fn empty_file(name: &str) -> (String, String) {
    let process = std::process::id();
    let file = format!("{}/{name}-{process}.sqlite", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&file);
    let url = format!("sqlite://{file}?mode=rwc");
    (file, url)
}

/// Fails if the only connection is in a transaction, or if sqlx takes it for one in a transaction:
/// then the rollback would be that of a savepoint.
async fn assert_in_no_transaction(db: &DatabaseConnection, after: &str) {
    let before = number(db, COUNT).await;
    let tx = db.begin().await.unwrap();
    tx.execute_unprepared(INSERT).await.unwrap();
    tx.rollback().await.unwrap();
    db.execute_unprepared("BEGIN; COMMIT").await.expect(after);
    assert_eq!(number(db, COUNT).await, before, "{after}");
}

/// In a pool of one connection, a body that uses the pool fails on SQLite as on PostgreSQL.
#[tokio::test]
async fn sqlite_body_that_uses_a_pool_of_one_starves() {
    for url in ["sqlite::memory:".to_owned(), testkit::server::url()] {
        let mut options = ConnectOptions::new(url.clone());
        options
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(1))
            .sqlx_logging(false);
        let db = loop {
            // A loaded machine may need longer to open the connection.
            match Database::connect(options.clone()).await {
                Ok(db) => break db,
                Err(error) => assert!(is_timeout(&error), "{url}: {error:?}"),
            }
        };
        let used = db
            .with_advisory_lock(fresh_key(), NO_WAIT, async |pinned| {
                assert_eq!(number(pinned, "SELECT COUNT(*)").await, 1);
                db.execute_unprepared("SELECT 1").await
            })
            .await;
        assert!(used.as_ref().is_err_and(is_timeout), "{url}: {used:?}");
        // The check of the connection may take longer, too.
        let mut usable = db.execute_unprepared("SELECT 1").await;
        for _ in 0..20 {
            if usable.is_ok() {
                break;
            }
            usable = db.execute_unprepared("SELECT 1").await;
        }
        usable.unwrap();
    }
}

const fn is_timeout(error: &DbErr) -> bool {
    matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))
}

#[tokio::test]
async fn sqlite_body_keeps_one_connection_of_its_pool() {
    let db = sqlite().await;
    let pool = db.get_sqlite_connection_pool();
    let guard = db
        .acquire_advisory_lock(fresh_key(), NO_WAIT)
        .await
        .unwrap();
    assert_eq!((pool.size(), pool.num_idle()), (1, 0));
    guard.release().await.unwrap();
    assert_eq!(number(&db, "SELECT 1").await, 1);
    assert_eq!(pool.size(), 1, "the same connection");
}

/// Each statement of a body is committed by itself, and keeps no lock of the database.
#[tokio::test]
async fn sqlite_body_commits_each_statement() {
    let (file, url) = empty_file("commits");
    let db = with_table(connect(url.clone(), 1).await).await;
    let other = connect(url, 1).await;
    db.with_advisory_lock(fresh_key(), NO_WAIT, async |db| {
        for written in [1, 3, 5, 7] {
            db.execute_unprepared(INSERT).await?;
            assert_eq!(number(&other, COUNT).await, written);
            other.execute_unprepared(INSERT).await?;
            // Also after a transaction that has written, and was rolled back.
            let tx = db.begin().await?;
            tx.execute_unprepared(INSERT).await?;
            tx.rollback().await?;
        }
        // Rejected in a transaction.
        db.execute_unprepared("VACUUM").await
    })
    .await
    .unwrap();
    assert_in_no_transaction(&db, "the body").await;
    std::fs::remove_file(file).unwrap();
}

/// The failed commit of SQLite leaves its transaction open, also if its future was dropped.
#[tokio::test]
async fn sqlite_commit_dropped_in_flight_leaves_no_transaction() {
    // The reply to the commit may arrive before the drop.
    for times in 1..4 {
        let db = with_table(sqlite().await).await;
        db.execute_unprepared(
            "CREATE TABLE checked (number INTEGER REFERENCES written (number) \
             DEFERRABLE INITIALLY DEFERRED); CREATE UNIQUE INDEX by_number ON written (number)",
        )
        .await
        .unwrap();
        db.with_advisory_lock(fresh_key(), NO_WAIT, async |db| {
            let tx = db.begin().await?;
            tx.execute_unprepared("INSERT INTO checked VALUES (1)")
                .await?;
            let committed = poll_times(times, tx.commit()).await;
            assert!(committed.is_none_or(|committed| committed.is_err()));
            assert_eq!(number(db, "SELECT COUNT(*) FROM checked").await, 0);
            Ok::<_, DbErr>(())
        })
        .await
        .unwrap();
        assert_in_no_transaction(&db, "the commit").await;
    }
}

/// A dropped transaction is rolled back, also beside a statement of another task.
#[tokio::test]
async fn sqlite_transaction_dropped_beside_a_statement_is_rolled_back() {
    let db = with_table(sqlite().await).await;
    db.with_advisory_lock(fresh_key(), NO_WAIT, async |db: &mut PinnedConnection| {
        let db = &*db;
        let dropped = async {
            let tx = db.begin().await?;
            tx.execute_unprepared(INSERT).await?;
            tx.execute_unprepared("no statement").await.map(drop)
        };
        let reads = async {
            for _ in 0..50 {
                db.execute_unprepared("SELECT 1").await?;
            }
            Ok::<_, DbErr>(())
        };
        let (failed, read) = tokio::join!(dropped, reads);
        failed.unwrap_err();
        assert_eq!(number(db, COUNT).await, 0);
        db.execute_unprepared(INSERT).await?;
        read
    })
    .await
    .unwrap();
    assert_eq!(number(&db, COUNT).await, 1);
    assert_in_no_transaction(&db, "a dropped transaction").await;
}

#[tokio::test]
async fn sqlite_transaction_left_open_is_rolled_back() {
    let db = with_table(sqlite().await).await;
    db.with_advisory_lock(fresh_key(), NO_WAIT, async |db| {
        // As text, which this crate does not see.
        db.execute_unprepared("BEGIN").await?;
        db.execute_unprepared(INSERT).await
    })
    .await
    .unwrap();
    assert_eq!(number(&db, COUNT).await, 0);
    assert_in_no_transaction(&db, "a transaction begun as text").await;

    let mut kept = None;
    let left_open = db
        .with_advisory_lock(fresh_key(), NO_WAIT, async |db| {
            kept = Some(db.begin().await?);
            Ok::<_, DbErr>(())
        })
        .await;
    let error = left_open.unwrap_err();
    let kind = LockError::find(&error).map(LockError::kind);
    assert_eq!(kind, Some(LockErrorKind::TransactionLeftOpen));
    drop(kept);
    assert_in_no_transaction(&db, "a transaction kept by the body").await;
}

/// SQLite keeps the transaction open whose commit it rejects.
#[tokio::test]
async fn sqlite_transaction_whose_commit_fails_is_rolled_back() {
    let db = with_table(sqlite().await).await;
    db.execute_unprepared(
        "PRAGMA foreign_keys = ON; CREATE TABLE part (whole INTEGER REFERENCES written (number) \
         DEFERRABLE INITIALLY DEFERRED); CREATE UNIQUE INDEX number ON written (number)",
    )
    .await
    .unwrap();
    db.with_advisory_lock(fresh_key(), NO_WAIT, async |db| {
        let tx = db.begin().await?;
        tx.execute_unprepared("INSERT INTO part VALUES (7)").await?;
        tx.commit().await.unwrap_err();
        assert_eq!(number(db, "SELECT COUNT(*) FROM part").await, 0);
        let tx = db.begin().await?;
        tx.execute_unprepared(INSERT).await?;
        tx.commit().await
    })
    .await
    .unwrap();
    assert_eq!(number(&db, COUNT).await, 1);
}

#[tokio::test]
async fn sqlite_transaction_has_the_mode_of_its_options() {
    let (file, url) = empty_file("mode");
    let db = with_table(connect(url, 2).await).await;
    let immediate = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    db.with_advisory_lock(fresh_key(), NO_WAIT, async |pinned| {
        let tx = pinned.begin_with_options(immediate).await?;
        // A write transaction is open, before its first statement.
        db.execute_unprepared("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE")
            .await
            .unwrap_err();
        // A savepoint has no mode.
        tx.begin_with_options(immediate).await?.commit().await?;
        tx.commit().await
    })
    .await
    .unwrap();
    std::fs::remove_file(file).unwrap();
}

/// A statement beside an open stream reads the rest of its rows first.
#[tokio::test]
async fn sqlite_statement_runs_beside_an_open_stream() {
    let db = with_table(sqlite().await).await;
    let sum = db
        .with_advisory_lock(fresh_key(), NO_WAIT, async |db| {
            for row in 1..=200 {
                db.execute_unprepared(&format!("INSERT INTO written VALUES ({row})"))
                    .await?;
            }
            let all =
                Statement::from_string(db.get_database_backend(), "SELECT number FROM written");
            let mut rows = db.stream_raw(all).await?;
            let mut sum = 0;
            while let Some(row) = rows.try_next().await? {
                sum += row.try_get_by_index::<i64>(0)? * number(db, "SELECT 1").await;
            }
            Ok::<_, DbErr>(sum)
        })
        .await
        .unwrap();
    assert_eq!(sum, 20_100);
    assert_in_no_transaction(&db, "a stream").await;
}
