//! Servers on which the lock functions are forbidden, or do not exist.

use std::error::Error as _;

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions};
use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::result::Error;

use super::support::{
    block, eventually, fresh_key, held, is_alive, is_free, kind_of, pid_of, poll, run,
};
use super::throwaway::{Database, Role};

/// A database in which a plain role may not call some functions, and that role.
struct Forbidding {
    database: Database,
    role: Role,
    admin: PgConnection,
}

impl Forbidding {
    fn new() -> Self {
        let database = Database::create();
        let admin = database.connect();
        Self {
            database,
            role: Role::create(),
            admin,
        }
    }

    fn forbid(&mut self, function: &str) {
        let revoke = format!("REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC");
        run(&mut self.admin, &revoke);
    }

    fn connect(&self) -> PgConnection {
        self.database.connect_as(&self.role)
    }
}

/// The server's text is not looked at but for the name of the function, which no server translates.
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
    let mut server = Forbidding::new();
    server.forbid("pg_try_advisory_lock(int8)");
    server.forbid("pg_try_advisory_xact_lock(int8)");
    let mut conn = server.connect();
    let pid = pid_of(&mut conn);
    let key = fresh_key();
    for options in [LockOptions::no_wait(), poll(), block()] {
        let ended = conn.acquire_advisory_lock(&key, options).map(drop);
        assert_refused(ended, LockErrorKind::Database, "pg_try_advisory_lock");
        let ended = conn.with_advisory_xact_lock(&key, options, |_| Ok(()));
        // The failed statement has aborted the transaction, and Diesel hides why.
        assert_refused(
            ended,
            LockErrorKind::TransactionAborted,
            "pg_try_advisory_xact_lock",
        );
    }
    assert!(is_free(&mut server.admin, &key));
    assert_eq!(pid_of(&mut conn), pid);
    conn.acquire_advisory_lock((1, 2), block())
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn a_forbidden_wait_says_so() {
    let mut server = Forbidding::new();
    server.forbid("pg_advisory_lock(int8)");
    server.forbid("pg_advisory_xact_lock(int8)");
    let key = fresh_key();
    let mut holder = server.database.connect();
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let mut conn = server.connect();
    let pid = pid_of(&mut conn);
    let ended = conn.acquire_advisory_lock(&key, block()).map(drop);
    assert_refused(ended, LockErrorKind::Database, "pg_advisory_lock");
    conn.transaction(|conn| {
        let ended = conn.acquire_advisory_xact_lock(&key, block());
        assert_refused(ended, LockErrorKind::Database, "pg_advisory_xact_lock");
        // The transaction goes on.
        assert_eq!(pid_of(conn), pid);
        diesel::QueryResult::Ok(())
    })
    .unwrap();
    guard.release().unwrap();
    assert!(is_free(&mut server.admin, &key));
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn a_forbidden_release_ends_the_session() {
    for may_end_itself in [true, false] {
        let mut server = Forbidding::new();
        server.forbid("pg_advisory_unlock(int8)");
        if !may_end_itself {
            server.forbid("pg_terminate_backend(int4, int8)");
        }
        let key = fresh_key();
        let mut conn = server.connect();
        let pid = pid_of(&mut conn);
        let guard = conn.acquire_advisory_lock(&key, block()).unwrap();
        assert_refused(
            guard.release(),
            LockErrorKind::Database,
            "pg_advisory_unlock",
        );
        if may_end_itself {
            eventually("the end of a session", || !is_alive(&mut server.admin, pid));
        }
        assert!(is_free(&mut server.admin, &key));
        let again = conn.acquire_advisory_lock(&key, block()).map(drop);
        assert_eq!(kind_of(again), Some(LockErrorKind::Database));
    }
}

/// After a time-out, the lock may be held, and cannot be given back.
#[test]
fn a_forbidden_clean_up_ends_the_session() {
    let mut server = Forbidding::new();
    let key = fresh_key();
    let mut holder = server.database.connect();
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let mut conn = server.connect();
    let pid = pid_of(&mut conn);
    server.forbid("pg_advisory_unlock(int8)");
    let limited = LockOptions::wait_up_to(std::time::Duration::from_secs(2))
        .strategy(advisory_locking::WaitStrategy::Block);
    let ended = conn.acquire_advisory_lock(&key, limited).map(drop);
    assert_refused(ended, LockErrorKind::Database, "pg_advisory_unlock");
    eventually("the end of a session", || !is_alive(&mut server.admin, pid));
    guard.release().unwrap();
    assert!(is_free(&mut server.admin, &key));
}

/// Whether the inner attempt or the outer guard holds the lock cannot be told, so the session is ended and the guard says so.
#[test]
fn a_failed_inner_try_never_frees_the_outer_lock_unnoticed() {
    let mut server = Forbidding::new();
    let key = fresh_key();
    let mut conn = server.connect();
    let pid = pid_of(&mut conn);
    let mut outer = conn.acquire_advisory_lock(&key, block()).unwrap();
    server.forbid("pg_try_advisory_lock(int8)");

    // About another key there is no doubt.
    let ended = outer.acquire_advisory_lock(fresh_key(), block()).map(drop);
    assert_refused(ended, LockErrorKind::Database, "pg_try_advisory_lock");
    assert_eq!(held(&mut server.admin, &key, pid), "ExclusiveLock");

    let ended = outer.acquire_advisory_lock(&key, block()).map(drop);
    assert_refused(ended, LockErrorKind::Database, "pg_try_advisory_lock");
    assert_eq!(kind_of(outer.release()), Some(LockErrorKind::Lost));
}

/// Diesel hides the code, so it is asked for once more.
#[test]
fn a_server_without_the_functions_is_unsupported() {
    let database = Database::create();
    let mut admin = database.connect();
    run(&mut admin, "SET allow_system_table_mods = on");
    let mut conn = database.connect();
    let pid = pid_of(&mut conn);
    run(
        &mut admin,
        "ALTER FUNCTION pg_catalog.pg_try_advisory_lock(int8) RENAME TO gone",
    );
    let key = fresh_key();
    for options in [LockOptions::no_wait(), poll(), block()] {
        let ended = conn.acquire_advisory_lock(&key, options).map(drop);
        assert_refused(ended, LockErrorKind::Unsupported, "pg_try_advisory_lock");
    }
    assert!(is_free(&mut admin, &key));
    assert_eq!(pid_of(&mut conn), pid);
    conn.batch_execute("SELECT 1").unwrap();
}
