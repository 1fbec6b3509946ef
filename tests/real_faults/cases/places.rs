//! Servers, databases and roles that are not like the others.

use std::time::Duration;

use advisory_locking::LockErrorKind::{
    Canceled, Database, Deadlock, HeldElsewhere, TimedOut, TransactionAborted,
};
use advisory_locking::LockMode::Exclusive;

use super::{LONG, assert_granted_and_released, block, no_wait, poll, queue};
use crate::actor::Outcome::{ClientFailed, Done, Entered, Failed, Granted, NotGranted, Ran};
use crate::actor::{Actor, BODY_VALUE, Ending, Level, Raw};
use crate::cluster::{GERMAN, Private};
use crate::harness::postgres::{Place, url};
use crate::mount::{Mount, assert_any};
use crate::stage::{Stage, pid};
use crate::watch::{Throwaway, Watch, with_parameters};

const SHORT: Duration = Duration::from_millis(20);

/// Takes, waits, times out and releases, in every way there is.
fn every_way(stage: &Stage, first: &Actor, second: &Actor) {
    let key = stage.key("every way");
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
    queue(stage, second, &key, LONG, 1);
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    assert_eq!(second.drop_guard(), Done);
    stage.assert_soon_free(&key);
    for level in [Level::Session, Level::Transaction] {
        assert_eq!(first.with(level, &key, block(LONG)), Entered);
        stage.assert_held(&key, &[Exclusive]);
        assert_eq!(first.leave(Ending::Ok), Ran(BODY_VALUE));
        stage.assert_free(&key);
    }
}

pub(crate) fn a_read_only_session(mount: Mount) {
    mount.here(|stage| {
        let [first, second] = stage.actors();
        for actor in [&first, &second] {
            let read_only = Raw::Run("SET default_transaction_read_only = on");
            assert_eq!(actor.raw(read_only), Done);
            let create = Raw::Run("CREATE TABLE never (number int)");
            assert_eq!(actor.raw(create), ClientFailed, "it is read-only");
        }
        every_way(stage, &first, &second);
    });
}

/// The same key in two databases is two locks.
pub(crate) fn another_database(mount: Mount) {
    let database = Throwaway::create(&url(), "DATABASE", "");
    let other = Place::at(with_parameters(
        &url(),
        &format!("dbname={}", database.name),
    ));
    mount.here(|here| {
        mount.at_place(&other, |there| {
            let key = here.key("key");
            there.watch(&key);
            let (first, [second, third]) = (here.actor(), there.actors());
            assert_eq!(first.acquire(&key, no_wait()), Granted);
            assert_eq!(second.acquire(&key, no_wait()), Granted);
            here.assert_held(&key, &[Exclusive]);
            there.assert_held(&key, &[Exclusive]);
            assert_eq!(third.try_acquire(&key, no_wait()), NotGranted);
            assert_eq!([first.release(), second.release()], [Done, Done]);
            every_way(there, &second, &third);
        });
    });
}

/// One function after the other is forbidden: it is always an error, and never a lock that stays.
pub(crate) fn a_role_that_may_not_lock(mount: Mount) {
    let database = Throwaway::create(&url(), "DATABASE", "");
    let role = Throwaway::create(&url(), "ROLE", "LOGIN PASSWORD 'none'");
    let admin = with_parameters(&url(), &format!("dbname={}", database.name));
    let place = Place {
        actors: with_parameters(&admin, &format!("user={}&password=none", role.name)),
        observer: admin.clone(),
    };
    let mut watch = Watch::at(&admin);
    mount.at_place(&place, |stage| {
        let mut may = |word: &str, function: &str| {
            let whom = if word == "GRANT" { "TO" } else { "FROM" };
            let function = format!("FUNCTION pg_catalog.{function}");
            watch.run(&format!("{word} EXECUTE ON {function} {whom} PUBLIC"));
        };
        let key = stage.key("key");
        let [holder, actor] = stage.actors();

        may("REVOKE", "pg_try_advisory_lock(int8)");
        may("REVOKE", "pg_try_advisory_xact_lock(int8)");
        for options in [no_wait(), poll(SHORT), block(SHORT)] {
            assert_eq!(actor.acquire(&key, options), Failed(Database));
            let refused = actor.with(Level::Transaction, &key, options);
            // The failed statement has aborted the transaction, and some clients hide why.
            assert_any(refused, &[Failed(Database), Failed(TransactionAborted)]);
            stage.assert_free(&key);
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
        assert_eq!(
            actor.raw(Raw::Count),
            crate::actor::Outcome::Answered(Some(0))
        );
        assert_eq!(actor.commit(), Done);
        assert_eq!(holder.release(), Done);
        stage.assert_free(&key);
        assert_granted_and_released(&actor, &key);

        // What cannot be given back ends with its session.
        may("REVOKE", "pg_advisory_unlock(int8)");
        assert_eq!(actor.acquire(&key, no_wait()), Granted);
        assert_eq!(actor.release(), Failed(Database));
        stage.assert_soon_free(&key);
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        assert_eq!(holder.drop_guard(), Done);
        stage.assert_soon_free(&key);
        may("GRANT", "pg_advisory_unlock(int8)");
        mount.assert_goes_on(stage, &actor, &key);
    });
    drop(watch);
}

/// Everything works on a standby; but its locks are its own, and its primary knows nothing of them.
pub(crate) fn a_hot_standby(mount: Mount) {
    let mut private = Private::take();
    let (primary, standby) = (private.url(), private.standby());
    let recovers = Watch::at(&standby).number("SELECT pg_is_in_recovery()::int");
    assert_eq!(recovers, 1, "a standby");
    mount.at_place(&Place::at(&primary), |here| {
        let key = here.key("key");
        let first = here.actor();
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        mount.at_place(&Place::at(&standby), |there| {
            there.watch(&key);
            let [second, third] = there.actors();
            assert_eq!(second.acquire(&key, no_wait()), Granted);
            here.assert_held(&key, &[Exclusive]);
            there.assert_held(&key, &[Exclusive]);
            assert_eq!(third.try_acquire(&key, no_wait()), NotGranted);
            assert_eq!(second.release(), Done);
            every_way(there, &second, &third);
        });
        assert_eq!(first.release(), Done);
    });
}

/// Messages are translated, kinds are not.
pub(crate) fn another_language(mount: Mount) {
    let private = Private::take();
    let german: &'static str = format!("SET lc_messages = '{GERMAN}'").leak();
    let mut watch = Watch::at(&private.url());
    watch.run(german);
    let error = watch.try_run("SELECT 1 / 0").unwrap_err().to_string();
    assert!(
        error.contains("Division durch Null"),
        "the server's German messages are needed, which Debian has in the package postgresql: {error}"
    );
    mount.at_place(&Place::at(private.url()), |stage| {
        let (one, two) = (stage.key("one"), stage.key("two"));
        let [first, second] = stage.actors();
        for actor in [&first, &second] {
            assert_eq!(actor.raw(Raw::Run(german)), Done);
        }
        assert_eq!(first.raw(Raw::Run("SET deadlock_timeout = '1h'")), Done);
        assert_eq!(second.raw(Raw::Run("SET deadlock_timeout = '20ms'")), Done);
        every_way(stage, &first, &second);

        assert_eq!(first.acquire(&one, no_wait()), Granted);
        assert_eq!(second.acquire(&two, no_wait()), Granted);
        queue(stage, &first, &two, LONG, 1);
        assert_eq!(second.acquire(&one, block(LONG)), Failed(Deadlock));
        assert_eq!(second.release(), Done);
        assert_eq!(first.finish(), Granted);
        assert_eq!(first.release(), Done);

        let waits = pid(&second);
        queue(stage, &second, &one, LONG, 1);
        watch.cancel(waits);
        assert_eq!(second.finish(), Failed(Canceled));

        assert_eq!(second.begin(), Done);
        assert_eq!(second.raw(Raw::Fail), ClientFailed);
        assert_eq!(second.xact(&one, no_wait()), Failed(TransactionAborted));
        assert_eq!(second.rollback(), Done);
        assert_eq!(first.release(), Done);
    });
}
