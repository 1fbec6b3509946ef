//! Locks and what transactions see, keep and lose.

use std::thread;

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions};
use diesel::result::{DatabaseErrorKind, Error};
use diesel::{Connection, QueryResult};

use super::support::{
    block, connect, fresh_key, fresh_name, held, is_free, kind_of, number, pid_of, poll, run,
    while_it_waits,
};

/// A table that others see. Dropped with its value.
struct Table(String);

impl Table {
    fn create(columns: &str) -> Self {
        let name = fresh_name();
        run(&mut connect(), &format!("CREATE TABLE {name} ({columns})"));
        Self(name)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        run(&mut connect(), &format!("DROP TABLE {}", self.0));
    }
}

#[test]
fn no_increment_is_lost() {
    const THREADS: i64 = 4;
    const INCREMENTS: i64 = 125;
    let table = Table::create("number int");
    let table = &table.0;
    run(&mut connect(), &format!("INSERT INTO {table} VALUES (0)"));
    let key = &fresh_key();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut conn = connect();
                for _ in 0..INCREMENTS {
                    let options = if thread % 2 == 0 { block() } else { poll() };
                    conn.with_advisory_xact_lock(key, options, |conn| {
                        let seen = number(conn, &format!("SELECT number FROM {table}"));
                        run(conn, &format!("UPDATE {table} SET number = {}", seen + 1));
                        QueryResult::Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    let counted = number(&mut connect(), &format!("SELECT number FROM {table}"));
    assert_eq!(counted, THREADS * INCREMENTS);
}

#[test]
fn a_snapshot_that_begins_under_the_lock_sees_what_its_last_holder_committed() {
    let table = Table::create("number int");
    let table = &table.0;
    let key = fresh_key();
    let (mut before, mut conn) = (connect(), connect());
    let mut guard = before.acquire_advisory_lock(&key, block()).unwrap();
    let seen = while_it_waits(
        &mut conn,
        |conn| {
            conn.with_advisory_lock(&key, block(), |conn| {
                conn.build_transaction().repeatable_read().run(|conn| {
                    QueryResult::Ok(number(conn, &format!("SELECT count(*) FROM {table}")))
                })
            })
        },
        |_, _| {
            run(&mut guard, &format!("INSERT INTO {table} VALUES (1)"));
            guard.release().unwrap();
        },
    );
    assert_eq!(seen, Ok(1));
}

#[test]
fn a_rollback_to_an_earlier_savepoint_frees_the_lock() {
    let (mut conn, mut observer) = (connect(), connect());
    let pid = pid_of(&mut conn);
    let (outer, inner) = (fresh_key(), fresh_key());
    conn.transaction(|conn| {
        conn.acquire_advisory_xact_lock(&outer, block())?;
        let failed = conn.transaction(|conn| {
            conn.acquire_advisory_xact_lock(&inner, block())?;
            assert_eq!(held(&mut observer, &inner, pid), "ExclusiveLock");
            Err::<(), _>(Error::RollbackTransaction)
        });
        assert_eq!(failed, Err(Error::RollbackTransaction));
        assert!(is_free(&mut observer, &inner));
        assert_eq!(held(&mut observer, &outer, pid), "ExclusiveLock");
        QueryResult::Ok(())
    })
    .unwrap();
    assert!(is_free(&mut observer, &outer));
}

#[test]
fn a_lock_in_a_nested_transaction_is_held_to_the_end_of_the_outer_one() {
    let (mut conn, mut observer) = (connect(), connect());
    let pid = pid_of(&mut conn);
    let key = fresh_key();
    conn.transaction(|conn| {
        conn.with_advisory_xact_lock(&key, block(), |_| QueryResult::Ok(()))?;
        assert_eq!(held(&mut observer, &key, pid), "ExclusiveLock");
        QueryResult::Ok(())
    })
    .unwrap();
    assert!(is_free(&mut observer, &key));
}

#[test]
fn a_commit_that_fails_is_an_error() {
    let table = Table::create("number int UNIQUE DEFERRABLE INITIALLY DEFERRED");
    let twice = format!(
        "INSERT INTO {0} VALUES (1); INSERT INTO {0} VALUES (1)",
        table.0
    );
    let mut conn = connect();
    let key = fresh_key();

    let done = conn.with_advisory_xact_lock(&key, block(), |conn| {
        run(conn, &twice);
        Ok::<_, LockError>(())
    });
    let error = done.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::CommitFailed);
    let source = error.into_client_error::<Error>().unwrap();
    assert!(is_unique_violation(&source), "{source:?}");

    // Diesel's own error arrives, for code that looks at it to try again.
    let done = conn.with_advisory_xact_lock(&key, block(), |conn| {
        run(conn, &twice);
        Ok::<_, Error>(())
    });
    assert!(is_unique_violation(&done.unwrap_err()));
    assert!(is_free(&mut connect(), &key));
    assert_eq!(
        number(&mut conn, &format!("SELECT count(*) FROM {}", table.0)),
        0
    );
}

fn is_unique_violation(error: &Error) -> bool {
    matches!(
        error,
        Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)
    )
}

#[test]
fn code_that_takes_session_level_locks_can_be_tested_in_test_transactions() {
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

    // The application's own transaction in the test's is one, and asks for the other kind of lock.
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
