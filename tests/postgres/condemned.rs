//! Connections in which something may be left: no pool hands them out again, and whoever keeps one is refused.

use std::panic::{AssertUnwindSafe, catch_unwind};

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockKey, PooledAdvisoryLocking};
use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};

use super::support::{
    block, connect, eventually, fresh_key, is_alive, is_free, kind_of, number, pid_of, pool_of, run,
};

/// What goes wrong under the lock, and what is reported.
type Spoiling = (fn(&mut PgConnection), LockErrorKind);

const SPOILED_UNDER_A_LOCK: [Spoiling; 2] = [
    (leave_a_transaction_open, LockErrorKind::TransactionLeftOpen),
    // The server refuses everything but a rollback, so also the release.
    (leave_an_aborted_transaction_open, LockErrorKind::Database),
];

fn leave_a_transaction_open(conn: &mut PgConnection) {
    AnsiTransactionManager::begin_transaction(conn).unwrap();
}

fn leave_an_aborted_transaction_open(conn: &mut PgConnection) {
    run(conn, "BEGIN");
    conn.batch_execute("SELECT 1 / 0").unwrap_err();
}

fn assert_replaced(pool: &Pool<ConnectionManager<PgConnection>>, key: &LockKey, pid: i64) {
    let mut observer = connect();
    eventually("the end of a condemned session", || {
        !is_alive(&mut observer, pid)
    });
    assert!(is_free(&mut observer, key));
    let mut next = pool.get().unwrap();
    assert_ne!(pid_of(&mut next), pid);
    next.acquire_advisory_lock(key, block())
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn the_pool_replaces_what_a_body_spoiled() {
    let pool = pool_of(1);
    for (spoil, kind) in SPOILED_UNDER_A_LOCK {
        let key = fresh_key();
        let mut pid = 0;
        let done = pool.with_advisory_lock(&key, block(), |conn| {
            pid = pid_of(conn);
            spoil(conn);
            Ok::<_, LockError>(())
        });
        assert_eq!(kind_of(done), Some(kind));
        assert_replaced(&pool, &key, pid);
    }
}

#[test]
fn the_pool_replaces_what_a_guards_holder_spoiled() {
    let pool = pool_of(1);
    for (spoil, kind) in SPOILED_UNDER_A_LOCK {
        let key = fresh_key();
        let mut guard = pool.acquire_advisory_lock(&key, block()).unwrap();
        let pid = pid_of(&mut guard);
        spoil(&mut guard);
        assert_eq!(kind_of(guard.release()), Some(kind));
        assert_replaced(&pool, &key, pid);

        // Nobody is told when it is dropped, but it is no less condemned.
        let mut guard = pool.acquire_advisory_lock(&key, block()).unwrap();
        let pid = pid_of(&mut guard);
        spoil(&mut guard);
        drop(guard);
        assert_replaced(&pool, &key, pid);
    }
}

#[test]
fn the_pool_replaces_a_session_whose_lock_was_taken_in_a_transaction_that_diesel_does_not_know_of()
{
    let pool = pool_of(1);
    let key = fresh_key();
    let mut conn = pool.get().unwrap();
    let pid = pid_of(&mut conn);
    run(&mut conn, "BEGIN");
    let guard = AdvisoryLocking::acquire_advisory_lock(&mut *conn, &key, block()).unwrap();
    assert_eq!(
        kind_of(guard.release()),
        Some(LockErrorKind::TransactionLeftOpen)
    );
    // On a session that still lived, this would make Diesel believe that all is well.
    conn.batch_execute("ROLLBACK").unwrap_err();
    drop(conn);
    assert_replaced(&pool, &key, pid);
}

/// What is undone with a savepoint must not take along by what the release knows the transaction.
#[test]
fn a_rollback_to_a_savepoint_hides_no_transaction() {
    let mut conn = connect();
    run(&mut conn, "BEGIN");
    run(&mut conn, "SAVEPOINT before");
    let mut guard = conn.acquire_advisory_lock(fresh_key(), block()).unwrap();
    run(&mut guard, "ROLLBACK TO SAVEPOINT before");
    assert_eq!(
        kind_of(guard.release()),
        Some(LockErrorKind::TransactionLeftOpen)
    );
}

/// Outside a transaction, each statement's began at another time.
#[test]
fn releases_are_never_taken_for_ones_in_the_trys_transaction() {
    let mut conn = connect();
    let key = fresh_key();
    for _ in 0..10_000 {
        let guard = conn.acquire_advisory_lock(&key, block()).unwrap();
        guard.release().unwrap();
    }
}

#[test]
fn a_lock_may_outlive_a_transaction_that_diesel_does_not_know_of() {
    let mut conn = connect();
    run(&mut conn, "BEGIN");
    let mut guard = conn.acquire_advisory_lock(fresh_key(), block()).unwrap();
    run(&mut guard, "COMMIT");
    guard.release().unwrap();
}

#[test]
fn the_pool_replaces_a_transaction_that_was_left_open_in_a_transaction() {
    let pool = pool_of(1);
    let key = fresh_key();
    let mut pid = 0;
    let done = pool.with_advisory_xact_lock(&key, block(), |conn| {
        pid = pid_of(conn);
        leave_a_transaction_open(conn);
        Ok::<_, LockError>(())
    });
    assert_eq!(kind_of(done), Some(LockErrorKind::TransactionLeftOpen));
    assert_replaced(&pool, &key, pid);
}

#[test]
fn a_connection_of_ones_own_refuses_further_use() {
    for (spoil, kind) in SPOILED_UNDER_A_LOCK {
        let (mut observer, mut conn) = (connect(), connect());
        let key = fresh_key();
        let pid = pid_of(&mut conn);
        let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
        spoil(&mut guard);
        assert_eq!(kind_of(guard.release()), Some(kind));
        eventually("the end of a session", || !is_alive(&mut observer, pid));
        assert!(is_free(&mut observer, &key));

        conn.batch_execute("SELECT 1").unwrap_err();
        let again = conn.acquire_advisory_lock(&key, block()).map(drop);
        assert_eq!(kind_of(again), Some(LockErrorKind::Database));
        let again = conn.with_advisory_xact_lock(&key, block(), |_| Ok::<_, LockError>(()));
        assert_eq!(kind_of(again), Some(LockErrorKind::Database));
    }
}

#[test]
fn a_panic_passes_through_and_frees_the_lock() {
    let mut observer = connect();
    let mut conn = connect();
    let key = fresh_key();
    let body = |_: &mut PgConnection| -> Result<(), LockError> { panic!("in the body") };
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        conn.with_advisory_lock(&key, block(), body)
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"in the body"));
    assert!(is_free(&mut observer, &key));
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();

    run(&mut conn, "CREATE TEMP TABLE kept (number int)");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        conn.with_advisory_xact_lock(&key, block(), |conn| -> Result<(), LockError> {
            run(conn, "INSERT INTO kept VALUES (1)");
            panic!("in the body")
        })
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"in the body"));
    assert!(is_free(&mut observer, &key));
    assert_eq!(number(&mut conn, "SELECT count(*) FROM kept"), 0);
}

#[test]
fn a_panic_in_a_pools_connection_leaves_the_pool_usable() {
    let mut observer = connect();
    let pool = pool_of(1);
    let key = fresh_key();
    let body = |_: &mut PgConnection| -> Result<(), LockError> { panic!("in the body") };
    catch_unwind(AssertUnwindSafe(|| {
        pool.with_advisory_lock(&key, block(), body)
    }))
    .unwrap_err();
    assert!(is_free(&mut observer, &key));
    catch_unwind(AssertUnwindSafe(|| {
        pool.with_advisory_xact_lock(&key, block(), body)
    }))
    .unwrap_err();
    assert!(is_free(&mut observer, &key));
    let again = pool.with_advisory_lock(&key, block(), |_| Ok::<_, LockError>(7));
    assert_eq!(again.unwrap(), 7);
}
