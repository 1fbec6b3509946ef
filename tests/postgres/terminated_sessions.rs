//! Connections in an unknown state: the session is terminated, pools discard the connection, and a
//! connection without a pool rejects further calls.

use std::panic::{AssertUnwindSafe, catch_unwind};

use advisory_locking::session::Script;
use advisory_locking::{
    AdvisoryLocking, LockError, LockErrorKind, LockKey, LockMode, PooledAdvisoryLocking,
};
use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use testkit::observer::Observe;
use testkit::server::{block, connect, eventually, fresh_key, kind_of, pool_of};

/// A misuse of the connection under the lock, and the reported error.
type Misuse = (fn(&mut PgConnection), LockErrorKind);

const MISUSES: [Misuse; 2] = [
    (leave_a_transaction_open, LockErrorKind::TransactionLeftOpen),
    // The server rejects the release in an aborted transaction.
    (leave_an_aborted_transaction_open, LockErrorKind::Database),
];

fn leave_a_transaction_open(conn: &mut PgConnection) {
    AnsiTransactionManager::begin_transaction(conn).unwrap();
}

fn leave_an_aborted_transaction_open(conn: &mut PgConnection) {
    conn.run("BEGIN");
    conn.batch_execute("SELECT 1 / 0").unwrap_err();
}

fn assert_replaced(pool: &Pool<ConnectionManager<PgConnection>>, key: &LockKey, pid: i64) {
    let mut observer = connect();
    eventually("the end of a terminated session", || {
        !observer.is_alive(pid)
    });
    assert!(observer.is_free(key));
    let mut next = pool.get().unwrap();
    assert_ne!(next.pid(), pid);
    next.acquire_advisory_lock(key, block())
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn guard_knows_of_a_closed_connection() {
    let (mut conn, key) = (connect(), fresh_key());
    let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    guard.batch_execute("SELECT 1 / 0").unwrap_err();
    assert!(!guard.is_lost());
    connect().terminate_holder(&key);
    guard.batch_execute("SELECT 1").unwrap_err();
    assert!(guard.is_lost());
    assert_eq!(kind_of(guard.release()), Some(LockErrorKind::Lost));
}

#[test]
fn the_pool_discards_the_connection_of_a_misused_body() {
    let pool = pool_of(1);
    for (misuse, kind) in MISUSES {
        let key = fresh_key();
        let mut pid = 0;
        let done = pool.with_advisory_lock(&key, block(), |conn| {
            pid = conn.pid();
            misuse(conn);
            Ok::<_, LockError>(())
        });
        assert_eq!(kind_of(done), Some(kind));
        assert_replaced(&pool, &key, pid);
    }
}

#[test]
fn the_pool_discards_the_connection_of_a_misused_guard() {
    let pool = pool_of(1);
    for (misuse, kind) in MISUSES {
        let key = fresh_key();
        let mut guard = pool.acquire_advisory_lock(&key, block()).unwrap();
        let pid = guard.pid();
        misuse(&mut guard);
        assert_eq!(kind_of(guard.release()), Some(kind));
        assert_replaced(&pool, &key, pid);

        // A drop reports nothing, but terminates the session too.
        let mut guard = pool.acquire_advisory_lock(&key, block()).unwrap();
        let pid = guard.pid();
        misuse(&mut guard);
        drop(guard);
        assert_replaced(&pool, &key, pid);
    }
}

#[test]
fn pool_replaces_session_after_lock_in_raw_transaction() {
    let pool = pool_of(1);
    let key = fresh_key();
    let mut conn = pool.get().unwrap();
    let pid = conn.pid();
    conn.run("BEGIN");
    let guard = AdvisoryLocking::acquire_advisory_lock(&mut *conn, &key, block()).unwrap();
    assert_eq!(
        kind_of(guard.release()),
        Some(LockErrorKind::TransactionLeftOpen)
    );
    // On a live session, this would reset the broken state that Diesel keeps.
    conn.batch_execute("ROLLBACK").unwrap_err();
    drop(conn);
    assert_replaced(&pool, &key, pid);
}

/// The rollback must not undo the marker by which the release recognizes the transaction.
#[test]
fn a_rollback_to_a_savepoint_hides_no_transaction() {
    let mut conn = connect();
    conn.run("BEGIN");
    conn.run("SAVEPOINT before");
    let mut guard = conn.acquire_advisory_lock(fresh_key(), block()).unwrap();
    guard.run("ROLLBACK TO SAVEPOINT before");
    assert_eq!(
        kind_of(guard.release()),
        Some(LockErrorKind::TransactionLeftOpen)
    );
}

/// Without a transaction, the release has another transaction start than the try.
#[test]
fn a_release_is_not_mistaken_for_the_trys_transaction() {
    let mut conn = connect();
    let key = fresh_key();
    for _ in 0..10_000 {
        let guard = conn.acquire_advisory_lock(&key, block()).unwrap();
        guard.release().unwrap();
    }
}

/// A pooler may send the messages of a dropped guard to the session of another client.
#[test]
fn messages_of_a_dropped_guard_affect_no_other_session() {
    let (mut observer, mut other, mut conn) = (connect(), connect(), connect());
    let (pid, key) = (conn.pid(), fresh_key());
    let granted_to = i32::try_from(other.pid()).unwrap();
    let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    for transaction_began in [None, Some(0)] {
        let script = Script::ReleaseOrTerminate {
            key: key.raw(),
            mode: LockMode::Exclusive,
            pid: granted_to,
            transaction_began,
            nonce: 7,
        };
        for message in script.messages() {
            guard.run(&message);
        }
        assert_eq!(observer.held_modes(&key, pid), "ExclusiveLock");
    }
    guard.release().unwrap();
}

#[test]
fn a_lock_may_outlive_a_raw_transaction() {
    let mut conn = connect();
    conn.run("BEGIN");
    let mut guard = conn.acquire_advisory_lock(fresh_key(), block()).unwrap();
    guard.run("COMMIT");
    guard.release().unwrap();
}

#[test]
fn the_pool_discards_a_nested_transaction_left_open() {
    let pool = pool_of(1);
    let key = fresh_key();
    let mut pid = 0;
    let done = pool.with_advisory_xact_lock(&key, block(), |conn| {
        pid = conn.pid();
        leave_a_transaction_open(conn);
        Ok::<_, LockError>(())
    });
    assert_eq!(kind_of(done), Some(LockErrorKind::TransactionLeftOpen));
    assert_replaced(&pool, &key, pid);
}

#[test]
fn a_borrowed_connection_rejects_further_calls() {
    for (misuse, kind) in MISUSES {
        let (mut observer, mut conn) = (connect(), connect());
        let key = fresh_key();
        let pid = conn.pid();
        let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
        misuse(&mut guard);
        assert_eq!(kind_of(guard.release()), Some(kind));
        eventually("the end of a session", || !observer.is_alive(pid));
        assert!(observer.is_free(&key));

        conn.batch_execute("SELECT 1").unwrap_err();
        let again = conn.acquire_advisory_lock(&key, block()).map(drop);
        assert_eq!(kind_of(again), Some(LockErrorKind::Database));
        let again = conn.with_advisory_xact_lock(&key, block(), |_| Ok::<_, LockError>(()));
        assert_eq!(kind_of(again), Some(LockErrorKind::Database));
    }
}

fn mark_broken(conn: &mut PgConnection) {
    AnsiTransactionManager::transaction_manager_status_mut(conn).set_in_error();
}

/// Diesel sets its error state also in a session that lives, for example after a failed rollback.
#[test]
fn release_on_a_live_connection_marked_broken_succeeds() {
    let (mut observer, pool, key) = (connect(), pool_of(1), fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, block()).unwrap();
    mark_broken(&mut guard);
    guard.release().unwrap();
    assert!(observer.is_free(&key));
    let body = |conn: &mut PgConnection| {
        mark_broken(conn);
        Ok::<_, LockError>(())
    };
    pool.with_advisory_lock(&key, block(), body).unwrap();
    assert!(observer.is_free(&key));
}

/// Diesel does not know its transaction any more, so the crate does not commit it.
#[test]
fn transaction_of_a_connection_marked_broken_is_left_open() {
    let (pool, key) = (pool_of(1), fresh_key());
    let mut pid = 0;
    let done = pool.with_advisory_xact_lock(&key, block(), |conn| {
        pid = conn.pid();
        mark_broken(conn);
        Ok::<_, LockError>(())
    });
    assert_eq!(kind_of(done), Some(LockErrorKind::TransactionLeftOpen));
    assert_replaced(&pool, &key, pid);

    let done = pool.with_advisory_xact_lock(&key, block(), |conn| {
        pid = conn.pid();
        conn.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())")
            .unwrap_err();
        Ok::<_, LockError>(())
    });
    assert_eq!(kind_of(done), Some(LockErrorKind::Lost));
    assert_replaced(&pool, &key, pid);
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
    assert!(observer.is_free(&key));
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();

    conn.run("CREATE TEMP TABLE kept (number int)");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        conn.with_advisory_xact_lock(&key, block(), |conn| -> Result<(), LockError> {
            conn.run("INSERT INTO kept VALUES (1)");
            panic!("in the body")
        })
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"in the body"));
    assert!(observer.is_free(&key));
    assert_eq!(conn.number("SELECT count(*) FROM kept"), 0);
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
    assert!(observer.is_free(&key));
    catch_unwind(AssertUnwindSafe(|| {
        pool.with_advisory_xact_lock(&key, block(), body)
    }))
    .unwrap_err();
    assert!(observer.is_free(&key));
    let again = pool.with_advisory_lock(&key, block(), |_| Ok::<_, LockError>(7));
    assert_eq!(again.unwrap(), 7);
}
