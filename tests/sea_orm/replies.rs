//! Replies that sqlx cannot read, or that never end, and streams that share the connection.

use std::future::Future;
use std::time::Duration;

use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::{AsyncPooledAdvisoryLocking, LockError};
use futures_util::{StreamExt, TryStreamExt};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, RuntimeErr, Statement, StreamTrait,
    TransactionTrait,
};
use testkit::gate::Gate;
use testkit::observer::Observe;
use testkit::server::{TIMEOUT, connect, fresh_key};
use testkit::temp::TempObject;

use crate::open::{NO_WAIT, number, pid, poll_times, postgres};

/// Fails the test if the future does not end.
async fn ends<F: Future>(what: &str, future: F) -> F::Output {
    let ended = tokio::time::timeout(TIMEOUT, future).await;
    ended.unwrap_or_else(|_| panic!("does not end: {what}"))
}

/// Uses the only connection of a pool.
async fn assert_usable(db: &DatabaseConnection, after: &str) {
    let tx = ends(after, db.begin()).await.unwrap();
    ends(after, tx.execute_unprepared("SELECT 1"))
        .await
        .unwrap();
    ends(after, tx.commit()).await.unwrap();
}

fn statement(sql: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, sql)
}

/// Sends a statement with one method of SeaORM.
async fn send(
    db: &(impl ConnectionTrait + StreamTrait),
    method: &str,
    sql: &str,
) -> Result<(), DbErr> {
    match method {
        "execute_unprepared" => db.execute_unprepared(sql).await.map(drop),
        "execute_raw" => db.execute_raw(statement(sql)).await.map(drop),
        "query_one_raw" => db.query_one_raw(statement(sql)).await.map(drop),
        "query_all_raw" => db.query_all_raw(statement(sql)).await.map(drop),
        "stream_raw" => {
            let rows = db.stream_raw(statement(sql)).await?;
            rows.try_for_each(|_| async { Ok(()) }).await
        }
        _ => unreachable!("{method}"),
    }
}

const METHODS: [&str; 5] = [
    "execute_unprepared",
    "execute_raw",
    "query_one_raw",
    "query_all_raw",
    "stream_raw",
];

/// A table, and the texts that sqlx has a type of its own for: it cannot read their replies to a
/// statement.
fn copies() -> (TempObject, [String; 2]) {
    let table = TempObject::create("TABLE", "(number INTEGER)");
    let copies = [
        format!("COPY {} FROM STDIN", table.name),
        format!("COPY {} TO STDOUT", table.name),
    ];
    (table, copies)
}

/// Asserts that the error is sqlx's, which the body returned.
fn assert_unreadable<T>(result: Result<T, DbErr>, what: &str) {
    let sqlx = match result.map(drop).unwrap_err() {
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            error
        }
        other => panic!("{what}: {other:?}"),
    };
    assert!(
        matches!(*sqlx, sqlx::Error::Protocol(_)),
        "{what}: {sqlx:?}"
    );
}

#[tokio::test]
async fn copy_as_a_statement_ends_the_session() {
    let (_table, copies) = copies();
    let (db, mut observer) = (postgres(1).await, connect());
    for copy in copies {
        for method in METHODS {
            let (what, key) = (format!("{copy} with {method}"), fresh_key());
            let call =
                db.with_advisory_lock(&key, NO_WAIT, async |db| send(db, method, &copy).await);
            assert_unreadable(ends(&what, call).await, &what);
            observer.assert_free(&key, &what).await;
            assert_usable(&db, &what).await;

            let what = format!("{what} in a transaction of the body");
            let call = db.with_advisory_lock(&key, NO_WAIT, async |db| {
                let tx = db.begin().await?;
                let sent = send(&tx, method, &copy).await;
                // Later statements fail, and do not wait.
                ends(&what, tx.execute_unprepared("SELECT 1"))
                    .await
                    .unwrap_err();
                ends(&what, tx.commit()).await.unwrap_err();
                sent
            });
            assert_unreadable(ends(&what, call).await, &what);
            observer.assert_free(&key, &what).await;
            assert_usable(&db, &what).await;

            let what = format!("{copy} with {method} under a transaction-level lock");
            let call =
                db.with_advisory_xact_lock(&key, NO_WAIT, async |db| send(db, method, &copy).await);
            assert_unreadable(ends(&what, call).await, &what);
            observer.assert_free(&key, &what).await;
            assert_usable(&db, &what).await;

            let what = format!("{copy} with {method} under a dropped guard");
            let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
            assert_unreadable(ends(&what, send(&*guard, method, &copy)).await, &what);
            drop(guard);
            observer.assert_free(&key, &what).await;
            assert_usable(&db, &what).await;
        }
    }
}

/// The body ignores the error, so the lost lock is the error of the call.
#[tokio::test]
async fn copy_that_the_body_ignores_is_a_lost_lock() {
    let (_table, [copy, _]) = copies();
    let db = postgres(1).await;
    let call = db.with_advisory_lock(fresh_key(), NO_WAIT, async |db: &mut PinnedConnection| {
        let _ = db.execute_unprepared(&copy).await;
        Ok::<_, LockError>(())
    });
    let error = ends("the call", call).await.unwrap_err();
    assert!(error.is_lost(), "{error:?}");
}

/// The server waits for the data of a `COPY` whose future was dropped.
#[tokio::test]
async fn copy_dropped_in_flight_ends_the_session() {
    let (_table, [copy, _]) = copies();
    let (db, mut observer) = (postgres(1).await, connect());
    for next in ["a release", "a drop", "a statement", "a transaction"] {
        let key = fresh_key();
        let what = format!("{next} after a dropped COPY");
        let (guard, tx) = loop {
            let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
            let tx = match next {
                "a transaction" => Some(guard.begin().await.unwrap()),
                _ => None,
            };
            let sent = match &tx {
                Some(tx) => poll_times(1, tx.execute_unprepared(&copy)).await,
                None => poll_times(1, guard.execute_unprepared(&copy)).await,
            };
            match sent {
                None => break (guard, tx),
                // The reply arrived before the first poll read the socket.
                Some(replied) => assert_unreadable(replied, &what),
            }
        };
        match next {
            "a release" => {
                let error = ends(&what, guard.release()).await.unwrap_err();
                assert!(error.is_lost(), "{what}: {error:?}");
            }
            "a statement" => {
                ends(&what, guard.execute_unprepared("SELECT 1"))
                    .await
                    .unwrap_err();
                drop(guard);
            }
            _ => drop((tx, guard)),
        }
        observer.assert_free(&key, &what).await;
        assert_usable(&db, &what).await;
    }
}

/// The first lock statement is in the message of the `BEGIN`.
#[tokio::test]
async fn copy_dropped_under_a_transaction_level_lock_ends() {
    let (_table, [copy, _]) = copies();
    let (db, mut observer) = (postgres(1).await, connect());
    let (what, key) = ("a dropped COPY in the lock's transaction", fresh_key());
    loop {
        let mut dropped = false;
        let call = db.with_advisory_xact_lock(&key, NO_WAIT, async |db| {
            let sent = poll_times(1, db.execute_unprepared(&copy)).await;
            dropped = sent.is_none();
            Ok::<_, DbErr>(())
        });
        ends(what, call).await.unwrap_err();
        observer.assert_free(&key, what).await;
        assert_usable(&db, what).await;
        // Otherwise the reply arrived before the first poll read the socket.
        if dropped {
            break;
        }
    }
}

/// A statement with more values than the protocol allows is not sent.
#[tokio::test]
async fn a_statement_with_too_many_values_keeps_the_lock() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let values = std::iter::repeat_n(sea_orm::Value::from(1), 70_000);
    let many = Statement::from_sql_and_values(DbBackend::Postgres, "SELECT 1", values);
    guard.execute_raw(many.clone()).await.unwrap_err();
    guard.query_one_raw(many.clone()).await.unwrap_err();
    guard.query_all_raw(many.clone()).await.unwrap_err();
    let mut rows = guard.stream_raw(many).await.unwrap();
    rows.next().await.unwrap().unwrap_err();
    drop(rows);
    assert_eq!(observer.lock_entries(&key).len(), 1);
    guard.release().await.unwrap();
}

const MANY_ROWS: &str = "SELECT generate_series(1, 100000)";

/// As on a `DatabaseConnection`, where each statement has a connection of its own.
#[tokio::test]
async fn statements_run_while_a_stream_is_read() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let call = db.with_advisory_lock(&key, NO_WAIT, async |db| {
        for in_transaction in [false, true] {
            let tx = if in_transaction {
                Some(db.begin().await?)
            } else {
                None
            };
            let mut rows = match &tx {
                Some(tx) => tx.stream_raw(statement(MANY_ROWS)).await?,
                None => db.stream_raw(statement(MANY_ROWS)).await?,
            };
            let mut sum = 0;
            for read in 1..=10 {
                let row = rows.try_next().await?.unwrap();
                sum += i64::from(row.try_get_by_index::<i32>(0)?);
                assert_eq!(number(db, &format!("SELECT {read}::int8")).await, read);
            }
            // A second stream, and a transaction, while the first stream is open.
            let others = db
                .stream_raw(statement("SELECT generate_series(1, 3)"))
                .await?;
            let nested = db.begin().await?;
            assert_eq!(others.count().await, 3);
            nested.commit().await?;
            while let Some(row) = rows.try_next().await? {
                sum += i64::from(row.try_get_by_index::<i32>(0)?);
            }
            assert_eq!(sum, 50_000 * 100_001);
            drop(rows);
            if let Some(tx) = tx {
                tx.commit().await?;
            }
        }
        Ok::<_, DbErr>(())
    });
    ends("the body", call).await.unwrap();
    observer.assert_free(&key, "the release").await;
}

/// The tasks of a body share the connection: each statement waits for the ones before it only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_several_tasks_are_complete() {
    let (db, key) = (postgres(1).await, fresh_key());
    let call = db.with_advisory_lock(&key, NO_WAIT, async |db| {
        let db = &*db;
        let read = async |limit: i64| {
            for _ in 0..20 {
                let rows = db
                    .stream_raw(statement(&format!("SELECT generate_series(1, {limit})")))
                    .await?;
                let counted = rows
                    .try_fold(0, |count, _| async move { Ok(count + 1) })
                    .await?;
                assert_eq!(counted, limit);
                assert_eq!(number(db, "SELECT 7::int8").await, 7);
            }
            Ok::<_, DbErr>(())
        };
        let (one, two, three) = tokio::join!(read(1), read(1_000), read(10_000));
        one.and(two).and(three)
    });
    ends("the tasks", call).await.unwrap();
}

/// The stream of a statement that fails, and of one that is dropped, leaves the connection usable.
#[tokio::test]
async fn a_stream_that_fails_keeps_the_connection() {
    let (db, key) = (postgres(1).await, fresh_key());
    let before = pid(&db).await;
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let failing = "SELECT 1 / (3 - number) FROM generate_series(1, 5) AS number";
    let mut rows = guard.stream_raw(statement(failing)).await.unwrap();
    // The statement moves the rows and the error into memory.
    assert_eq!(number(&*guard, "SELECT 7::int8").await, 7);
    let mut read = Vec::new();
    while let Some(row) = rows.next().await {
        read.push(row.is_ok());
    }
    assert_eq!(read.last(), Some(&false), "{read:?}");
    drop(rows);
    guard.release().await.unwrap();
    assert_eq!(pid(&db).await, before);
}

/// A leaked stream would keep the connection for ever.
#[tokio::test]
async fn a_leaked_stream_does_not_keep_the_lock() {
    let (db, mut observer) = (postgres(1).await, connect());
    for sql in [MANY_ROWS, "SELECT 1", "SELECT pg_sleep(0.1)"] {
        for (polls, end) in [
            (0, "released"),
            (1, "released"),
            (100, "released"),
            (1, "dropped"),
            (100, "dropped"),
            (1, "terminated"),
            (100, "terminated"),
        ] {
            let (what, key) = (format!("{sql}, polled {polls} times, {end}"), fresh_key());
            let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
            let mut rows = guard.stream_raw(statement(sql)).await.unwrap();
            if polls > 0 {
                // Until the first row, or until it is in flight.
                poll_times(polls, rows.next()).await;
            }
            std::mem::forget(rows);
            match end {
                "released" => ends(&what, guard.release()).await.unwrap(),
                "dropped" => drop(guard),
                _ => {
                    // A guard that is dropped in a transaction terminates its session.
                    let tx = ends(&what, guard.begin()).await.unwrap();
                    let mut rows = tx.stream_raw(statement(sql)).await.unwrap();
                    poll_times(1, rows.next()).await;
                    std::mem::forget(rows);
                    drop(guard);
                    drop(tx);
                }
            }
            observer.assert_free(&key, &what).await;
            assert_usable(&db, &what).await;
        }
    }
}

/// The rest of its rows may take long, and the body has ended. So the session is terminated.
#[tokio::test]
async fn a_leaked_stream_without_end_costs_the_session() {
    let (db, mut observer) = (postgres(1).await, connect());
    for dropped in [false, true] {
        let (what, key) = (format!("dropped: {dropped}"), fresh_key());
        let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        let endless = "SELECT repeat('x', 9000), pg_sleep(0.01) FROM generate_series(1, 1000000)";
        let mut rows = guard.stream_raw(statement(endless)).await.unwrap();
        rows.next().await.unwrap().unwrap();
        std::mem::forget(rows);
        if dropped {
            drop(guard);
        } else {
            let error = ends(&what, guard.release()).await.unwrap_err();
            assert!(error.is_lost(), "{error:?}");
        }
        observer.assert_free(&key, &what).await;
        assert_usable(&db, &what).await;
    }
}

/// The future of a statement keeps the connection, and its reply is never read.
#[tokio::test]
async fn a_leaked_statement_does_not_keep_the_lock() {
    let (db, mut observer) = (postgres(2).await, connect());
    for end in ["released", "dropped", "a statement"] {
        let (key, gate) = (fresh_key(), Gate::closed());
        let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        // The reply cannot arrive before the future is leaked.
        let at_the_gate = gate.statement();
        let mut leaked = Box::pin(guard.execute_unprepared(&at_the_gate));
        assert!(poll_times(1, leaked.as_mut()).await.is_none());
        std::mem::forget(leaked);
        gate.open();
        match end {
            "released" => {
                let error = ends(end, guard.release()).await.unwrap_err();
                assert!(error.is_lost(), "{error:?}");
            }
            "dropped" => drop(guard),
            _ => {
                ends(end, guard.execute_unprepared("SELECT 1"))
                    .await
                    .unwrap_err();
                drop(guard);
            }
        }
        observer.assert_free(&key, end).await;
        ends(end, db.execute_unprepared("SELECT 1")).await.unwrap();
    }
}

/// A statement that runs for long is not taken for one without a reply.
#[tokio::test]
async fn a_long_statement_dropped_in_flight_runs_to_its_end() {
    let (db, key) = (postgres(1).await, fresh_key());
    let before = pid(&db).await;
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let dropped = poll_times(1, guard.execute_unprepared("SELECT pg_sleep(6)")).await;
    assert!(dropped.is_none());
    tokio::time::timeout(
        Duration::from_millis(1),
        guard.execute_unprepared("SELECT 1"),
    )
    .await
    .unwrap_err();
    guard.release().await.unwrap();
    assert_eq!(pid(&db).await, before);
}
