//! PoolingMode that are ended, cancelled or forgotten.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use advisory_locking::LockErrorKind::{Canceled, CommitFailed, Database, Lost};
use advisory_locking::LockMode::Exclusive;

use super::{LONG, assert_granted_and_released, no_wait, poll, queue};
use crate::actor::Outcome::{
    BodyFailed, ClientFailed, Done, Entered, Failed, Granted, Panicked, Ran,
};
use crate::actor::{BODY_VALUE, Command, Ending, Level, Raw};
use crate::harness::postgres::{Place, url};
use crate::mount::{Kind, Mount, assert_any};
use crate::stage::{pid, until};
use crate::watch::{Throwaway, Watch, with_parameters};

const SLEEP: Command = Command::Raw(Raw::Run("SELECT pg_sleep(60)"));
const LEVELS: [Level; 2] = [Level::Session, Level::Transaction];

pub(crate) fn ended_while_it_polls(mount: Mount) {
    mount.here(|stage| {
        let key = stage.key("key");
        let [holder, waiter] = stage.actors();
        let mut watch = Watch::at(&url());
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        let waits = pid(&waiter);
        waiter.start_acquire(&key, poll(LONG));
        watch.until_it_runs(waits, "%pg_try_advisory_lock%");
        watch.terminate(waits);
        assert_eq!(waiter.finish(), Failed(Database));
        stage.assert_held(&key, &[Exclusive]);
        assert_eq!(holder.release(), Done);
        mount.assert_goes_on(stage, &waiter, &key);
    });
}

pub(crate) fn ended_while_it_waits(mount: Mount) {
    mount.here(|stage| {
        let key = stage.key("key");
        let [holder, waiter] = stage.actors();
        let mut watch = Watch::at(&url());
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        let waits = pid(&waiter);
        queue(stage, &waiter, &key, LONG, 1);
        watch.terminate(waits);
        assert_eq!(waiter.finish(), Failed(Database));
        stage.assert_held(&key, &[Exclusive]);
        assert_eq!(holder.release(), Done);
        mount.assert_goes_on(stage, &waiter, &key);
    });
}

/// However the lock is ended afterwards: the loss is an error unless the body has one of its own, or nobody can be told.
pub(crate) fn ended_while_held(mount: Mount) {
    mount.here(|stage| {
        let mut watch = Watch::at(&url());
        let key = stage.key("key");
        let with = |level, ending| {
            let actor = stage.actor();
            assert_eq!(actor.with(level, &key, no_wait()), Entered);
            Watch::at(&url()).terminate(pid(&actor));
            stage.assert_free(&key);
            let outcome = actor.leave(ending);
            mount.assert_goes_on(stage, &actor, &key);
            outcome
        };
        assert_eq!(with(Level::Session, Ending::Ok), Failed(Lost));
        // Some clients hear of it before the commit.
        let committed = with(Level::Transaction, Ending::Ok);
        assert_any(committed, &[Failed(CommitFailed), Failed(Lost)]);
        for level in LEVELS {
            assert_eq!(with(level, Ending::Err), BodyFailed);
            assert_eq!(with(level, Ending::Panic), Panicked);
        }
        for (end, outcome) in [(Command::Release, Failed(Lost)), (Command::DropGuard, Done)] {
            let actor = stage.actor();
            assert_eq!(actor.acquire(&key, no_wait()), Granted);
            watch.terminate(pid(&actor));
            stage.assert_free(&key);
            assert_eq!(actor.call(end), outcome);
            mount.assert_goes_on(stage, &actor, &key);
        }
    });
}

/// In a statement of the body's, which learns of it at once.
pub(crate) fn ended_in_the_body(mount: Mount) {
    mount.here(|stage| {
        let mut watch = Watch::at(&url());
        for (level, ending) in LEVELS
            .into_iter()
            .flat_map(|level| [Ending::Ok, Ending::Err].map(|ending| (level, ending)))
        {
            let key = stage.key("key");
            let actor = stage.actor();
            assert_eq!(actor.with(level, &key, no_wait()), Entered);
            let sleeps = pid(&actor);
            actor.start(SLEEP);
            watch.until_it_runs(sleeps, "%pg_sleep(60)%");
            watch.terminate(sleeps);
            stage.assert_free(&key);
            assert_eq!(actor.finish(), ClientFailed);
            let outcome = actor.leave(ending);
            match (level, ending) {
                (_, Ending::Err) => assert_eq!(outcome, BodyFailed),
                (Level::Session, _) => assert_eq!(outcome, Failed(Lost)),
                (Level::Transaction, _) => {
                    assert_any(outcome, &[Failed(CommitFailed), Failed(Lost)]);
                }
            }
            mount.assert_goes_on(stage, &actor, &key);
        }
    });
}

/// A statement of the body's is cancelled: the session-level lock is none the worse, the transaction is aborted.
pub(crate) fn cancelled_in_the_body(mount: Mount) {
    mount.here(|stage| {
        let mut watch = Watch::at(&url());
        let key = stage.key("key");
        let actor = stage.actor();
        for (level, ending, outcome) in [
            (Level::Session, Ending::Ok, Ran(BODY_VALUE)),
            (Level::Session, Ending::Err, BodyFailed),
            (Level::Transaction, Ending::Ok, Failed(CommitFailed)),
            (Level::Transaction, Ending::Err, BodyFailed),
        ] {
            assert_eq!(actor.with(level, &key, no_wait()), Entered);
            let sleeps = pid(&actor);
            actor.start(SLEEP);
            watch.until_it_runs(sleeps, "%pg_sleep(60)%");
            watch.cancel(sleeps);
            assert_eq!(actor.finish(), ClientFailed);
            assert_eq!(actor.leave(ending), outcome);
            stage.assert_free(&key);
            assert_granted_and_released(&actor, &key);
            assert_eq!(pid(&actor), sleeps, "the same session");
        }
    });
}

/// Cancels rain on a client that takes and releases, and on what cleans up after those that hit.
pub(crate) fn cancelled_all_the_time(mount: Mount) {
    const ROUNDS: u32 = 100;
    mount.here(|stage| {
        let key = stage.key("key");
        let mut actor = stage.actor();
        let mut watch = Watch::at(&url());
        let mut failed = 0;
        for _ in 0..ROUNDS {
            let target = pid(&actor);
            let stop = AtomicBool::new(false);
            let (rains, until_it_rains) = channel();
            let outcomes = thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        watch.cancel(target);
                        let _ = rains.send(());
                    }
                });
                until_it_rains.recv().unwrap();
                let mut outcomes = Vec::new();
                for _ in 0..10 {
                    let asked = actor.acquire(&key, no_wait());
                    outcomes.push(asked.clone());
                    if asked == Granted {
                        outcomes.push(actor.release());
                    }
                }
                stop.store(true, Ordering::Relaxed);
                outcomes
            });
            for outcome in outcomes {
                failed += u32::from(matches!(outcome, Failed(_)));
                let failures = [Canceled, Database, Lost].map(Failed);
                let expected = [&[Granted, Done][..], &failures].concat();
                assert_any(outcome, &expected);
            }
            stage.assert_soon_free(&key);
            if mount.kind == Kind::Connection && actor.raw(Raw::Pid) == ClientFailed {
                actor = stage.actor();
            }
        }
        println!("{failed} statements were hit");
    });
}

/// A function that takes its time, so that a cancel surely hits it.
const SLOW_RELEASE: &str = "SET allow_system_table_mods = on;
    ALTER FUNCTION pg_catalog.pg_advisory_unlock(int8) RENAME TO quick_unlock;
    CREATE FUNCTION pg_catalog.pg_advisory_unlock(int8) RETURNS bool LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(60); RETURN quick_unlock($1); END'";

/// The release itself is cancelled: whether it went through cannot be known, so the session is ended, also where nobody waits for it.
pub(crate) fn cancelled_at_the_release(mount: Mount) {
    let database = Throwaway::create(&url(), "DATABASE", "");
    let place = with_parameters(&url(), &format!("dbname={}", database.name));
    let mut watch = Watch::at(&place);
    watch.run(SLOW_RELEASE);
    mount.at_place(&Place::at(place), |stage| {
        let key = stage.key("key");
        for (end, outcome) in [(Command::Release, Failed(Database)), (Command::DropGuard, Done)] {
            let actor = stage.actor();
            let session = pid(&actor);
            assert_eq!(actor.acquire(&key, no_wait()), Granted);
            actor.start(end);
            let sleeps = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {session} AND wait_event = 'PgSleep'"
            );
            until(LONG, || (watch.number(&sleeps) > 0).then_some(())).expect("it sleeps");
            watch.cancel(session);
            assert_eq!(actor.finish(), outcome);
            stage.assert_soon_free(&key);
            watch.until_gone(session);
        }
    });
    drop(watch);
}

/// The server's own limits for sessions that do nothing.
pub(crate) fn idle_for_too_long(mount: Mount) {
    mount.here(|stage| {
        let mut watch = Watch::at(&url());
        let key = stage.key("key");
        let lost = &[Failed(Lost), Failed(CommitFailed)][..];
        for (level, setting, expected) in [
            (
                Level::Session,
                "SET idle_session_timeout = '50ms'",
                &lost[..1],
            ),
            (
                Level::Transaction,
                "SET LOCAL idle_in_transaction_session_timeout = '50ms'",
                lost,
            ),
        ] {
            let actor = stage.actor();
            assert_eq!(actor.with(level, &key, no_wait()), Entered);
            let idles = pid(&actor);
            assert_eq!(actor.raw(Raw::Run(setting)), Done);
            watch.until_gone(idles);
            stage.assert_free(&key);
            assert_any(actor.leave(Ending::Ok), expected);
            mount.assert_goes_on(stage, &actor, &key);
        }
    });
}

/// A level that nobody gives back, as that of a leaked guard, is held as long as its connection is there, and no longer.
pub(crate) fn leaked_and_closed(mount: Mount) {
    mount.here(|stage| {
        let key = stage.key("key");
        let [actor, other] = stage.actors();
        let by_hand = actor.raw(Raw::TryLock(key.raw(), Exclusive));
        assert_eq!(by_hand, crate::actor::Outcome::Answered(Some(1)));
        assert_granted_and_released(&actor, &key);
        stage.assert_held(&key, &[Exclusive]);
        actor.start(Command::Quit);
        stage.assert_soon_free(&key);
        assert_granted_and_released(&other, &key);
    });
}
