//! Errors that PostgreSQL itself does not return on request.

use advisory_locking::{AdvisoryLocking, LockErrorKind, LockOptions};
use testkit::fake_server::{FakeServer, Rule};
use testkit::server::{block, connect, fresh_key};

use crate::client::{Client, Scope, with_lock, with_lock_on};

#[test]
fn missing_lock_functions_run_no_body() {
    let server = FakeServer::start(Rule::no_lock_functions());
    for client in Client::ALL {
        for scope in Scope::BOTH {
            let called = with_lock(client, &server.url(), scope, LockOptions::no_wait());
            let kind = match (client, scope) {
                // Diesel hides the SQLSTATE, and the aborted transaction accepts no statement that
                // would reveal it.
                (Client::SeaOrm | Client::Sqlx, _) | (_, Scope::Session) => {
                    LockErrorKind::Unsupported
                }
                (_, Scope::Transaction) => LockErrorKind::TransactionAborted,
            };
            assert_eq!(called.kind(), Some(kind), "{client:?} {scope:?}");
            assert!(!called.body_ran, "{client:?} {scope:?}");
        }
    }
}

/// As `transaction_timeout` ends it, which PostgreSQL has since 17.
#[test]
fn fatal_error_in_a_wait_runs_no_body() {
    let server = FakeServer::start([Rule::end_session("pg_catalog.pg_advisory_lock(", "25P04")]);
    for client in Client::ALL {
        let key = fresh_key();
        let mut holder = connect();
        let held = holder.acquire_advisory_lock(key.clone(), LockOptions::no_wait());
        let called = with_lock_on(client, &server.url(), Scope::Session, block(), key);
        assert_eq!(called.kind(), Some(LockErrorKind::Database), "{client:?}");
        assert!(!called.body_ran, "{client:?}");
        held.unwrap().release().unwrap();
    }
}
