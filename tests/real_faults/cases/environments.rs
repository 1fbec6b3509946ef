//! Unusual servers, databases and roles.

use std::time::Duration;

use advisory_locking::LockErrorKind::{
    Canceled, Database, Deadlock, HeldElsewhere, Pool, Standby, TimedOut, TransactionAborted,
};
use advisory_locking::LockMode::Exclusive;
use advisory_locking::{AdvisoryLocking, LockKey, LockOptions};
use testkit::cluster::{ClusterGuard, GERMAN};
use testkit::observer::Observe;
use testkit::server::{connect_to, fresh_name, with_database, with_parameters};

use super::{LONG, assert_granted_and_released, block, no_wait, poll, queue};
use crate::actor::Outcome::{self, BodyStarted, ClientFailed, Done, Failed, Granted, NotGranted};
use crate::actor::{Actor, CHECKOUTS, LockScope, SqlCommand};
use crate::adapter_under_test::{AdapterUnderTest, assert_any};
use crate::fixture::{Fixture, pid};
use crate::harness::postgres::Endpoint;

const SHORT: Duration = Duration::from_millis(20);

/// Acquires, waits, times out and releases in every way.
fn all_calls(
    fixture: &Fixture,
    first: &Actor,
    second: &Actor,
    adapt: fn(LockOptions) -> LockOptions,
) {
    let no_wait = || adapt(no_wait());
    let [poll, block] = [poll, block].map(|wait| move |limit| adapt(wait(limit)));
    let key = fixture.key("all calls");
    for options in [no_wait(), poll(SHORT), block(SHORT), no_wait().shared()] {
        assert_eq!(first.acquire(&key, options), Granted);
        assert_eq!(first.release(), Done);
    }
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    assert_eq!(second.acquire(&key, no_wait()), Failed(HeldElsewhere));
    for options in [poll(SHORT), block(SHORT)] {
        assert_eq!(second.acquire(&key, options), Failed(TimedOut));
        assert_eq!(second.begin(), Done);
        assert_eq!(second.xact(&key, options), Failed(TimedOut));
        assert_eq!(second.commit(), Done);
    }
    second.start_acquire(&key, block(LONG));
    fixture.until_queued(&key, 1);
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    assert_eq!(second.drop_guard(), Done);
    fixture.assert_soon_free(&key);
    for scope in [LockScope::Session, LockScope::Transaction] {
        assert_eq!(first.with(scope, &key, block(LONG)), BodyStarted);
        fixture.assert_held(&key, &[Exclusive]);
        first.succeed();
        fixture.assert_free(&key);
    }
}

/// Requests a transaction-level lock that is refused. On a loaded machine a checkout may take
/// longer than a short limit, so the call is repeated then.
fn refused_scope(actor: &Actor, key: &LockKey, options: LockOptions) -> Outcome {
    let mut outcome = actor.with(LockScope::Transaction, key, options);
    for _ in 1..CHECKOUTS {
        if outcome != Failed(Pool) {
            break;
        }
        outcome = actor.with(LockScope::Transaction, key, options);
    }
    outcome
}

pub(crate) fn a_read_only_session(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let [first, second] = fixture.actors();
        for actor in [&first, &second] {
            let read_only = SqlCommand::Run("SET default_transaction_read_only = on");
            assert_eq!(actor.run_sql(read_only), Done);
            let create = SqlCommand::Run("CREATE TABLE never (number int)");
            assert_eq!(actor.run_sql(create), ClientFailed, "it is read-only");
        }
        all_calls(fixture, &first, &second, |options| options);
    });
}

/// Formats of values, rules for literals and the encoding of the database change nothing.
pub(crate) fn other_formats_and_encodings(adapter: AdapterUnderTest) {
    const SETTINGS: [&str; 8] = [
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "transform_null_equals = on",
        "array_nulls = off",
        "timezone = 'Australia/Lord_Howe'",
    ];
    let server = ClusterGuard::acquire();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let options =
            format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        let name = format!("in_{}", encoding.to_lowercase());
        let url = server.database(&name, &options, |admin| {
            for setting in SETTINGS {
                admin.run(&format!("ALTER DATABASE {name} SET {setting}"));
            }
        });
        adapter.run_at(&Endpoint::new(&url), |fixture| {
            let key = fixture.key("Prüfung");
            let [first, second] = fixture.actors();
            let old_literals = SqlCommand::Run(
                r"DO $$ BEGIN ASSERT length('\141') = 1, 'the settings are in effect'; END $$",
            );
            assert_eq!(first.run_sql(old_literals), Done);
            all_calls(fixture, &first, &second, |options| options);
            assert_eq!(first.acquire(&key, no_wait()), Granted);
            queue(fixture, &second, &key, LONG, 1);
            let mut observer = connect_to(&url);
            let report = AdvisoryLocking::advisory_lock_holders(&mut observer, &key).unwrap();
            assert_eq!((report.holders.len(), report.waiters.len()), (1, 1));
            assert_eq!(first.release(), Done);
            assert_eq!(second.finish(), Granted);
            assert_eq!(second.release(), Done);
        });
    }
}

/// The same key in two databases is two locks.
pub(crate) fn another_database(adapter: AdapterUnderTest) {
    let server = ClusterGuard::acquire();
    let other = Endpoint::new(with_database(&server.url(), "postgres"));
    adapter.run_at(&Endpoint::new(server.url()), |here| {
        adapter.run_at(&other, |there| {
            let key = here.key("key");
            there.track_key(&key);
            let (first, [second, third]) = (here.actor(), there.actors());
            assert_eq!(first.acquire(&key, no_wait()), Granted);
            assert_eq!(second.acquire(&key, no_wait()), Granted);
            here.assert_held(&key, &[Exclusive]);
            there.assert_held(&key, &[Exclusive]);
            assert_eq!(third.try_acquire(&key, no_wait()), NotGranted);
            assert_eq!([first.release(), second.release()], [Done, Done]);
            all_calls(there, &second, &third, |options| options);
        });
    });
}

/// Each function is forbidden in turn: the call is an error, and no lock stays held.
pub(crate) fn a_role_that_may_not_lock(adapter: AdapterUnderTest) {
    const FUNCTIONS: [&str; 5] = [
        "pg_try_advisory_lock(int8)",
        "pg_try_advisory_xact_lock(int8)",
        "pg_advisory_lock(int8)",
        "pg_advisory_xact_lock(int8)",
        "pg_advisory_unlock(int8)",
    ];
    let server = ClusterGuard::acquire();
    let admin = server.database("refusing", "", |_| {});
    let mut observer = connect_to(&admin);
    let role = fresh_name();
    observer.run(&format!("CREATE ROLE {role} LOGIN"));
    let endpoint = Endpoint {
        actors: with_parameters(&admin, &format!("user={role}")),
        observer: admin,
    };
    adapter.run_at(&endpoint, |fixture| {
        let mut may = |word: &str, function: &str| {
            let whom = if word == "GRANT" { "TO" } else { "FROM" };
            let function = format!("FUNCTION pg_catalog.{function}");
            observer.run(&format!("{word} EXECUTE ON {function} {whom} PUBLIC"));
        };
        // Another adapter's test has revoked some.
        for function in FUNCTIONS {
            may("GRANT", function);
        }
        let key = fixture.key("key");
        let [holder, actor] = fixture.actors();

        may("REVOKE", "pg_try_advisory_lock(int8)");
        may("REVOKE", "pg_try_advisory_xact_lock(int8)");
        for options in [no_wait(), poll(SHORT), block(SHORT)] {
            assert_eq!(actor.acquire(&key, options), Failed(Database));
            let refused = refused_scope(&actor, &key, options);
            // The failed statement has aborted the transaction, and some clients hide its SQLSTATE.
            assert_any(refused, &[Failed(Database), Failed(TransactionAborted)]);
            fixture.assert_free(&key);
        }
        may("GRANT", "pg_try_advisory_lock(int8)");
        may("GRANT", "pg_try_advisory_xact_lock(int8)");
        assert_granted_and_released(&actor, &key);

        may("REVOKE", "pg_advisory_lock(int8)");
        may("REVOKE", "pg_advisory_xact_lock(int8)");
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        assert_eq!(actor.acquire(&key, block(LONG)), Failed(Database));
        assert_eq!(actor.begin(), Done);
        assert_eq!(actor.xact(&key, block(LONG)), Failed(Database));
        assert_eq!(actor.run_sql(SqlCommand::Count), Outcome::Answered(Some(0)));
        assert_eq!(actor.commit(), Done);
        assert_eq!(holder.release(), Done);
        fixture.assert_free(&key);
        assert_granted_and_released(&actor, &key);

        // A lock that cannot be released ends with its session.
        may("REVOKE", "pg_advisory_unlock(int8)");
        assert_eq!(actor.acquire(&key, no_wait()), Granted);
        assert_eq!(actor.release(), Failed(Database));
        fixture.assert_soon_free(&key);
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        assert_eq!(holder.drop_guard(), Done);
        fixture.assert_soon_free(&key);
        may("GRANT", "pg_advisory_unlock(int8)");
        adapter.assert_recovers(fixture, &actor, &key);
    });
}

/// A standby is refused. With the option everything works there, and its locks and those of its
/// primary are independent.
pub(crate) fn a_hot_standby(adapter: AdapterUnderTest) {
    let mut server = ClusterGuard::acquire();
    let (primary, standby) = (server.url(), server.standby());
    let recovers = connect_to(&standby).number("SELECT pg_is_in_recovery()::int");
    assert_eq!(recovers, 1, "a standby");
    adapter.run_at(&Endpoint::new(&primary), |here| {
        let key = here.key("key");
        let first = here.actor();
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        adapter.run_at(&Endpoint::new(&standby), |there| {
            there.track_key(&key);
            let [second, third] = there.actors();
            for options in [no_wait(), poll(SHORT), block(SHORT)] {
                assert_eq!(second.acquire(&key, options), Failed(Standby));
                assert_eq!(refused_scope(&second, &key, options), Failed(Standby));
                assert_eq!(second.begin(), Done);
                assert_eq!(second.xact(&key, options), Failed(Standby));
                // Nothing is held, and the transaction is usable.
                there.assert_free(&key);
                assert_eq!(second.commit(), Done);
            }
            let no_wait = no_wait().allow_standby();
            assert_eq!(second.acquire(&key, no_wait), Granted);
            here.assert_held(&key, &[Exclusive]);
            there.assert_held(&key, &[Exclusive]);
            assert_eq!(third.try_acquire(&key, no_wait), NotGranted);
            assert_eq!(second.release(), Done);
            all_calls(there, &second, &third, LockOptions::allow_standby);
        });
        assert_eq!(first.release(), Done);
    });
}

/// The kinds of errors do not depend on the language of the messages.
pub(crate) fn another_language(adapter: AdapterUnderTest) {
    let server = ClusterGuard::acquire();
    let german: &'static str = format!("SET lc_messages = '{GERMAN}'").leak();
    let mut observer = connect_to(&server.url());
    observer.run(german);
    let error = observer.try_run("SELECT 1 / 0").unwrap_err().to_string();
    assert!(
        error.contains("Division durch Null"),
        "the server's German messages are needed, which Debian has in the package postgresql: {error}"
    );
    adapter.run_at(&Endpoint::new(server.url()), |fixture| {
        let (one, two) = (fixture.key("one"), fixture.key("two"));
        let [first, second] = fixture.actors();
        for actor in [&first, &second] {
            assert_eq!(actor.run_sql(SqlCommand::Run(german)), Done);
        }
        assert_eq!(
            first.run_sql(SqlCommand::Run("SET deadlock_timeout = '1h'")),
            Done
        );
        assert_eq!(
            second.run_sql(SqlCommand::Run("SET deadlock_timeout = '20ms'")),
            Done
        );
        all_calls(fixture, &first, &second, |options| options);

        assert_eq!(first.acquire(&one, no_wait()), Granted);
        assert_eq!(second.acquire(&two, no_wait()), Granted);
        queue(fixture, &first, &two, LONG, 1);
        assert_eq!(second.acquire(&one, block(LONG)), Failed(Deadlock));
        assert_eq!(second.release(), Done);
        assert_eq!(first.finish(), Granted);
        assert_eq!(first.release(), Done);

        let waits = pid(&second);
        queue(fixture, &second, &one, LONG, 1);
        observer.cancel(waits);
        assert_eq!(second.finish(), Failed(Canceled));

        assert_eq!(second.begin(), Done);
        assert_eq!(second.run_sql(SqlCommand::Fail), ClientFailed);
        assert_eq!(second.xact(&one, no_wait()), Failed(TransactionAborted));
        assert_eq!(second.rollback(), Done);
        assert_eq!(first.release(), Done);
    });
}
