//! Loss of sessions, and transactions in flight, without a pool.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use advisory_locking::session::AsyncLockPool;
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockOptions,
    OnMissingLock,
};
use diesel::sqlite::SqliteConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool, mobc};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    TransactionManager,
};
use futures_util::FutureExt;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key, url};
use tokio::sync::Notify;

use crate::adapters;
use crate::pools::{Deadpool, assert_works, begin, in_runtime, open};

type SqliteManager = AsyncDieselConnectionManager<SyncConnectionWrapper<SqliteConnection>>;

const NO_WAIT: LockOptions = LockOptions::no_wait();

async fn connect_async() -> AsyncPgConnection {
    adapters::connect_async(&url()).await
}

/// SQLite has no session to terminate, but the transaction must not stay open.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_dropped_on_sqlite_is_rolled_back() {
    let mut conn = SyncConnectionWrapper::<SqliteConnection>::establish(":memory:")
        .await
        .unwrap();
    conn.batch_execute("CREATE TABLE written (number INTEGER)")
        .await
        .unwrap();
    let written = Notify::new();
    let call = conn.with_advisory_xact_lock(
        fresh_key(),
        NO_WAIT.on_missing_lock(OnMissingLock::Ignore),
        async |conn| {
            conn.batch_execute("INSERT INTO written VALUES (1)").await?;
            written.notify_one();
            std::future::pending::<Result<(), diesel::result::Error>>().await
        },
    );
    tokio::select! {
        _ = call => panic!("the body did not wait"),
        () = written.notified() => {}
    }
    let rows = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM written");
    assert_eq!(rows.get_result::<i64>(&mut conn).await, Ok(0));
    conn.batch_execute("BEGIN; COMMIT").await.unwrap();
}

/// Drops a body whose statement on SQLite is in flight, and returns the panic of diesel-async.
fn panic_of_dropped_statement<P>(open: impl AsyncFnOnce(SqliteManager) -> P) -> String
where
    P: AsyncLockPool<Session = SyncConnectionWrapper<SqliteConnection>>,
{
    let in_flight = Arc::new(Notify::new());
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        in_runtime(async {
            // Dropped after the body, which ends the statement. The runtime waits for that.
            let (_end, ended) = std::sync::mpsc::channel::<()>();
            let pool = open(SqliteManager::new(":memory:")).await;
            let started = Arc::clone(&in_flight);
            let options = NO_WAIT.on_missing_lock(OnMissingLock::Ignore);
            let call = pool.with_advisory_lock(fresh_key(), options, async move |conn| {
                let statement = conn.spawn_blocking(move |_| {
                    started.notify_one();
                    let _ = ended.recv();
                    Ok(())
                });
                statement.await
            });
            tokio::select! {
                _ = call => panic!("the statement has ended"),
                () = in_flight.notified() => {}
            }
        });
    }));
    *dropped.unwrap_err().downcast().unwrap()
}

/// In a current-thread runtime, diesel-async panics there. A second panic would abort the process.
#[test]
fn sqlite_statement_dropped_in_a_body_panics_once() {
    let panics = [
        panic_of_dropped_statement(async |manager| {
            bb8::Pool::builder().build(manager).await.unwrap()
        }),
        panic_of_dropped_statement(async |manager| {
            deadpool::Pool::builder(manager).build().unwrap()
        }),
        panic_of_dropped_statement(async |manager| mobc::Pool::builder().build(manager)),
    ];
    for panic in panics {
        assert!(panic.contains("runtime"), "{panic}");
    }
}

#[tokio::test]
async fn a_guard_dropped_in_the_callers_transaction_frees_the_key() {
    for fails in [false, true] {
        let (pool, mut observer, key) = (open::<Deadpool>().await, connect(), fresh_key());
        let mut conn = pool.get().await.unwrap();
        let _: Result<(), diesel::result::Error> = conn
            .transaction(async |conn| {
                let mut guard = conn
                    .acquire_advisory_lock(&key, NO_WAIT.allow_in_transaction())
                    .await?;
                if fails {
                    guard.batch_execute("SELECT 1/0").await?;
                }
                Ok(())
            })
            .await;
        drop(conn);
        observer.assert_free(&key, "a drop in a transaction").await;
        assert_works(&pool).await;
    }
}

/// The client does not see the transaction, whose commit would follow the release.
#[tokio::test]
async fn guard_dropped_in_the_transaction_of_its_grant_ends_both() {
    let (mut conn, mut observer, key) = (connect_async().await, connect(), fresh_key());
    conn.batch_execute("BEGIN").await.unwrap();
    let guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    drop(guard);
    observer.assert_free(&key, "the drop").await;
    conn.batch_execute("COMMIT").await.unwrap_err();
}

/// The server begins the transaction, but diesel-async does not count it.
#[tokio::test]
async fn a_begin_dropped_in_flight_is_noticed() {
    let (mut conn, mut observer, key) = (connect_async().await, connect(), fresh_key());
    let result = conn
        .with_advisory_lock(&key, NO_WAIT, async |conn| {
            let mut begun =
                std::pin::pin!(conn.transaction(async |_| Ok::<_, diesel::result::Error>(())));
            let first = std::future::poll_fn(|context| {
                std::task::Poll::Ready(begun.as_mut().poll(context).is_pending())
            });
            assert!(first.await, "the transaction began at once");
            Ok::<_, LockError>(())
        })
        .await;
    assert_eq!(
        result.unwrap_err().kind(),
        LockErrorKind::TransactionLeftOpen
    );
    observer.assert_free(&key, "the body").await;
}

/// The same in a scope that is a savepoint of the caller's transaction.
#[tokio::test]
async fn a_savepoint_dropped_in_a_nested_scope_is_rolled_back() {
    let (mut conn, mut observer, key) = (connect_async().await, connect(), fresh_key());
    begin(&mut conn).await;
    let result: Result<(), diesel::result::Error> = conn
        .with_advisory_xact_lock(&key, NO_WAIT, async |conn| {
            let begun = AnsiTransactionManager::begin_transaction(conn).now_or_never();
            assert!(begun.is_none(), "the savepoint was there at once");
            Err(diesel::result::Error::NotFound)
        })
        .await;
    assert_eq!(result, Err(diesel::result::Error::NotFound));
    observer.assert_free(&key, "the body").await;
}

/// The scope's own transaction is rolled back after the dropped savepoint. The body's error is
/// returned, without a panic.
#[tokio::test]
async fn a_savepoint_dropped_in_flight_does_not_hide_the_bodys_error() {
    let (mut conn, mut observer, key) = (connect_async().await, connect(), fresh_key());
    let result: Result<(), diesel::result::Error> = conn
        .with_advisory_xact_lock(&key, NO_WAIT, async |conn| {
            let mut begun =
                std::pin::pin!(conn.transaction(async |_| Ok::<_, diesel::result::Error>(())));
            let first = std::future::poll_fn(|context| {
                std::task::Poll::Ready(begun.as_mut().poll(context).is_pending())
            });
            assert!(first.await, "the savepoint was there at once");
            Err(diesel::result::Error::NotFound)
        })
        .await;
    assert_eq!(result, Err(diesel::result::Error::NotFound));
    observer.assert_free(&key, "the body").await;
}

/// diesel-async 0.9.2 itself panics in a debug build at the next begin.
#[tokio::test]
async fn scope_begins_after_a_savepoint_dropped_in_flight() {
    let (mut conn, mut observer, key) = (connect_async().await, connect(), fresh_key());
    begin(&mut conn).await;
    let begun = AnsiTransactionManager::begin_transaction(&mut conn).now_or_never();
    assert!(begun.is_none(), "the savepoint was there at once");
    for inner in [fresh_key(), fresh_key()] {
        let scope = conn.with_advisory_xact_lock(&key, NO_WAIT, async |conn| {
            conn.with_advisory_xact_lock(&inner, NO_WAIT, async |conn| {
                conn.batch_execute("SELECT 1").await
            })
            .await
        });
        scope.await.unwrap();
        assert!(!observer.is_free(&key) && !observer.is_free(&inner));
    }
    conn.batch_execute("ROLLBACK").await.unwrap();
    assert!(observer.is_free(&key));
}
