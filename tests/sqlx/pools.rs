//! Pools: hooks, connections that are closed, replies that never end.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use advisory_locking::backends::sqlx::PooledPgConnection;
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockKey, LockMode,
    LockOptions, WaitStrategy,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use testkit::observer::{Observe, lock_call};
use testkit::pending::drop_at;
use testkit::proxy::{Direction, Policy, Proxy};
use testkit::server::{
    block, connect as observer, eventually_async, fresh_key, fresh_name, kind_of, poll, url,
};
use testkit::temp::TempRole;
use tokio::sync::Notify;

use crate::{NO_WAIT, insert, pid, pool_of};

/// Both hooks run for each lock, and `after_release` runs after the release.
#[tokio::test]
async fn hooks_of_the_pool_run() {
    let counts: [Arc<AtomicUsize>; 3] = Default::default();
    let [acquired, returned, held] = counts.clone();
    let key = fresh_key();
    let released = key.clone();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .before_acquire(move |_, _| {
            acquired.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        })
        .after_release(move |_, _| {
            let is_held = !observer().is_free(&released);
            held.fetch_add(usize::from(is_held), Ordering::Relaxed);
            returned.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        })
        .connect(&url())
        .await
        .unwrap();
    for _ in 0..3 {
        let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        guard.release().await.unwrap();
        drop(pool.acquire().await.unwrap());
    }
    let [acquired, returned, held] = counts.map(|count| count.load(Ordering::Relaxed));
    // The first checkout opens a connection, so its hook does not run.
    assert!(acquired >= 3, "{acquired}");
    // A checkout waits for the return before it, and none follows the last return.
    assert!(returned >= 5, "{returned}");
    assert_eq!(held, 0);
}

#[tokio::test]
async fn lock_works_without_the_cache_of_statements() {
    let options: PgConnectOptions = url().parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options.statement_cache_capacity(0));
    let (pool, other, key) = (pool.await.unwrap(), pool_of(1).await, fresh_key());
    for _ in 0..2 {
        let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        assert!(!observer().is_free(&key));
        let contended = other.acquire_advisory_lock(&key, NO_WAIT).await;
        assert_eq!(kind_of(contended), Some(LockErrorKind::HeldElsewhere));
        guard.release().await.unwrap();
        assert!(observer().is_free(&key));
    }
    for waiting in [poll(), block()] {
        let body = async |conn: &mut PooledPgConnection| {
            sqlx::query("SELECT $1::int8")
                .bind(1_i64)
                .execute(&mut **conn)
                .await
        };
        pool.with_advisory_lock(&key, waiting, body).await.unwrap();
        pool.with_advisory_xact_lock(&key, waiting, body)
            .await
            .unwrap();
        assert!(observer().is_free(&key));
    }
}

/// sqlx 0.9.0 closes no named statement that it does not cache.
#[tokio::test]
async fn locks_leave_no_statement_without_a_cache() {
    let options: PgConnectOptions = url().parse().unwrap();
    let options = options.statement_cache_capacity(0);
    let mut conn = PgConnection::connect_with(&options).await.unwrap();
    let (key, mut prepared) = (fresh_key(), Vec::new());
    for _ in 0..3 {
        let guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        guard.release().await.unwrap();
        let body = async |_: &mut PgConnection| Ok::<_, LockError>(());
        let done = conn.with_advisory_xact_lock(&key, NO_WAIT, body);
        done.await.unwrap();
        let count = sqlx::raw_sql("SELECT count(*) FROM pg_prepared_statements");
        let row = count.fetch_one(&mut conn).await.unwrap();
        prepared.push(sqlx::Row::get::<i64, _>(&row, 0));
    }
    // The first one of the process shows that there is no cache.
    assert!(prepared.iter().all(|&count| count <= 1), "{prepared:?}");

    // The statements that are sent as text find the same as those with a name.
    let mut other = crate::connect().await;
    let held = other.acquire_advisory_lock(&key, NO_WAIT.shared()).await;
    // Longer than the try, so that a wait and its clean-up follow.
    let limit = LockOptions::wait_up_to(Duration::from_millis(200));
    let limited = limit.strategy(WaitStrategy::Block);
    let timed_out = conn.acquire_advisory_lock(&key, limited).await;
    assert_eq!(kind_of(timed_out), Some(LockErrorKind::TimedOut));
    // The reply of a report is an array, which is read in the binary format only.
    let report = conn.advisory_lock_holders(&key).await.unwrap();
    assert_eq!(report.holders.len(), 1);
    held.unwrap().release().await.unwrap();
    let mut guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    (&mut *guard)
        .execute("BEGIN; SELECT txid_current()")
        .await
        .unwrap();
    let left_open = guard.release().await;
    assert_eq!(kind_of(left_open), Some(LockErrorKind::TransactionLeftOpen));
    observer().assert_free(&key, "the session ended").await;
}

/// A hook of the pool discards the state of each session that returns, and the session loses its
/// prepared statements.
#[tokio::test]
async fn discard_all_by_a_hook_affects_no_lock() {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_release(|conn, _| {
            Box::pin(async move { conn.execute("DISCARD ALL").await.map(|_| true) })
        })
        .connect(&url())
        .await
        .unwrap();
    let key = fresh_key();
    // The second finds the lost statements outside a transaction. So none is prepared in one.
    for _ in 0..2 {
        let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        guard.release().await.unwrap();
        assert!(observer().is_free(&key));
    }
    for _ in 0..3 {
        let done = pool.with_advisory_xact_lock(&key, NO_WAIT, async |conn| {
            conn.acquire_advisory_xact_lock(fresh_key(), NO_WAIT).await
        });
        done.await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// In a transaction the error aborts the transaction. Only one attempt of the process fails.
#[tokio::test]
async fn statements_lost_in_a_transaction_fail_one_attempt() {
    let (pool, key) = (pool_of(1).await, fresh_key());
    let mut failed = 0;
    for _ in 0..4 {
        let mut tx = pool.begin().await.unwrap();
        match tx.acquire_advisory_xact_lock(&key, NO_WAIT).await {
            Ok(()) => assert!(!observer().is_free(&key)),
            Err(error) => {
                assert_eq!(error.kind(), LockErrorKind::TransactionAborted);
                failed += 1;
            }
        }
        tx.rollback().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.execute("DISCARD ALL").await.unwrap();
    }
    assert!(failed <= 1, "{failed} attempts failed");
    // Only an attempt is sent as text from then on. The reply of a report is an array, which is
    // read in the binary format only.
    let mut tx = pool.begin().await.unwrap();
    tx.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
    let report = tx.advisory_lock_holders(&key).await.unwrap();
    assert_eq!(report.holders.len(), 1);
    tx.commit().await.unwrap();
}

/// Neither transaction is one that sqlx counts, and the release finds none: nothing was written.
#[tokio::test]
async fn connection_in_an_unknown_transaction_is_not_reused() {
    let (proxy, key) = (Proxy::start(), fresh_key());
    let pool = pool_through(&proxy).await;
    for is_dropped in [true, false] {
        let begun = pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
            if is_dropped {
                // Its reply cannot arrive before the drop.
                proxy.set(Direction::ToClient, Policy::Hold);
                assert!(drop_at(1, conn.begin()).await.is_none());
                proxy.forward();
            } else {
                (&mut **conn).execute("BEGIN").await.unwrap();
            }
            Ok::<_, LockError>(pid(conn).await)
        });
        let session = begun.await.unwrap();
        assert_ne!(pid(&mut pool.acquire().await.unwrap()).await, session);
        assert!(observer().is_free(&key));
    }
    // A connection that the body used otherwise is reused.
    let used = pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
        Ok::<_, LockError>(pid(conn).await)
    });
    let session = used.await.unwrap();
    assert_eq!(pid(&mut pool.acquire().await.unwrap()).await, session);
}

/// The session keeps the lock, which the release prepares its statement for again.
#[tokio::test]
async fn deallocated_statements_affect_no_release() {
    let (pool, key) = (pool_of(1).await, fresh_key());
    for _ in 0..2 {
        let done = pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
            let deallocate = sqlx::raw_sql("DEALLOCATE ALL");
            deallocate.execute(&mut **conn).await.map(drop)
        });
        done.await.unwrap();
        assert!(observer().is_free(&key));
    }
}

#[tokio::test]
async fn connection_returns_after_a_dropped_guard() {
    let (pool, key) = (pool_of(1).await, fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let session = pid(&mut guard).await;
    drop(guard);
    observer().assert_free(&key, "the drop").await;
    assert_eq!(pid(&mut pool.acquire().await.unwrap()).await, session);
}

/// Creates a table that only the session of the pool's connection sees.
async fn temporary_table(pool: &PgPool) -> String {
    let table = fresh_name();
    let create = format!("CREATE TEMPORARY TABLE {table} (number int4)");
    pool.execute(AssertSqlSafe(create)).await.unwrap();
    table
}

/// Drops a call when its body has inserted a row, and asserts that the same session has no row.
async fn drop_after_insert(
    pool: &PgPool,
    key: &LockKey,
    table: &str,
    inserted: &Notify,
    call: impl Future<Output = sqlx::Result<()>>,
) {
    tokio::select! {
        ended = call => panic!("{ended:?}"),
        () = inserted.notified() => {}
    }
    observer().assert_free(key, "the drop").await;
    let count = format!("SELECT count(*) FROM {table}");
    let count = sqlx::query_scalar::<_, i64>(AssertSqlSafe(count));
    assert_eq!(count.fetch_one(pool).await.unwrap(), 0);
}

#[tokio::test]
async fn connection_returns_after_a_dropped_scope() {
    let (pool, key, inserted) = (pool_of(1).await, fresh_key(), Notify::new());
    let table = temporary_table(&pool).await;
    let call = pool.with_advisory_xact_lock(&key, NO_WAIT, async |conn| {
        insert(conn, &table).await?;
        inserted.notify_one();
        std::future::pending().await
    });
    drop_after_insert(&pool, &key, &table, &inserted, call).await;
}

#[tokio::test]
async fn transaction_of_a_dropped_body_is_rolled_back() {
    let (pool, key, inserted) = (pool_of(1).await, fresh_key(), Notify::new());
    let table = temporary_table(&pool).await;
    let call = pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
        let mut tx = conn.begin().await?;
        insert(&mut tx, &table).await?;
        inserted.notify_one();
        std::future::pending().await
    });
    drop_after_insert(&pool, &key, &table, &inserted, call).await;
}

/// sqlx cannot read the reply to `COPY … FROM STDIN`, and the server waits for the client's data.
#[tokio::test]
async fn reply_that_never_ends_closes_the_connection() {
    let (pool, table) = (pool_of(1).await, fresh_name());
    let key = fresh_key();
    let called = pool
        .with_advisory_lock(&key, NO_WAIT, async |conn| {
            let create = format!("CREATE TEMPORARY TABLE {table} (number int4)");
            (&mut **conn).execute(AssertSqlSafe(create)).await.unwrap();
            let copy = format!("COPY {table} FROM STDIN");
            (&mut **conn)
                .execute(AssertSqlSafe(copy))
                .await
                .unwrap_err();
            Ok::<_, LockError>(())
        })
        .await;
    assert_eq!(kind_of(called), Some(LockErrorKind::Lost));
    observer()
        .assert_free(&key, "the connection was closed")
        .await;
    pool.execute("SELECT 1").await.unwrap();
}

/// The check needs a session of its own, and the server refuses one: the statement may still run.
#[tokio::test]
async fn refused_check_ends_no_running_statement() {
    let role = TempRole::create_with("CONNECTION LIMIT 1");
    let proxy = Proxy::start();
    let options = PgPoolOptions::new().max_connections(1);
    let pool = options.connect(&role.url(&proxy.url())).await.unwrap();
    let (key, awaited) = (fresh_key(), fresh_key());
    let mut other = crate::connect().await;
    let held = other.acquire_advisory_lock(&awaited, NO_WAIT).await;

    let wait = lock_call("pg_advisory_xact_lock", awaited.raw(), LockMode::Exclusive);
    let wait = format!("SELECT {wait}");
    let mut call = pin!(pool.with_advisory_lock(&key, NO_WAIT, async |conn| {
        let session = pid(conn).await;
        let dropped = sqlx::raw_sql(AssertSqlSafe(wait.as_str())).execute(&mut **conn);
        assert!(drop_at(1, dropped).await.is_none());
        Ok::<_, LockError>(session)
    }));
    // One connection is that of the pool, and each check opens another one.
    let checked = eventually_async("the checks", || proxy.connections() >= 4);
    tokio::select! {
        ended = &mut call => panic!("{ended:?}"),
        () = checked => {}
    }
    held.unwrap().release().await.unwrap();
    let session = call.await.unwrap();
    assert_eq!(pid(&mut pool.acquire().await.unwrap()).await, session);
    assert!(observer().is_free(&key));
    pool.close().await;
}

/// The same reply in a guard that is dropped.
#[tokio::test]
async fn dropped_guard_with_an_endless_reply_closes_the_connection() {
    let (pool, table, key) = (pool_of(1).await, fresh_name(), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let create = format!("CREATE TEMPORARY TABLE {table} (number int4)");
    (&mut **guard).execute(AssertSqlSafe(create)).await.unwrap();
    let copy = format!("COPY {table} FROM STDIN");
    (&mut **guard)
        .execute(AssertSqlSafe(copy))
        .await
        .unwrap_err();
    drop(guard);
    observer()
        .assert_free(&key, "the connection was closed")
        .await;
    pool.execute("SELECT 1").await.unwrap();
}

/// The messages of the drop do not arrive, so the server does not reply. Neither the caller nor the
/// body has used the connection.
#[tokio::test]
async fn drop_without_replies_costs_the_connection_only() {
    let proxy = Proxy::start();
    let pool = pool_through(&proxy).await;
    for in_transaction in [false, true] {
        let (key, granted) = (fresh_key(), Notify::new());
        if in_transaction {
            let call = pool.with_advisory_xact_lock(&key, NO_WAIT, async |_conn| {
                proxy.hold_from("ROLLBACK");
                granted.notify_one();
                std::future::pending::<sqlx::Result<()>>().await
            });
            tokio::select! {
                ended = call => panic!("{ended:?}"),
                () = granted.notified() => {}
            }
        } else {
            let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
            proxy.hold_from("advisory_locking.released");
            drop(guard);
        }
        proxy.wait_until_held(Direction::ToServer);
        // Another connection, which the pool opens when that of the lock is closed.
        let other = pool.acquire().await;
        assert!(
            !observer().is_free(&key),
            "in a transaction: {in_transaction}"
        );
        other.unwrap();
        proxy.forward();
        observer()
            .assert_free(&key, "the connection was closed")
            .await;
    }
}

/// With a minimum of connections, the drop of each spawns a task.
#[test]
fn drop_without_a_runtime_keeps_the_minimum_of_connections() {
    let [runtime, other] = [(); 2].map(|()| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    });
    let options = PgPoolOptions::new().min_connections(1).max_connections(1);
    let pool = runtime.block_on(options.connect(&url())).unwrap();
    let key = fresh_key();
    let acquire = || {
        runtime
            .block_on(pool.acquire_advisory_lock(&key, NO_WAIT))
            .unwrap()
    };
    for leaves_transaction in [false, true] {
        let mut guard = acquire();
        if leaves_transaction {
            std::mem::forget(runtime.block_on(guard.begin()).unwrap());
        }
        drop(guard);
        other.block_on(observer().assert_free(&key, "a drop without a runtime"));
        runtime.block_on(async { drop(pool.acquire().await.unwrap()) });
    }
    let guard = acquire();
    drop(runtime);
    drop(guard);
    other.block_on(observer().assert_free(&key, "a drop after the end of the runtime"));
}

/// The transaction may be committed or rolled back, so the pool does not reuse the session.
#[tokio::test]
async fn dropped_commit_ends_the_session() {
    let (proxy, key) = (Proxy::start(), fresh_key());
    let pool = pool_through(&proxy).await;
    let before = pid(&mut pool.acquire().await.unwrap()).await;
    let body_has_ended = AtomicBool::new(false);
    {
        let mut scope = pin!(pool.with_advisory_xact_lock(&key, NO_WAIT, async |_conn| {
            proxy.set(Direction::ToClient, Policy::Hold);
            body_has_ended.store(true, Ordering::Relaxed);
            Ok::<_, sqlx::Error>(())
        }));
        poll_fn(|context| {
            assert!(scope.as_mut().poll(context).is_pending(), "no reply yet");
            // From here on, the first message of the commit is in flight.
            if body_has_ended.load(Ordering::Relaxed) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
    proxy.forward();
    let after = pid(&mut pool.acquire().await.unwrap()).await;
    assert_ne!(after, before);
    observer().assert_free(&key, "the session ended").await;
}

/// Leaves a `COPY` before its end, into the session's table or out of it.
async fn drop_copy(conn: &mut PooledPgConnection, table: &str, is_in: bool) {
    let create = format!("CREATE TEMPORARY TABLE IF NOT EXISTS {table} (number int4)");
    (&mut **conn).execute(AssertSqlSafe(create)).await.unwrap();
    if is_in {
        let copy = format!("COPY {table} FROM STDIN");
        drop(conn.copy_in_raw(&copy).await.unwrap());
    } else {
        let rows = "COPY (SELECT generate_series(1, 100000)) TO STDOUT";
        drop(conn.copy_out_raw(rows).await.unwrap());
    }
}

/// sqlx does not count the reply to such a `COPY`, so each later reply would be that to the
/// statement before.
#[tokio::test]
async fn copy_dropped_in_a_body_costs_its_connection() {
    let (pool, key, table) = (pool_of(1).await, fresh_key(), fresh_name());
    for is_in in [true, false] {
        let body = async |conn: &mut PooledPgConnection| {
            drop_copy(conn, &table, is_in).await;
            Ok::<_, LockError>(())
        };
        let called = pool.with_advisory_lock(&key, NO_WAIT, body).await;
        assert_eq!(kind_of(called), Some(LockErrorKind::Lost), "{is_in}");
        let called = pool.with_advisory_xact_lock(&key, NO_WAIT, body).await;
        assert!(kind_of(called).is_some(), "{is_in}");
        observer().assert_free(&key, "the end of the session").await;
        let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        drop_copy(&mut guard, &table, is_in).await;
        drop(guard);
        // The pool's only connection returns the reply to this statement.
        let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        guard.release().await.unwrap();
        observer().assert_free(&key, "the release").await;
    }
}

/// Returns a pool of one connection.
async fn pool_through(proxy: &Proxy) -> PgPool {
    let options = PgPoolOptions::new().max_connections(1);
    options.connect(&proxy.url()).await.unwrap()
}
