//! Guards and bodies that are dropped, panic, or outlive their runtime.

use std::future::Future;
use std::time::Duration;

use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::session::AsyncLockPool;
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockErrorKind, LockOptions, WaitStrategy,
};
use futures_util::StreamExt;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, Statement,
    StreamTrait, TransactionTrait,
};
use testkit::fake_server::{FakeServer, Rule};
use testkit::gate::Gate;
use testkit::observer::Observe;
use testkit::proxy::{Direction, Policy, Proxy};
use testkit::server::{connect, eventually_async, fresh_key, url};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::open::{NO_WAIT, number, pid, poll_times, postgres, sqlite};

/// Waits on the server without a limit, so that an orphaned wait does not end by itself.
fn block() -> LockOptions {
    LockOptions::wait_forever().strategy(WaitStrategy::Block)
}

#[tokio::test]
async fn a_dropped_guard_releases_and_keeps_the_connection() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let before = pid(&*guard).await;
    drop(guard);
    observer.assert_free(&key, "dropping the guard").await;
    assert_eq!(pid(&db).await, before);
}

/// The release follows the statement in flight, which is not cancelled.
#[tokio::test]
async fn a_body_dropped_in_a_statement_releases_when_that_ends() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let (before, mut gate) = (pid(&db).await, Gate::closed());
    let at_the_gate = gate.statement();
    let call = db.with_advisory_lock(&key, NO_WAIT, async |db| {
        db.execute_unprepared(&at_the_gate).await
    });
    gate.drop_there(&mut observer, call).await;
    assert_eq!(
        observer.lock_entries(&key).len(),
        1,
        "the statement is running"
    );
    gate.open();
    observer.assert_free(&key, "the statement in flight").await;
    assert_eq!(pid(&db).await, before, "the connection stays in the pool");
}

/// The release is the next statement. It neither reports an error of the dropped statement nor runs
/// in its transaction.
#[tokio::test]
async fn release_cleans_up_statements_dropped_in_flight() {
    let (db, mut observer) = (postgres(1).await, connect());
    let before = pid(&db).await;
    for polls in 1..20 {
        let mut ended = 0;
        for fails in [true, false] {
            let key = fresh_key();
            let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
            let done = if fails {
                let failing = guard.execute_unprepared("SELECT 1/0");
                poll_times(polls, failing).await.is_some()
            } else {
                poll_times(polls, guard.begin()).await.is_some()
            };
            ended += usize::from(done);
            let what = format!("fails: {fails}, polled {polls} times");
            let released = guard.release().await;
            assert!(released.is_ok(), "{what}: {released:?}");
            observer.assert_free(&key, &what).await;
            let outside = db.execute_unprepared("SAVEPOINT outside").await;
            assert!(
                outside.is_err(),
                "{what}: the pooled connection is in a transaction"
            );
        }
        assert_eq!(pid(&db).await, before, "the connection stays in the pool");
        if ended == 2 {
            return;
        }
    }
    panic!("the statements do not complete");
}

/// A failed rollback could not be reported. So the connection is closed.
#[tokio::test]
async fn a_body_dropped_in_a_transaction_frees_the_key() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    for level in ["session", "transaction"] {
        let mut gate = Gate::closed();
        let at_the_gate = gate.statement();
        if level == "session" {
            let call = db.with_advisory_lock(&key, NO_WAIT, async |db| {
                let tx = db.begin().await?;
                tx.execute_unprepared(&at_the_gate).await
            });
            gate.drop_there(&mut observer, call).await;
        } else {
            let call = db.with_advisory_xact_lock(&key, NO_WAIT, async |db| {
                db.execute_unprepared(&at_the_gate).await
            });
            gate.drop_there(&mut observer, call).await;
        }
        gate.open();
        observer
            .assert_free(&key, &format!("the {level}'s statement in flight"))
            .await;
        db.execute_unprepared("SELECT 1").await.unwrap();
    }
}

#[tokio::test]
async fn a_panic_in_the_body_frees_the_key() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    for in_transaction in [false, true] {
        let (db, key) = (db.clone(), key.clone());
        let task = tokio::spawn(async move {
            let body = async |_: &mut _| -> Result<(), DbErr> {
                std::panic::resume_unwind(Box::new("a body"))
            };
            if in_transaction {
                db.with_advisory_xact_lock(key, NO_WAIT, body).await
            } else {
                db.with_advisory_lock(key, NO_WAIT, body).await
            }
        });
        assert!(task.await.unwrap_err().is_panic());
    }
    observer.assert_free(&key, "the panics").await;
    db.execute_unprepared("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn an_aborted_task_frees_the_key() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let task = tokio::spawn({
        let (db, key) = (db.clone(), key.clone());
        async move {
            db.with_advisory_lock(key, NO_WAIT, async |_| {
                std::future::pending::<Result<(), DbErr>>().await
            })
            .await
        }
    });
    observer
        .wait_for(&key, |shown| shown.len() == 1, "the lock is not granted")
        .await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    observer.assert_free(&key, "the task").await;
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Opens a pool with a minimum of connections, where sqlx spawns a task in every drop.
async fn with_min_connections(size: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url());
    options
        .min_connections(1)
        .max_connections(size)
        .sqlx_logging(false);
    Database::connect(options).await.unwrap()
}

/// Waits on a new runtime until the key is free.
fn assert_free(key: &advisory_locking::LockKey, after: &str) {
    runtime().block_on(connect().assert_free(key, after));
}

#[test]
fn drop_without_runtime_leaves_connection_clean() {
    let runtime = runtime();
    let (key, other) = (fresh_key(), fresh_key());
    let db = runtime.block_on(with_min_connections(2));

    let guard = runtime
        .block_on(db.acquire_advisory_lock(&key, NO_WAIT))
        .unwrap();
    drop(guard);
    assert_free(&key, "a guard");
    drop(runtime.block_on(db.checkout()).unwrap());

    let guard = runtime
        .block_on(db.acquire_advisory_lock(&key, NO_WAIT))
        .unwrap();
    let tx = runtime.block_on(guard.begin()).unwrap();
    drop(guard);
    drop(tx);
    assert_free(&key, "a guard and its transaction");

    let guard = runtime
        .block_on(db.acquire_advisory_lock(&key, NO_WAIT))
        .unwrap();
    let mut gate = Gate::closed();
    let at_the_gate = gate.statement();
    for (wanted, is_held) in [(&key, true), (&other, false)] {
        let mut call = Box::pin(db.with_advisory_lock(wanted, block(), async |db| {
            db.execute_unprepared(&at_the_gate).await
        }));
        let mut observer = connect();
        runtime.block_on(async {
            tokio::select! {
                _ = &mut call => panic!("the call did not wait"),
                () = async {
                    if is_held {
                        observer.wait_for(wanted, |shown| shown.len() == 2, "no session waits").await;
                    } else {
                        gate.reached(&mut observer).await;
                    }
                } => {}
            }
        });
        drop(call);
    }
    gate.open();
    assert_free(&other, "a body");
    drop(guard);
    assert_free(&key, "a wait");

    let without_locks = runtime.block_on(sqlite());
    let begun = Notify::new();
    let mut call = Box::pin(
        without_locks.with_advisory_xact_lock(&key, NO_WAIT, async |db| {
            let _tx = db.begin().await?;
            begun.notify_one();
            std::future::pending::<Result<(), DbErr>>().await
        }),
    );
    runtime.block_on(async {
        tokio::select! {
            _ = &mut call => panic!("the call did not wait"),
            () = begun.notified() => {}
        }
    });
    drop(call);
    runtime
        .block_on(without_locks.execute_unprepared("BEGIN; ROLLBACK"))
        .unwrap();
    // The pool still has both connections.
    runtime
        .block_on(async { tokio::try_join!(db.begin(), db.begin()).map(drop) })
        .unwrap();
}

/// Starts a task on a runtime, waits for `shown` sessions at the key, and shuts the runtime down.
fn shut_down_in<F>(
    key: &advisory_locking::LockKey,
    shown: usize,
    what: &str,
    start: impl FnOnce() -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = runtime();
    let task = runtime.spawn(start());
    self::runtime().block_on(connect().wait_for(key, |held| held.len() == shown, what));
    drop(task);
    runtime.shutdown_timeout(Duration::from_secs(60));
}

#[test]
fn a_runtime_that_shuts_down_frees_its_locks() {
    let key = fresh_key();
    shut_down_in(&key, 1, "the lock is not granted", || {
        let key = key.clone();
        async move {
            let _guard = with_min_connections(1)
                .await
                .acquire_advisory_lock(key, NO_WAIT)
                .await;
            std::future::pending::<()>().await;
        }
    });
    assert_free(&key, "the runtime of a guard");

    let holders = runtime();
    let db = holders.block_on(postgres(1));
    let guard = holders
        .block_on(db.acquire_advisory_lock(&key, NO_WAIT))
        .unwrap();
    shut_down_in(&key, 2, "no session waits", || {
        let key = key.clone();
        async move {
            let _ = with_min_connections(1)
                .await
                .acquire_advisory_lock(key, block())
                .await;
        }
    });
    holders.block_on(connect().wait_for(
        &key,
        |shown| shown.len() == 1 && shown[0].granted,
        "the wait outlived its runtime",
    ));
    holders.block_on(guard.release()).unwrap();
}

#[tokio::test]
async fn a_session_that_is_terminated_under_the_lock_is_lost() {
    let (db, key) = (postgres(1).await, fresh_key());
    let result = db
        .with_advisory_lock(&key, NO_WAIT, async |db| {
            db.execute_unprepared("SELECT pg_terminate_backend(pg_backend_pid())")
                .await
                .unwrap_err();
            db.execute_unprepared("SELECT 1").await.unwrap_err();
            Ok::<_, advisory_locking::LockError>(())
        })
        .await;
    assert_eq!(result.unwrap_err().kind(), LockErrorKind::Lost);
    db.execute_unprepared("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_dropped_together_leave_the_queue_and_the_pool() {
    const WAITS: u32 = 12;
    let (db, mut observer, key) = (postgres(WAITS + 1).await, connect(), fresh_key());
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let waits: Vec<_> = (0..WAITS)
        .map(|_| {
            let (db, key) = (db.clone(), key.clone());
            tokio::spawn(async move { db.acquire_advisory_lock(key, block()).await.map(drop) })
        })
        .collect();
    observer
        .wait_for(
            &key,
            |shown| shown.len() == 1 + WAITS as usize,
            "some sessions do not wait yet",
        )
        .await;
    for wait in &waits {
        wait.abort();
    }
    observer
        .wait_for(&key, |shown| shown.len() == 1, "some sessions still wait")
        .await;
    guard.release().await.unwrap();
    observer.assert_free(&key, "the release").await;
    let all = (0..=WAITS).map(|_| db.begin());
    assert!(
        futures_util::future::join_all(all)
            .await
            .into_iter()
            .all(|begun| begun.is_ok())
    );
}

/// A stream keeps the connection. The remaining rows are read before the release.
#[tokio::test]
async fn a_body_dropped_in_a_stream_frees_the_key() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let streams = Notify::new();
    let call = db.with_advisory_lock(&key, NO_WAIT, async |db| {
        let many = Statement::from_string(
            db.get_database_backend(),
            "SELECT generate_series(1, 100000)",
        );
        let mut rows = db.stream_raw(many).await?;
        while let Some(row) = rows.next().await {
            row?;
            streams.notify_one();
            std::future::pending::<()>().await;
        }
        Ok::<_, DbErr>(())
    });
    tokio::select! {
        _ = call => panic!("the call did not wait"),
        () = streams.notified() => {}
    }
    observer.assert_free(&key, "the stream").await;
    db.execute_unprepared("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_call_dropped_anywhere_on_sqlite_leaves_no_transaction() {
    // In a file: sqlx closes a connection whose checkout is dropped, and a database in memory ends
    // with its connection.
    let (file, url) = crate::sqlite::empty_file("dropped");
    let db = crate::open::connect(url, 1).await;
    db.execute_unprepared("CREATE TABLE written (number INTEGER)")
        .await
        .unwrap();
    for in_transaction in [false, true] {
        for polls in 1..60 {
            let body = async |db: &mut PinnedConnection| {
                let tx = db.begin().await?;
                tx.execute_unprepared("INSERT INTO written VALUES (1)")
                    .await?;
                tx.commit().await
            };
            let done = if in_transaction {
                poll_times(polls, db.with_advisory_xact_lock("key", NO_WAIT, body)).await
            } else {
                poll_times(polls, db.with_advisory_lock("key", NO_WAIT, body)).await
            };
            // Fails if the only connection is in a transaction or lost.
            let tx = db.begin().await.unwrap();
            tx.execute_unprepared("DELETE FROM written").await.unwrap();
            tx.commit().await.unwrap();
            let what = format!("{in_transaction}, polled {polls} times");
            assert_eq!(
                number(&db, "SELECT COUNT(*) FROM written").await,
                0,
                "{what}"
            );
            if let Some(result) = done {
                result.unwrap();
                break;
            }
            assert!(polls < 59, "{what}: the call does not complete");
        }
    }
    db.close().await.unwrap();
    std::fs::remove_file(file).unwrap();
}

/// A task that the body spawned uses the connection when the body is dropped.
#[tokio::test]
async fn a_spawned_task_does_not_keep_the_lock() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let (mut gate, mut spawned) = (Gate::closed(), None);
    let at_the_gate = gate.statement();
    let call = db.with_advisory_lock(&key, NO_WAIT, async |db| {
        let tx = db.begin().await?;
        spawned = Some(tokio::spawn(async move {
            let _ = tx.execute_unprepared(&at_the_gate).await;
            // The transaction outlives its statement.
            std::future::pending::<()>().await;
            drop(tx);
        }));
        std::future::pending::<Result<(), DbErr>>().await
    });
    gate.drop_there(&mut observer, call).await;
    gate.open();
    observer
        .assert_free(&key, "the statement of the spawned task")
        .await;
    db.execute_unprepared("SELECT 1").await.unwrap();
    spawned.unwrap().abort();
}

/// No later statement shows whether that release succeeded.
#[tokio::test]
async fn a_queued_release_dropped_in_flight_ends_the_session() {
    let (proxy, mut observer) = (Proxy::start(), connect());
    let db = crate::open::connect(proxy.url(), 1).await;
    for polls in 1..40 {
        let [outer, inner] = [(); 2].map(|()| fresh_key());
        let mut guard = db.acquire_advisory_lock(&outer, NO_WAIT).await.unwrap();
        drop(guard.acquire_advisory_lock(&inner, NO_WAIT).await.unwrap());
        if polls == 1 {
            // The reply to the queued release cannot arrive before the drop.
            proxy.set(Direction::ToClient, Policy::Hold);
        }
        let next = poll_times(polls, guard.execute_unprepared("SELECT pg_sleep(0)")).await;
        proxy.forward();
        let released = guard.release().await;
        for key in [&outer, &inner] {
            observer.assert_free(key, "both guards").await;
        }
        if let Some(next) = next {
            next.unwrap();
            released.unwrap();
            return;
        }
        if polls == 1 {
            assert_eq!(released.unwrap_err().kind(), LockErrorKind::Lost);
        }
    }
    panic!("the statement does not complete");
}

/// A report is no lock statement, so its session is not terminated; only its connection is closed.
#[tokio::test]
async fn report_dropped_in_flight_closes_its_connection() {
    let proxy = Proxy::start();
    let mut options = ConnectOptions::new(proxy.url());
    options.max_connections(1).sqlx_logging(false);
    let db = Database::connect(options).await.unwrap();
    let (before, key) = (pid(&db).await, fresh_key());
    proxy.hold_from("pg_locks");
    let is_sent = eventually_async("the report is sent", || proxy.holds(Direction::ToServer));
    tokio::select! {
        report = db.advisory_lock_holders(&key) => panic!("the report has ended: {report:?}"),
        () = is_sent => {}
    }
    proxy.forward();
    assert_ne!(pid(&db).await, before);
    let report = db.advisory_lock_holders(&key).await.unwrap();
    assert!(report.holders.is_empty());
}

/// The lock of the identification ends with its statement, so the guard keeps its own.
#[tokio::test]
async fn identification_dropped_in_flight_keeps_the_lock() {
    let (proxy, mut observer, key) = (Proxy::start(), connect(), fresh_key());
    let db = crate::open::connect(proxy.url(), 1).await;
    let mut guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    proxy.set(Direction::ToClient, Policy::Hold);
    assert!(poll_times(1, guard.identify()).await.is_none());
    proxy.forward();
    guard.execute_unprepared("SELECT 1").await.unwrap();
    guard.release().await.unwrap();
    observer.assert_free(&key, "the release").await;
}

/// The failed statement of the body is the last that is sent to the ended session.
#[tokio::test]
async fn guard_learns_of_the_end_from_a_failed_statement() {
    let statement = |sql| Statement::from_string(DbBackend::Postgres, sql);
    let db = postgres(1).await;
    for method in [
        "execute_unprepared",
        "execute",
        "query_one",
        "query_all",
        "stream",
    ] {
        let key = fresh_key();
        let mut guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
        guard.execute_unprepared("SELECT 1 / 0").await.unwrap_err();
        assert!(!guard.is_lost(), "{method}");
        connect().terminate_holder(&key);
        let select = statement("SELECT 1");
        let failed = match method {
            "execute_unprepared" => guard.execute_unprepared("SELECT 1").await.is_err(),
            "execute" => guard.execute_raw(select).await.is_err(),
            "query_one" => guard.query_one_raw(select).await.is_err(),
            "query_all" => guard.query_all_raw(select).await.is_err(),
            _ => guard
                .stream_raw(select)
                .await
                .unwrap()
                .next()
                .await
                .unwrap()
                .is_err(),
        };
        assert!(failed && guard.is_lost(), "{method}");
        let error = guard.release().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost, "{method}");
    }
}

/// The role may call neither the functions that release nor the one that ends the session.
#[tokio::test]
async fn session_that_cannot_be_terminated_leaves_the_pool() {
    let forbidden = [
        "pg_catalog.pg_advisory_unlock",
        "pg_catalog.pg_terminate_backend",
    ];
    let server =
        FakeServer::start(forbidden.map(|name| Rule::replace(name, "pg_catalog.forbidden")));
    let (db, mut observer, key) = (
        crate::open::connect(server.url(), 1).await,
        connect(),
        fresh_key(),
    );
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    assert_eq!(observer.lock_entries(&key).len(), 1);
    guard.release().await.unwrap_err();
    observer
        .assert_free(&key, "the end of its connection")
        .await;
    db.execute_unprepared("SELECT 1").await.unwrap();
}
