//! Locks, and the visibility and the end of transactions.

use std::thread;

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions};
use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::{Connection, QueryResult};
use testkit::observer::{Observe, while_waiting};
use testkit::server::{block, connect, eventually, fresh_key, kind_of, poll};
use testkit::temp::TempObject;

fn table(columns: &str) -> TempObject {
    TempObject::create("TABLE", &format!("({columns})"))
}

#[test]
fn no_increment_is_lost() {
    const THREADS: i64 = 4;
    const INCREMENTS: i64 = 125;
    let table = table("number int");
    let table = &table.name;
    connect().run(&format!("INSERT INTO {table} VALUES (0)"));
    let key = &fresh_key();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut conn = connect();
                for _ in 0..INCREMENTS {
                    let options = if thread % 2 == 0 { block() } else { poll() };
                    conn.with_advisory_xact_lock(key, options, |conn| {
                        let seen = conn.number(&format!("SELECT number FROM {table}"));
                        conn.run(&format!("UPDATE {table} SET number = {}", seen + 1));
                        QueryResult::Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    let counted = connect().number(&format!("SELECT number FROM {table}"));
    assert_eq!(counted, THREADS * INCREMENTS);
}

#[test]
fn a_snapshot_under_the_lock_sees_the_last_holders_commit() {
    let table = table("number int");
    let table = &table.name;
    let key = fresh_key();
    let (mut before, mut conn) = (connect(), connect());
    let mut guard = before.acquire_advisory_lock(&key, block()).unwrap();
    let seen = while_waiting(
        &mut conn,
        |conn| {
            conn.with_advisory_lock(&key, block(), |conn| {
                conn.build_transaction().repeatable_read().run(|conn| {
                    QueryResult::Ok(conn.number(&format!("SELECT count(*) FROM {table}")))
                })
            })
        },
        |_, _| {
            guard.run(&format!("INSERT INTO {table} VALUES (1)"));
            guard.release().unwrap();
        },
    );
    assert_eq!(seen, Ok(1));
}

#[test]
fn a_rollback_to_an_earlier_savepoint_frees_the_lock() {
    let (mut conn, mut observer) = (connect(), connect());
    let pid = conn.pid();
    let (outer, inner) = (fresh_key(), fresh_key());
    conn.transaction(|conn| {
        conn.acquire_advisory_xact_lock(&outer, block())?;
        let failed = conn.transaction(|conn| {
            conn.acquire_advisory_xact_lock(&inner, block())?;
            assert_eq!(observer.held_modes(&inner, pid), "ExclusiveLock");
            Err::<(), _>(Error::RollbackTransaction)
        });
        assert_eq!(failed, Err(Error::RollbackTransaction));
        assert!(observer.is_free(&inner));
        assert_eq!(observer.held_modes(&outer, pid), "ExclusiveLock");
        QueryResult::Ok(())
    })
    .unwrap();
    assert!(observer.is_free(&outer));
}

#[test]
fn a_failed_statement_frees_the_lock_before_the_rollback() {
    let (mut conn, mut observer) = (connect(), connect());
    let pid = conn.pid();
    let key = fresh_key();
    let failed = conn.with_advisory_xact_lock(&key, block(), |conn| {
        assert_eq!(observer.held_modes(&key, pid), "ExclusiveLock");
        let failed = conn.batch_execute("SELECT 1 / 0");
        assert!(observer.is_free(&key));
        failed
    });
    assert!(
        matches!(failed, Err(Error::DatabaseError(..))),
        "{failed:?}"
    );
}

#[test]
fn a_lock_in_a_savepoint_is_held_until_the_outer_end() {
    let (mut conn, mut observer) = (connect(), connect());
    let pid = conn.pid();
    let key = fresh_key();
    conn.transaction(|conn| {
        conn.with_advisory_xact_lock(&key, block(), |_| QueryResult::Ok(()))?;
        assert_eq!(observer.held_modes(&key, pid), "ExclusiveLock");
        QueryResult::Ok(())
    })
    .unwrap();
    assert!(observer.is_free(&key));
}

#[test]
fn a_commit_that_fails_is_an_error() {
    let table = table("number int UNIQUE DEFERRABLE INITIALLY DEFERRED");
    let twice = format!(
        "INSERT INTO {0} VALUES (1); INSERT INTO {0} VALUES (1)",
        table.name
    );
    let mut conn = connect();
    let key = fresh_key();

    let done = conn.with_advisory_xact_lock(&key, block(), |conn| {
        conn.run(&twice);
        Ok::<_, LockError>(())
    });
    let error = done.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::CommitFailed);
    let source = error.into_client_error::<Error>().unwrap();
    assert!(is_unique_violation(&source), "{source:?}");

    // Diesel's own error is returned, for callers that retry on it.
    let done = conn.with_advisory_xact_lock(&key, block(), |conn| {
        conn.run(&twice);
        Ok::<_, Error>(())
    });
    assert!(is_unique_violation(&done.unwrap_err()));
    assert!(connect().is_free(&key));
    assert_eq!(
        conn.number(&format!("SELECT count(*) FROM {}", table.name)),
        0
    );
}

fn is_unique_violation(error: &Error) -> bool {
    matches!(
        error,
        Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)
    )
}

/// A second `BEGIN` only warns. So a poll would roll back the application's transaction, and the
/// commit would end it.
#[test]
fn body_in_a_raw_transaction_does_not_run() {
    let table = table("number int");
    let table = &table.name;
    for statement in ["SELECT", &format!("INSERT INTO {table} VALUES (1)")] {
        let (mut conn, mut observer) = (connect(), connect());
        let (pid, key) = (conn.pid(), fresh_key());
        conn.run("BEGIN");
        conn.run(statement);
        let refused = conn.with_advisory_xact_lock(&key, block(), |_| -> Result<(), LockError> {
            panic!("the body runs")
        });
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Database);
        assert!(error.to_string().contains("plain text"), "{error}");
        observer.wait_until_ended(pid);
        assert!(observer.is_free(&key));
        assert_eq!(observer.number(&format!("SELECT count(*) FROM {table}")), 0);
    }
}

#[test]
fn session_level_locks_work_in_test_transactions() {
    let (mut first, mut second) = (connect(), connect());
    first.begin_test_transaction().unwrap();
    second.begin_test_transaction().unwrap();
    let key = fresh_key();
    let no_wait = LockOptions::no_wait();
    let short = LockOptions::wait_up_to(std::time::Duration::from_millis(10))
        .strategy(advisory_locking::WaitStrategy::Block);

    let guard = first.acquire_advisory_lock(&key, no_wait).unwrap();
    assert!(
        second
            .try_acquire_advisory_lock(&key, no_wait)
            .unwrap()
            .is_none()
    );
    assert!(
        second
            .try_acquire_advisory_lock(&key, short)
            .unwrap()
            .is_none()
    );
    guard.release().unwrap();
    second
        .acquire_advisory_lock(&key, short)
        .unwrap()
        .release()
        .unwrap();

    // The application's own transaction inside the test transaction counts as one.
    let nothing = second.acquire_advisory_xact_lock(&key, no_wait);
    assert_eq!(kind_of(nothing), Some(LockErrorKind::NotInTransaction));
    second
        .transaction(|second| {
            let refused = second.acquire_advisory_lock(&key, no_wait).map(drop);
            assert_eq!(kind_of(refused), Some(LockErrorKind::InTransaction));
            second.acquire_advisory_xact_lock(&key, no_wait)?;
            QueryResult::Ok(())
        })
        .unwrap();
    assert!(
        first
            .try_acquire_advisory_lock(&key, short)
            .unwrap()
            .is_none()
    );
}

/// The server delays the first statement of such a transaction, whatever the options say.
#[test]
fn deferrable_sessions_wait_for_other_transactions() {
    let (mut observer, mut other, mut conn) = (connect(), connect(), connect());
    conn.run(
        "SET default_transaction_isolation = 'serializable'; \
         SET default_transaction_read_only = on; SET default_transaction_deferrable = on",
    );
    let pid = conn.pid();
    for in_transaction in [false, true] {
        let key = fresh_key();
        other.run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT pg_current_xact_id()");
        thread::scope(|scope| {
            let conn = &mut conn;
            let key = &key;
            let acquired = scope.spawn(move || {
                if in_transaction {
                    let body = |_: &mut _| Ok::<_, LockError>(());
                    conn.with_advisory_xact_lock(key, LockOptions::no_wait(), body)
                } else {
                    conn.acquire_advisory_lock(key, LockOptions::no_wait())?
                        .release()
                }
            });
            eventually("the attempt waits", || {
                observer.session_matches(pid, "wait_event = 'SafeSnapshot'")
            });
            other.run("COMMIT");
            acquired.join().unwrap().unwrap();
        });
        assert!(observer.is_free(&key));
    }
}
