//! Transactions of the caller: begun by sqlx, begun by hand, and after a dropped request.

use std::time::Duration;

use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockOptions,
    WaitStrategy,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use testkit::counts::{self, counts_of};
use testkit::gate::Gate;
use testkit::observer::{LockEntry, Observe};
use testkit::pending::drop_at;
use testkit::server::{
    connect as observer, eventually, eventually_async, fresh_key, fresh_name, kind_of,
};
use testkit::temp::TempRole;
use tokio::sync::Notify;

use crate::{NO_WAIT, connect, insert, pid, pool_of};

/// A connection with a table of its session.
async fn with_table() -> (PgConnection, String) {
    let (mut conn, table) = (connect().await, fresh_name());
    let create = format!("CREATE TEMPORARY TABLE {table} (number int4)");
    conn.execute(AssertSqlSafe(create)).await.unwrap();
    (conn, table)
}

async fn count(conn: &mut PgConnection, table: &str) -> sqlx::Result<i64> {
    let count = format!("SELECT count(*) FROM {table}");
    let count = sqlx::query_scalar(AssertSqlSafe(count));
    count.fetch_one(conn).await
}

#[tokio::test]
async fn transaction_holds_its_lock_until_it_ends() {
    let (mut conn, key) = (connect().await, fresh_key());
    for commits in [true, false] {
        let mut tx = conn.begin().await.unwrap();
        tx.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
        assert!(!observer().is_free(&key));
        if commits {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        assert!(observer().is_free(&key));
    }
}

/// sqlx does not see the transaction, so the release finds it.
#[tokio::test]
async fn transaction_begun_by_hand_is_reported() {
    let (mut conn, key) = (connect().await, fresh_key());
    conn.execute("BEGIN").await.unwrap();
    let guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let released = guard.release().await;
    let kind = Some(LockErrorKind::TransactionLeftOpen);
    assert_eq!(kind_of(released), kind);
    observer()
        .assert_free(&key, "the session was terminated")
        .await;
}

/// A request may be dropped at any point. The transaction is committed, or its commit fails.
#[tokio::test]
async fn dropped_request_loses_no_commit() {
    for limit in 0..40 {
        let (mut conn, table) = with_table().await;
        let key = fresh_key();
        let mut tx = conn.begin().await.unwrap();
        insert(&mut tx, &table).await.unwrap();
        let ended = drop_at(limit, tx.acquire_advisory_xact_lock(&key, NO_WAIT)).await;
        let committed = tx.commit().await;
        let rows = count(&mut conn, &table).await;
        assert!(
            committed.is_err() || matches!(rows, Ok(1)),
            "{limit}: {committed:?}, but {rows:?}"
        );
        conn.close().await.ok();
        observer().assert_free(&key, "the transaction").await;
        if ended.is_some() {
            return;
        }
    }
    panic!("the request does not end");
}

/// A scope in a transaction of the caller may be dropped at any point.
#[tokio::test]
async fn dropped_scope_rolls_back_only_itself() {
    for limit in 0..80 {
        let (mut conn, table) = with_table().await;
        let key = fresh_key();
        let mut tx = conn.begin().await.unwrap();
        insert(&mut tx, &table).await.unwrap();
        let scope = tx.with_advisory_xact_lock(&key, NO_WAIT, async |tx| insert(tx, &table).await);
        let ended = drop_at(limit, scope).await;
        let committed = tx.commit().await;
        let rows = count(&mut conn, &table).await;
        if ended.is_some() {
            committed.unwrap();
            assert_eq!(rows.unwrap(), 2);
            return;
        }
        // The second row is there only if the end of the scope was dropped after its commit.
        assert!(
            committed.is_err() || matches!(rows, Ok(1 | 2)),
            "{limit}: {committed:?}, but {rows:?}"
        );
        conn.close().await.ok();
        observer().assert_free(&key, "the transaction").await;
    }
    panic!("the scope does not end");
}

/// The pause is in a savepoint of the crate. Only that savepoint is rolled back.
#[tokio::test]
async fn scope_dropped_in_a_pause_keeps_the_transaction() {
    counts::count();
    let ((mut conn, table), mut other, key) = (with_table().await, connect().await, fresh_key());
    let held = other.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    insert(&mut tx, &table).await.unwrap();
    let polls = LockOptions::wait_forever().interval(Duration::from_secs(3600));
    let scope = tx.with_advisory_xact_lock(&key, polls, async |_| Ok::<_, LockError>(()));
    tokio::select! {
        ended = scope => panic!("{ended:?}"),
        () = eventually_async("a pause", || counts_of(&key).waits > 0) => {}
    }
    tx.commit().await.unwrap();
    assert_eq!(count(&mut conn, &table).await.unwrap(), 1);
    held.release().await.unwrap();
}

/// The caller's transaction has failed before the scope. Its commit must not succeed afterwards.
#[tokio::test]
async fn scope_that_does_not_begin_loses_no_commit() {
    for is_alive in [true, false] {
        let (mut conn, table) = with_table().await;
        let (session, key) = (pid(&mut conn).await, fresh_key());
        let mut tx = conn.begin().await.unwrap();
        insert(&mut tx, &table).await.unwrap();
        if is_alive {
            tx.execute("SELECT 1 / 0").await.unwrap_err();
        } else {
            observer().run(&format!("SELECT pg_terminate_backend({session})"));
            observer().wait_until_ended(session);
        }
        let scope = tx.with_advisory_xact_lock(&key, NO_WAIT, async |_| -> Result<(), LockError> {
            panic!("the body runs")
        });
        assert_eq!(kind_of(scope.await), Some(LockErrorKind::Database));
        tx.commit().await.unwrap_err();
    }
}

/// The server refuses the attempt without running it, so the session keeps its other lock.
#[tokio::test]
async fn attempt_in_an_aborted_transaction_keeps_the_session() {
    let (mut conn, key, refused) = (connect().await, fresh_key(), fresh_key());
    let session = pid(&mut conn).await;
    let mut guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let mut tx = guard.begin().await.unwrap();
    tx.execute("SELECT 1 / 0").await.unwrap_err();
    let allowed = NO_WAIT.allow_in_transaction();
    let attempt = tx.acquire_advisory_lock(&refused, allowed).await;
    assert_eq!(kind_of(attempt), Some(LockErrorKind::TransactionAborted));
    tx.rollback().await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(pid(&mut conn).await, session);
    assert!(observer().is_free(&refused));
}

/// sqlx does not see the transaction, so the pool would hand it out again and again.
#[tokio::test]
async fn pool_replaces_a_session_in_an_unknown_aborted_transaction() {
    let (pool, key) = (pool_of(1).await, fresh_key());
    let mut conn = pool.acquire().await.unwrap();
    conn.execute("BEGIN").await.unwrap();
    conn.execute("SELECT 1 / 0").await.unwrap_err();
    drop(conn);
    let attempt = pool.acquire_advisory_lock(&key, NO_WAIT).await;
    assert_eq!(kind_of(attempt), Some(LockErrorKind::TransactionAborted));
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    guard.release().await.unwrap();
}

/// The lock is free, and the caller's commit does not succeed: its transaction was rolled back.
#[tokio::test]
async fn guard_dropped_in_a_transaction_ends_the_session() {
    let role = TempRole::create();
    let set_role = format!("SET ROLE {}", role.name());
    for prepared in ["SELECT 1", &set_role] {
        let (mut conn, key) = (connect().await, fresh_key());
        conn.execute(AssertSqlSafe(prepared)).await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        let options = NO_WAIT.allow_in_transaction();
        drop(tx.acquire_advisory_lock(&key, options).await.unwrap());
        tx.commit().await.unwrap_err();
        observer().assert_free(&key, "the session ended").await;
    }
}

/// The error of a statement that was dropped in flight comes before the end of its reply.
#[tokio::test]
async fn guard_dropped_behind_an_error_ends_the_session() {
    let mut observer = observer();
    for _ in 0..20 {
        let (mut conn, key) = (connect().await, fresh_key());
        let mut tx = conn.begin().await.unwrap();
        let options = NO_WAIT.allow_in_transaction();
        let mut guard = tx.acquire_advisory_lock(&key, options).await.unwrap();
        let session = guard.session_pid().unwrap();
        let failing = sqlx::raw_sql("SELECT 1 / 0").execute(&mut **guard);
        if drop_at(1, failing).await.is_some() {
            continue;
        }
        let aborted = "state = 'idle in transaction (aborted)'";
        eventually(aborted, || observer.session_matches(session, aborted));
        // Lets the runtime see that the reply has arrived.
        connect().await.ping().await.unwrap();
        drop(guard);
        // The end of the reply may arrive after the drop, which sends nothing then.
        for _ in 0..100 {
            if observer.is_free(&key) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("the session keeps the lock");
}

/// The wait of a transaction that was dropped ends, and the connection stays usable.
#[tokio::test]
async fn dropped_wait_in_a_transaction_ends() {
    let (mut conn, mut other, key) = (connect().await, connect().await, fresh_key());
    let held = other.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    let block = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    let mut observer = observer();
    let queued = |entries: &[LockEntry]| entries.len() == 2;
    tokio::select! {
        ended = tx.acquire_advisory_xact_lock(&key, block) => panic!("{ended:?}"),
        () = observer.wait_for(&key, queued, "it queues") => {}
    }
    // It returns the error of the wait, whose reply it reads.
    tx.rollback().await.unwrap_err();
    conn.execute("SELECT 1").await.unwrap();
    held.release().await.unwrap();
    observer.assert_free(&key, "the release").await;
}

/// sqlx 0.9.0 rolls back two levels if a `begin` is dropped in flight.
#[tokio::test]
async fn begin_dropped_in_a_nested_scope_ends_the_outer_transaction() {
    let (mut conn, key) = (connect().await, fresh_key());
    let mut tx = conn.begin().await.unwrap();
    let scope = tx.with_advisory_xact_lock(&key, NO_WAIT, async |tx| {
        // The reply may be there at the first poll.
        while drop_at(1, tx.begin()).await.is_some() {}
        Ok::<_, LockError>(())
    });
    assert_eq!(kind_of(scope.await), Some(LockErrorKind::NotHeld));
    assert!(!tx.is_in_transaction());
    tx.commit().await.unwrap();
}

/// sqlx performs the rollback on a thread. Until then, it counts the transaction.
#[tokio::test]
async fn transaction_dropped_on_sqlite_is_not_left_open() {
    let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let body = async |conn: &mut SqliteConnection| {
        drop(conn.begin().await?);
        Ok::<_, sqlx::Error>(())
    };
    for _ in 0..100 {
        let key = fresh_key();
        conn.with_advisory_lock(&key, NO_WAIT, body).await.unwrap();
        let scope = conn.with_advisory_xact_lock(&key, NO_WAIT, body);
        scope.await.unwrap();
        drop(conn.begin().await.unwrap());
        let guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        guard.release().await.unwrap();
    }
}

/// The drops of the scope and of the transaction in it roll back no transaction of the caller.
#[tokio::test]
async fn scope_dropped_on_sqlite_keeps_the_outer_transaction() {
    for _ in 0..100 {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let create = "CREATE TABLE numbers (number INTEGER)";
        conn.execute(create).await.unwrap();
        let (begun, key) = (Notify::new(), fresh_key());
        let mut tx = conn.begin().await.unwrap();
        tx.execute("INSERT INTO numbers VALUES (1)").await.unwrap();
        let scope = tx.with_advisory_xact_lock(&key, NO_WAIT, async |tx| {
            let _inner = tx.begin().await?;
            begun.notify_one();
            std::future::pending::<sqlx::Result<()>>().await
        });
        tokio::select! {
            ended = scope => panic!("{ended:?}"),
            () = begun.notified() => {}
        }
        tx.commit().await.unwrap();
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM numbers");
        assert_eq!(count.fetch_one(&mut conn).await.unwrap(), 1);
    }
}

/// An error of SQLite ends all transactions, which sqlx still counts.
#[tokio::test]
async fn transaction_ended_by_sqlite_in_a_scope_is_not_committed() {
    for swallows in [false, true] {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let create = "CREATE TABLE numbers (number INTEGER PRIMARY KEY)";
        conn.execute(create).await.unwrap();
        let (mut tx, key) = (conn.begin().await.unwrap(), fresh_key());
        tx.execute("INSERT INTO numbers VALUES (1)").await.unwrap();
        let scope = tx.with_advisory_xact_lock(&key, NO_WAIT, async |tx| {
            let rejected = tx.execute("INSERT OR ROLLBACK INTO numbers VALUES (1)");
            match rejected.await {
                Err(_) if swallows => Ok(()),
                rejected => rejected.map(drop),
            }
        });
        scope.await.unwrap_err();
        tx.commit().await.unwrap_err();
    }
}

/// No task reads the reply, so the server does not reach the release.
#[tokio::test]
async fn unread_reply_of_a_dropped_body_keeps_the_lock() {
    let (mut conn, key) = (connect().await, fresh_key());
    let mut guard = conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let pid = guard.session_pid().unwrap();
    let (mut gate, mut observer) = (Gate::closed(), observer());
    // 100 MB, more than the buffers of the socket. At the gate the reply has not begun, so no
    // client reads to its end before the drop.
    let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)";
    let rows = format!("{}; {rows}", gate.statement());
    let sent = sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut *guard);
    gate.drop_there(&mut observer, sent).await;
    drop(guard);
    gate.open();
    eventually("the server waits for the client", || {
        observer.session_matches(pid, "wait_event = 'ClientWrite'")
    });
    assert!(!observer.is_free(&key));
    conn.ping().await.unwrap();
    observer.assert_free(&key, "the next use").await;
}
