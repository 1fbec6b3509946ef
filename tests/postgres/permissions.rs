//! Servers on which a role may not call the lock functions, or that lack them.

use std::error::Error as _;

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions};
use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::result::Error;
use testkit::observer::Observe;
use testkit::server::{block, eventually, fresh_key, kind_of, poll};
use testkit::temp::{TempDatabase, TempRole};

/// A database, and a role that may not call some functions in it.
struct RestrictedDatabase {
    database: TempDatabase,
    role: TempRole,
    admin: PgConnection,
}

impl RestrictedDatabase {
    fn new() -> Self {
        let database = TempDatabase::create();
        let admin = database.connect();
        Self {
            database,
            role: TempRole::create(),
            admin,
        }
    }

    fn forbid(&mut self, function: &str) {
        let revoke = format!("REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC");
        self.admin.run(&revoke);
    }

    fn connect(&self) -> PgConnection {
        self.database.connect_as(&self.role)
    }
}

/// Asserts the kind of an error, and that its source names the function, which is not translated.
fn assert_refused(ended: Result<(), LockError>, kind: LockErrorKind, function: &str) {
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), kind);
    let source = error.source().expect("the client's error");
    assert!(
        source.is::<Error>() && source.to_string().contains(function),
        "{source}"
    );
}

#[test]
fn a_forbidden_try_says_so() {
    let mut server = RestrictedDatabase::new();
    server.forbid("pg_try_advisory_lock(int8)");
    server.forbid("pg_try_advisory_xact_lock(int8)");
    let mut conn = server.connect();
    let pid = conn.pid();
    let key = fresh_key();
    for options in [LockOptions::no_wait(), poll(), block()] {
        let ended = conn.acquire_advisory_lock(&key, options).map(drop);
        assert_refused(ended, LockErrorKind::Database, "pg_try_advisory_lock");
        let ended = conn.with_advisory_xact_lock(&key, options, |_| Ok(()));
        // The failed statement has aborted the transaction, and Diesel hides its SQLSTATE.
        assert_refused(
            ended,
            LockErrorKind::TransactionAborted,
            "pg_try_advisory_xact_lock",
        );
    }
    assert!(server.admin.is_free(&key));
    assert_eq!(conn.pid(), pid);
    conn.acquire_advisory_lock((1, 2), block())
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn a_forbidden_wait_says_so() {
    let mut server = RestrictedDatabase::new();
    server.forbid("pg_advisory_lock(int8)");
    server.forbid("pg_advisory_xact_lock(int8)");
    let key = fresh_key();
    let mut holder = server.database.connect();
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let mut conn = server.connect();
    let pid = conn.pid();
    let ended = conn.acquire_advisory_lock(&key, block()).map(drop);
    assert_refused(ended, LockErrorKind::Database, "pg_advisory_lock");
    conn.transaction(|conn| {
        let ended = conn.acquire_advisory_xact_lock(&key, block());
        assert_refused(ended, LockErrorKind::Database, "pg_advisory_xact_lock");
        // The transaction continues.
        assert_eq!(conn.pid(), pid);
        diesel::QueryResult::Ok(())
    })
    .unwrap();
    guard.release().unwrap();
    assert!(server.admin.is_free(&key));
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn a_forbidden_release_ends_the_session() {
    for may_end_itself in [true, false] {
        let mut server = RestrictedDatabase::new();
        server.forbid("pg_advisory_unlock(int8)");
        if !may_end_itself {
            // Without its arguments, which are different in PostgreSQL 13.
            server.forbid("pg_terminate_backend");
        }
        let key = fresh_key();
        let mut conn = server.connect();
        let pid = conn.pid();
        let guard = conn.acquire_advisory_lock(&key, block()).unwrap();
        assert_refused(
            guard.release(),
            LockErrorKind::Database,
            "pg_advisory_unlock",
        );
        if may_end_itself {
            eventually("the end of a session", || !server.admin.is_alive(pid));
        }
        assert!(server.admin.is_free(&key));
        let again = conn.acquire_advisory_lock(&key, block()).map(drop);
        assert_eq!(kind_of(again), Some(LockErrorKind::Database));
    }
}

/// After a timeout the lock may be held, and the release is forbidden.
#[test]
fn a_forbidden_clean_up_ends_the_session() {
    let mut server = RestrictedDatabase::new();
    let key = fresh_key();
    let mut holder = server.database.connect();
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let mut conn = server.connect();
    let pid = conn.pid();
    server.forbid("pg_advisory_unlock(int8)");
    // On a stalled machine, the limit may pass before the wait. Then there is no clean-up.
    let mut calls = [1, 8, 64].into_iter().map(|seconds| {
        let limited = LockOptions::wait_up_to(std::time::Duration::from_secs(seconds))
            .strategy(advisory_locking::WaitStrategy::Block);
        conn.acquire_advisory_lock(&key, limited).map(drop)
    });
    let is_cleaned_up = |ended: &Result<(), LockError>| {
        let kind = ended.as_ref().err().map(LockError::kind);
        kind != Some(LockErrorKind::TimedOut)
    };
    let ended = calls.find(is_cleaned_up).expect("a clean-up");
    assert_refused(ended, LockErrorKind::Database, "pg_advisory_unlock");
    eventually("the end of a session", || !server.admin.is_alive(pid));
    guard.release().unwrap();
    assert!(server.admin.is_free(&key));
}

/// The check of a begin and of a commit needs no schema but `pg_catalog`.
#[test]
fn a_forbidden_information_schema_changes_nothing() {
    let mut server = RestrictedDatabase::new();
    server
        .admin
        .run("REVOKE USAGE ON SCHEMA information_schema FROM PUBLIC");
    let mut conn = server.connect();
    let (outer, inner) = (fresh_key(), fresh_key());
    conn.with_advisory_xact_lock(&outer, block(), |conn| {
        conn.with_advisory_xact_lock(&inner, block(), |_| Ok::<_, LockError>(()))
    })
    .unwrap();
    let ended = conn.with_advisory_xact_lock(&outer, block(), |conn| {
        conn.run("ROLLBACK; BEGIN");
        Ok::<_, LockError>(())
    });
    assert_eq!(kind_of(ended), Some(LockErrorKind::NotHeld));
    assert!(server.admin.is_free(&outer));
}

/// After the failed inner try, the number of held levels is unknown. So the session is terminated
/// and the outer guard reports the loss.
#[test]
fn a_failed_inner_try_never_frees_the_outer_lock_unnoticed() {
    let mut server = RestrictedDatabase::new();
    let key = fresh_key();
    let mut conn = server.connect();
    let pid = conn.pid();
    let mut outer = conn.acquire_advisory_lock(&key, block()).unwrap();
    server.forbid("pg_try_advisory_lock(int8)");

    // A failed try of another key leaves no doubt.
    let ended = outer.acquire_advisory_lock(fresh_key(), block()).map(drop);
    assert_refused(ended, LockErrorKind::Database, "pg_try_advisory_lock");
    assert_eq!(server.admin.held_modes(&key, pid), "ExclusiveLock");

    let ended = outer.acquire_advisory_lock(&key, block()).map(drop);
    assert_refused(ended, LockErrorKind::Database, "pg_try_advisory_lock");
    assert_eq!(kind_of(outer.release()), Some(LockErrorKind::Lost));
}

/// `DISCARD ALL` deallocates the statement of the release. The statement that then looks for the
/// lock must not be among the lost ones, so no connection keeps it.
#[test]
fn a_second_check_does_not_use_a_lost_statement() {
    let mut server = RestrictedDatabase::new();
    let function = "pg_try_advisory_lock(int8)";
    server.forbid(function);
    let (mut conn, key) = (server.connect(), fresh_key());
    // The failed try is the reason of the first check.
    let ended = conn.acquire_advisory_lock(&key, LockOptions::no_wait());
    assert_refused(
        ended.map(drop),
        LockErrorKind::Database,
        "pg_try_advisory_lock",
    );
    let grant = format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO PUBLIC");
    server.admin.run(&grant);
    let guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    guard.release().unwrap();
    let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    guard.run("DISCARD ALL");
    assert_eq!(kind_of(guard.release()), Some(LockErrorKind::NotHeld));
}

/// Diesel hides the SQLSTATE, so the library repeats the call to reveal it.
#[test]
fn a_server_without_the_functions_is_unsupported() {
    let database = TempDatabase::create();
    let mut admin = database.connect();
    admin.run("SET allow_system_table_mods = on");
    let mut conn = database.connect();
    let pid = conn.pid();
    admin.run("ALTER FUNCTION pg_catalog.pg_try_advisory_lock(int8) RENAME TO gone");
    let key = fresh_key();
    for options in [LockOptions::no_wait(), poll(), block()] {
        let ended = conn.acquire_advisory_lock(&key, options).map(drop);
        assert_refused(ended, LockErrorKind::Unsupported, "pg_try_advisory_lock");
    }
    assert!(admin.is_free(&key));
    assert_eq!(conn.pid(), pid);
    conn.batch_execute("SELECT 1").unwrap();
}
