//! Guards and bodies that are dropped, abandoned by a panic, or outlive their runtime.

use std::future::Future;
use std::time::Duration;

use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockOptions,
    OnMissingLock,
};
use diesel::sql_types::Integer;
use diesel::sqlite::SqliteConnection;
use diesel::{IntoSql, select};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use crate::observer::{Observer, database_url, fresh_key};

const NO_WAIT: LockOptions = LockOptions::no_wait();

diesel::define_sql_function!(fn pg_backend_pid() -> Integer);

async fn connect() -> AsyncPgConnection {
    AsyncPgConnection::establish(&database_url()).await.unwrap()
}

async fn bb8_pool() -> bb8::Pool<AsyncPgConnection> {
    let manager = AsyncDieselConnectionManager::new(database_url());
    bb8::Pool::builder()
        .max_size(1)
        .build(manager)
        .await
        .unwrap()
}

fn deadpool_pool() -> deadpool::Pool<AsyncPgConnection> {
    let manager = AsyncDieselConnectionManager::new(database_url());
    deadpool::Pool::builder(manager)
        .max_size(1)
        .build()
        .unwrap()
}

async fn pid(conn: &mut AsyncPgConnection) -> i32 {
    select(pg_backend_pid()).get_result(conn).await.unwrap()
}

async fn sleep_on_server(
    conn: &mut AsyncPgConnection,
    seconds: f64,
) -> Result<(), diesel::result::Error> {
    diesel::sql_query("SELECT pg_sleep($1)")
        .bind::<diesel::sql_types::Double, _>(seconds)
        .execute(conn)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_dropped_guard_releases_and_keeps_the_connection() {
    let (mut conn, mut observer, key) = (connect().await, Observer::new(), fresh_key());
    let before = pid(&mut conn).await;
    drop(conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap());
    observer.assert_free(&key, "dropping the guard").await;
    assert_eq!(pid(&mut conn).await, before);
}

#[tokio::test]
async fn a_dropped_guard_gives_the_pool_its_connection_back() {
    let (pool, mut observer, key) = (bb8_pool().await, Observer::new(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let before = pid(&mut guard).await;
    drop(guard);
    observer.assert_free(&key, "dropping the guard").await;
    assert_eq!(pid(&mut pool.get().await.unwrap()).await, before);
}

/// The body's own statement goes on; the release is queued behind it.
#[tokio::test]
async fn a_body_dropped_in_a_statement_releases_when_that_ends() {
    let (mut conn, mut observer, key) = (connect().await, Observer::new(), fresh_key());
    let call =
        conn.with_advisory_lock(&key, NO_WAIT, async |conn| sleep_on_server(conn, 0.3).await);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), call)
            .await
            .is_err()
    );
    assert_eq!(observer.shown(&key).len(), 1, "the statement still runs");
    observer.assert_free(&key, "the statement in flight").await;
    assert_eq!(
        select(1.into_sql::<Integer>())
            .get_result::<i32>(&mut conn)
            .await,
        Ok(1)
    );
}

#[tokio::test]
async fn a_body_dropped_in_a_transaction_costs_the_connection() {
    let (pool, mut observer, key) = (deadpool_pool(), Observer::new(), fresh_key());
    let before = pid(&mut pool.get().await.unwrap()).await;
    let call = pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
        conn.transaction(async |conn| sleep_on_server(conn, 0.3).await)
            .await
    });
    assert!(
        tokio::time::timeout(Duration::from_millis(100), call)
            .await
            .is_err()
    );
    observer
        .assert_free(&key, "the transaction in flight")
        .await;
    assert_ne!(pid(&mut pool.get().await.unwrap()).await, before);
}

#[tokio::test]
async fn a_body_dropped_under_a_transaction_level_lock_is_rolled_back() {
    let (pool, mut observer, key) = (bb8_pool().await, Observer::new(), fresh_key());
    let call =
        pool.with_advisory_xact_lock(&key, NO_WAIT, async |conn| sleep_on_server(conn, 0.3).await);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), call)
            .await
            .is_err()
    );
    observer
        .assert_free(&key, "the transaction in flight")
        .await;
    assert_eq!(
        select(1.into_sql::<Integer>())
            .get_result::<i32>(&mut pool.get().await.unwrap())
            .await,
        Ok(1)
    );
}

#[tokio::test]
async fn a_panic_in_the_body_frees_the_key_and_goes_on() {
    for transaction in [false, true] {
        let (pool, mut observer, key) = (bb8_pool().await, Observer::new(), fresh_key());
        let (pool_in_task, key_in_task) = (pool.clone(), key.clone());
        let task = tokio::spawn(async move {
            let body = async |_: &mut AsyncPgConnection| -> Result<(), LockError> {
                panic!("the body's panic")
            };
            if transaction {
                pool_in_task
                    .with_advisory_xact_lock(key_in_task, NO_WAIT, body)
                    .await
            } else {
                pool_in_task
                    .with_advisory_lock(key_in_task, NO_WAIT, body)
                    .await
            }
        });
        assert!(task.await.unwrap_err().is_panic());
        observer.assert_free(&key, "a panic").await;
        pool.get().await.unwrap();
    }
}

#[tokio::test]
async fn an_aborted_task_frees_the_key() {
    let (pool, mut observer, key) = (bb8_pool().await, Observer::new(), fresh_key());
    let (pool_in_task, key_in_task) = (pool.clone(), key.clone());
    let task = tokio::spawn(async move {
        let body = async |_: &mut AsyncPgConnection| -> Result<(), LockError> {
            std::future::pending().await
        };
        pool_in_task
            .with_advisory_lock(key_in_task, NO_WAIT, body)
            .await
    });
    observer
        .wait_until(&key, |shown| shown.len() == 1, "the task takes the lock")
        .await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    observer.assert_free(&key, "an abort").await;
    pool.get().await.unwrap();
}

#[tokio::test]
async fn a_guard_may_be_dropped_on_a_thread_without_a_runtime() {
    let (bb8, deadpool, mut observer) = (bb8_pool().await, deadpool_pool(), Observer::new());
    let key = fresh_key();
    let guard = bb8.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    std::thread::spawn(move || drop(guard)).join().unwrap();
    observer.assert_free(&key, "a drop without a runtime").await;
    let guard = deadpool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    std::thread::spawn(move || drop(guard)).join().unwrap();
    observer.assert_free(&key, "a drop without a runtime").await;
    bb8.get().await.unwrap();
    drop(deadpool.get().await.unwrap());
}

#[test]
fn a_runtime_that_shuts_down_frees_its_locks() {
    let key = fresh_key();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guard = runtime.block_on(async {
        bb8_pool()
            .await
            .acquire_advisory_lock(&key, NO_WAIT)
            .await
            .unwrap()
    });
    drop(runtime);
    drop(guard);
    let observing = tokio::runtime::Runtime::new().unwrap();
    observing.block_on(async { Observer::new().assert_free(&key, "the runtime's end").await });
}

/// A body that borrows, awaits, opens a transaction and takes a further lock, all in a spawned task.
#[tokio::test]
async fn a_body_may_borrow_and_nest_in_a_spawned_task() {
    let (pool, mut observer, key) = (bb8_pool().await, Observer::new(), fresh_key());
    let (outer, inner) = (key.clone(), fresh_key());
    let task = tokio::spawn(async move {
        let mut steps = vec!["begin"];
        let value = pool
            .with_advisory_lock(outer, NO_WAIT, async |conn| {
                steps.push("locked");
                conn.with_advisory_lock(&inner, NO_WAIT, async |conn| {
                    conn.transaction(async |conn| {
                        select(7.into_sql::<Integer>())
                            .get_result::<i32>(conn)
                            .await
                    })
                    .await
                })
                .await
            })
            .await;
        (steps, value)
    });
    assert_eq!(task.await.unwrap(), (vec!["begin", "locked"], Ok(7)));
    observer.assert_free(&key, "the task").await;
}

#[tokio::test]
async fn a_session_that_is_terminated_under_the_lock_is_lost() {
    let (mut conn, key) = (connect().await, fresh_key());
    let mut other = connect().await;
    let result = conn
        .with_advisory_lock(&key, NO_WAIT, async |conn| {
            let terminate = diesel::sql_query("SELECT pg_terminate_backend($1)");
            terminate
                .bind::<Integer, _>(pid(conn).await)
                .execute(&mut other)
                .await
                .unwrap();
            Ok::<_, LockError>(())
        })
        .await;
    assert_eq!(result.unwrap_err().kind(), LockErrorKind::Lost);
}

/// There is no session to end on SQLite, but what was begun must not stay open.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_dropped_on_sqlite_is_rolled_back() {
    let mut conn = SyncConnectionWrapper::<SqliteConnection>::establish(":memory:")
        .await
        .unwrap();
    conn.batch_execute("CREATE TABLE written (number INTEGER)")
        .await
        .unwrap();
    let call = conn.with_advisory_xact_lock(
        fresh_key(),
        NO_WAIT.on_missing_lock(OnMissingLock::Ignore),
        async |conn| {
            conn.batch_execute("INSERT INTO written VALUES (1)").await?;
            std::future::pending::<Result<(), diesel::result::Error>>().await
        },
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(50), call)
            .await
            .is_err()
    );
    let rows = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM written");
    assert_eq!(rows.get_result::<i64>(&mut conn).await, Ok(0));
    conn.batch_execute("BEGIN; COMMIT").await.unwrap();
}

/// The client sees no transaction there, so the release is sent, and fails.
#[tokio::test]
async fn a_guard_dropped_in_an_invisible_aborted_transaction_frees_the_key() {
    let (pool, mut observer, key) = (bb8_pool().await, Observer::new(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    guard.batch_execute("BEGIN").await.unwrap();
    guard.batch_execute("SELECT 1/0").await.unwrap_err();
    drop(guard);
    observer
        .assert_free(&key, "a drop in an aborted transaction")
        .await;
    assert_eq!(
        select(1.into_sql::<Integer>())
            .get_result::<i32>(&mut pool.get().await.unwrap())
            .await,
        Ok(1)
    );
}

#[tokio::test]
async fn a_guard_dropped_in_a_transaction_of_the_callers_frees_the_key() {
    for fails in [false, true] {
        let (pool, mut observer, key) = (deadpool_pool(), Observer::new(), fresh_key());
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
        assert_eq!(
            select(1.into_sql::<Integer>())
                .get_result::<i32>(&mut pool.get().await.unwrap())
                .await,
            Ok(1)
        );
    }
}

/// The server begins it all the same, and diesel-async counts no transaction.
#[tokio::test]
async fn a_begin_dropped_in_flight_is_not_taken_for_no_transaction() {
    let (mut conn, mut observer, key) = (connect().await, Observer::new(), fresh_key());
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
    assert_eq!(result.unwrap_err().kind(), LockErrorKind::Lost);
    observer.assert_free(&key, "the body").await;
}

/// A transaction dropped at its savepoint leaves the scope's own to be rolled back; the body's error arrives, and no panic.
#[tokio::test]
async fn a_savepoint_dropped_in_flight_does_not_hide_the_bodys_error() {
    let (mut conn, mut observer, key) = (connect().await, Observer::new(), fresh_key());
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
