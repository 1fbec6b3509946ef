//! The blocking crate postgres: its own types, and its pool of r2d2.

use std::cell::RefCell;

use advisory_locking::{
    AdvisoryLocking, LockError, LockErrorKind, LockOptions, PooledAdvisoryLockGuard,
    PooledAdvisoryLocking, PoolingMode, WaitStrategy,
};
use postgres::error::SqlState;
use postgres::{Client, NoTls};
use r2d2_postgres::PostgresConnectionManager;
use std::time::Duration;
use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::Observe;
use testkit::server::{connect as observer, eventually, fresh_key, fresh_name, kind_of, url};
use tokio::task::block_in_place;

use crate::open::Error;

const NO_WAIT: LockOptions = LockOptions::no_wait();

fn connect() -> Client {
    Client::connect(&url(), NoTls).unwrap()
}

fn pool(size: u32) -> r2d2::Pool<PostgresConnectionManager<NoTls>> {
    let manager = PostgresConnectionManager::new(url().parse().unwrap(), NoTls);
    r2d2::Pool::builder().max_size(size).build(manager).unwrap()
}

#[test]
fn blocking_transaction_holds_its_lock_until_it_ends() {
    let (key, mut observer) = (fresh_key(), observer());
    let (mut client, mut other) = (connect(), connect());
    for commits in [true, false] {
        let mut tx = client.transaction().unwrap();
        tx.acquire_advisory_xact_lock(&key, NO_WAIT).unwrap();
        let refused = other.acquire_advisory_lock(&key, NO_WAIT);
        assert_eq!(kind_of(refused), Some(LockErrorKind::HeldElsewhere));
        let refused = tx.acquire_advisory_lock(&key, NO_WAIT).map(drop);
        assert_eq!(kind_of(refused), Some(LockErrorKind::InTransaction));
        if commits { tx.commit() } else { tx.rollback() }.unwrap();
        assert_eq!(observer.lock_entries(&key), []);
    }
}

#[test]
fn blocking_body_in_a_transaction_has_a_savepoint() {
    let (key, mut client) = (fresh_key(), connect());
    client
        .batch_execute("CREATE TEMPORARY TABLE written (number int4)")
        .unwrap();
    let mut tx = client.transaction().unwrap();
    let failed = tx.with_advisory_xact_lock(&key, NO_WAIT, |tx| {
        tx.batch_execute("INSERT INTO written VALUES (1)")?;
        Err::<(), Error>("the body fails".into())
    });
    assert_eq!(failed.unwrap_err().to_string(), "the body fails");
    tx.with_advisory_xact_lock(&key, NO_WAIT, |tx| {
        tx.batch_execute("INSERT INTO written VALUES (2)")?;
        Ok::<_, Error>(())
    })
    .unwrap();
    tx.commit().unwrap();
    let row = client.query_one("SELECT sum(number) FROM written", &[]);
    assert_eq!(row.unwrap().get::<_, i64>(0), 2);
}

#[test]
fn blocking_wait_leaves_the_transaction_usable() {
    let (key, mut client, mut other) = (fresh_key(), connect(), connect());
    let held = other.acquire_advisory_lock(&key, NO_WAIT).unwrap();
    for strategy in [WaitStrategy::Block, WaitStrategy::Poll] {
        let wait = LockOptions::wait_up_to(Duration::from_millis(20)).strategy(strategy);
        let mut tx = client.transaction().unwrap();
        let waited = tx.acquire_advisory_xact_lock(&key, wait);
        assert_eq!(kind_of(waited), Some(LockErrorKind::TimedOut));
        tx.batch_execute("SELECT 1").unwrap();
        tx.commit().unwrap();
    }
    held.release().unwrap();
}

#[test]
fn blocking_body_in_a_raw_transaction_does_not_run() {
    let (key, mut client) = (fresh_key(), connect());
    client.batch_execute("BEGIN").unwrap();
    let refused = client.acquire_advisory_xact_lock(&key, NO_WAIT);
    assert_eq!(kind_of(refused), Some(LockErrorKind::NotInTransaction));
    let failed = client.with_advisory_xact_lock(&key, NO_WAIT, |_| -> Result<(), _> {
        panic!("the body runs")
    });
    assert_eq!(kind_of(failed), Some(LockErrorKind::Database));
    assert!(client.batch_execute("SELECT 1").is_err());
    eventually("the session ends", || observer().is_free(&key));
}

/// The server rejects the commit. It ends the session when the client then rolls back.
#[test]
fn rejected_blocking_commit_on_an_ended_session_failed() {
    let server = FakeServer::start([Rule::end_session("ROLLBACK", "57P01")]);
    let (key, table) = (fresh_key(), fresh_name());
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    let create = format!(
        "CREATE TEMPORARY TABLE {table} (number int4 UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    );
    client.batch_execute(&create).unwrap();
    let failed = client.with_advisory_xact_lock(&key, NO_WAIT, |client| {
        let inserted = client.batch_execute(&format!("INSERT INTO {table} VALUES (1), (1)"));
        inserted.map_err(|error| LockError::new(LockErrorKind::Database).with_source(error))
    });
    let error = failed.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::CommitFailed);
    let error = error.into_client_error::<postgres::Error>().unwrap();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    observer().wait_until_free(&key);
}

#[test]
fn pool_of_r2d2_replaces_a_terminated_session() {
    let (pool, key, mut observer) = (pool(1), fresh_key(), observer());
    let left_open = pool.with_advisory_lock(&key, NO_WAIT, |client| {
        client.batch_execute("BEGIN; CREATE TEMPORARY TABLE written ()")?;
        Ok::<_, Error>(())
    });
    let error = left_open.unwrap_err();
    let kind = LockError::find(&*error).map(LockError::kind);
    assert_eq!(kind, Some(LockErrorKind::TransactionLeftOpen));
    observer.wait_until_free(&key);
    pool.get().unwrap().batch_execute("SELECT 1").unwrap();
}

#[test]
fn pool_of_r2d2_keeps_its_sessions() {
    let pool = pool(2);
    assert_eq!(pool.detect_pooler().unwrap(), PoolingMode::Dedicated);
}

/// A task that is cancelled drops the guard in its runtime, where the client itself panics.
#[tokio::test]
async fn blocking_guard_dropped_in_a_task_is_released() {
    let key = fresh_key();
    let of_thread = key.clone();
    let on_a_thread = tokio::task::spawn_blocking(move || {
        let pool = pool(1);
        let guard = pool.acquire_advisory_lock(of_thread, NO_WAIT).unwrap();
        (pool, guard)
    });
    let (pool, guard) = on_a_thread.await.unwrap();
    drop(guard);
    assert!(observer().is_free(&key));
    let on_a_thread = tokio::task::spawn_blocking(move || {
        pool.get().unwrap().batch_execute("SELECT 1").unwrap();
    });
    on_a_thread.await.unwrap();
}

type Guard = PooledAdvisoryLockGuard<r2d2::Pool<PostgresConnectionManager<NoTls>>>;

thread_local! {
    static HELD: RefCell<Option<Guard>> = const { RefCell::new(None) };
}

/// The variable of the guard is older than tokio's, which are destroyed first.
#[test]
fn blocking_guard_of_a_thread_is_released_at_its_end() {
    let (key, pool) = (fresh_key(), pool(1));
    let (of_thread, pool_of_thread) = (key.clone(), pool.clone());
    let thread = std::thread::spawn(move || {
        HELD.set(None);
        let guard = pool_of_thread.acquire_advisory_lock(of_thread, NO_WAIT);
        HELD.set(Some(guard.unwrap()));
    });
    thread.join().unwrap();
    assert!(observer().is_free(&key));
    pool.get().unwrap().batch_execute("SELECT 1").unwrap();
}

/// The release finds an open transaction, so the drop terminates the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_guard_dropped_in_a_task_terminates_its_session() {
    let key = fresh_key();
    let mut client = block_in_place(connect);
    let guard = block_in_place(|| {
        let mut guard = client.acquire_advisory_lock(&key, NO_WAIT).unwrap();
        let begin = "BEGIN; CREATE TEMPORARY TABLE left_open (number int4)";
        guard.batch_execute(begin).unwrap();
        guard
    });
    drop(guard);
    observer().wait_until_free(&key);
    block_in_place(|| {
        client.batch_execute("SELECT 1").unwrap_err();
        drop(client);
    });
}

/// The server refuses the release in an aborted transaction, so the drop rolls back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_guard_dropped_in_an_aborted_transaction() {
    let key = fresh_key();
    let mut client = block_in_place(connect);
    let guard = block_in_place(|| {
        let mut guard = client.acquire_advisory_lock(&key, NO_WAIT).unwrap();
        guard.batch_execute("BEGIN").unwrap();
        guard.batch_execute("SELECT 1/0").unwrap_err();
        guard
    });
    drop(guard);
    observer().wait_until_free(&key);
    block_in_place(|| drop(client));
}
