//! Servers that show a sign: refused before the body runs, and nothing is held.

use advisory_locking::{AdvisoryLocking, LockErrorKind, LockOptions};
use diesel::Connection;
use diesel::pg::PgConnection;
use testkit::fake_server::{FakeServer, Rule};
use testkit::observer::Observe;
use testkit::server::{block, connect, fresh_key, poll};

use crate::client::{Client, Scope, with_lock, with_lock_on};

/// The servers, with the kind of the error.
pub(crate) fn refused_servers() -> [(Vec<Rule>, LockErrorKind); 3] {
    [
        (Rule::cockroach_db(), LockErrorKind::NoMutualExclusion),
        (Rule::yugabyte_db(), LockErrorKind::NoMutualExclusion),
        (vec![Rule::standby()], LockErrorKind::Standby),
    ]
}

#[test]
fn refused_server_runs_no_body() {
    for (rules, kind) in refused_servers() {
        let server = FakeServer::start(rules);
        for client in Client::ALL {
            for scope in Scope::BOTH {
                for options in [LockOptions::no_wait(), poll(), block()] {
                    let key = fresh_key();
                    let called = with_lock_on(client, &server.url(), scope, options, key.clone());
                    assert_eq!(
                        called.kind(),
                        Some(kind),
                        "{client:?} {scope:?} {options:?}"
                    );
                    assert!(!called.body_ran, "{client:?} {scope:?}");
                    let error = called.result.unwrap_err().to_string();
                    let names_a_way = error.contains("trust_server")
                        || error.contains("yb_enable_advisory_locks")
                        || error.contains("allow_standby");
                    assert!(names_a_way, "{error}");
                    assert_eq!(connect().holders(&key), [], "{client:?} {scope:?}");
                }
            }
        }
    }
}

#[test]
fn accepted_server_runs_the_body() {
    for (rules, kind) in refused_servers() {
        let server = FakeServer::start(rules);
        for client in Client::ALL {
            for scope in Scope::BOTH {
                let options = match kind {
                    LockErrorKind::Standby => LockOptions::no_wait().allow_standby(),
                    _ => LockOptions::no_wait().trust_server(),
                };
                let called = with_lock(client, &server.url(), scope, options);
                assert!(called.body_ran, "{client:?} {scope:?}: {:?}", called.result);
                assert_eq!(called.kind(), None, "{client:?} {scope:?}");
            }
        }
    }
}

/// YugabyteDB with advisory locks, where the setting has no effect.
#[test]
fn yugabyte_with_locks_is_accepted() {
    let server = FakeServer::start([
        Rule::setting("yb_silence_advisory_locks_not_supported_error", "on"),
        Rule::setting("yb_enable_advisory_locks", "on"),
    ]);
    for client in Client::ALL {
        let called = with_lock(
            client,
            &server.url(),
            Scope::Session,
            LockOptions::no_wait(),
        );
        assert_eq!((called.body_ran, called.kind()), (true, None), "{client:?}");
    }
}

/// The transaction is not aborted, and a guard in it is refused, too.
#[test]
fn refused_server_leaves_the_transaction_usable() {
    let server = FakeServer::start([Rule::standby()]);
    let mut conn = PgConnection::establish(&server.url()).unwrap();
    let key = fresh_key();
    conn.transaction(|conn| {
        let at_transaction_level = conn.acquire_advisory_xact_lock(&key, LockOptions::no_wait());
        let allowed = LockOptions::no_wait().allow_in_transaction();
        let at_session_level = conn.acquire_advisory_lock(&key, allowed).map(drop);
        for refused in [at_transaction_level, at_session_level] {
            assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Standby);
        }
        assert_eq!(conn.holders(&key), []);
        diesel::QueryResult::Ok(())
    })
    .unwrap();
}
