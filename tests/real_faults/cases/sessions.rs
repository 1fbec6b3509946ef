//! Sessions that are terminated, cancelled, idle or leaked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use advisory_locking::LockErrorKind::{
    Canceled, CommitFailed, CommitUnknown, Database, HeldElsewhere, Lost, NotHeld,
};
use advisory_locking::LockMode::Exclusive;
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::server::{connect, connect_to, fresh_name};

use super::{LONG, assert_granted_and_released, no_wait, poll, queue};
use crate::actor::Outcome::{
    BodyFailed, BodySucceeded, ClientFailed, Done, Failed, Granted, Panicked,
};
use crate::actor::{BODY_VALUE, BodyEnd, Command, LockScope, Outcome, SqlCommand};
use crate::adapter_under_test::{AdapterUnderTest, Kind, assert_any};
use crate::fixture::{pid, until};
use crate::harness::postgres::Endpoint;

const SLEEP: Command = Command::Sql(SqlCommand::Run("SELECT pg_sleep(60)"));
/// Errors of a transaction whose session has ended. Only some clients notice it before the commit,
/// and only some show the SQLSTATE.
const LOST_SCOPE: [Outcome; 3] = [Failed(Lost), Failed(CommitFailed), Failed(CommitUnknown)];
const SCOPES: [LockScope; 2] = [LockScope::Session, LockScope::Transaction];

pub(crate) fn ended_while_it_polls(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let [holder, waiter] = fixture.actors();
        let mut observer = connect();
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        let waits = pid(&waiter);
        waiter.start_acquire(&key, poll(LONG));
        observer.wait_until_query(waits, "%pg_try_advisory_lock%");
        observer.terminate(waits);
        assert_eq!(waiter.finish(), Failed(Database));
        fixture.assert_held(&key, &[Exclusive]);
        assert_eq!(holder.release(), Done);
        adapter.assert_recovers(fixture, &waiter, &key);
    });
}

pub(crate) fn ended_while_it_waits(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let [holder, waiter] = fixture.actors();
        let mut observer = connect();
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        let waits = pid(&waiter);
        queue(fixture, &waiter, &key, LONG, 1);
        observer.terminate(waits);
        assert_eq!(waiter.finish(), Failed(Database));
        fixture.assert_held(&key, &[Exclusive]);
        assert_eq!(holder.release(), Done);
        adapter.assert_recovers(fixture, &waiter, &key);
    });
}

/// Both sessions listen. sqlx 0.9 cannot read a notification, except on the connection of its
/// listener.
pub(crate) fn notified(adapter: AdapterUnderTest) {
    let reads_notifications = !adapter.name.contains("sqlx") && !adapter.name.contains("sea_orm");
    let assert_outcome = |outcome: Outcome, expected: Outcome, failure| {
        if reads_notifications || outcome != Failed(failure) {
            assert_eq!(outcome, expected);
        }
    };
    let channel = fresh_name();
    let listen: &'static str = format!("LISTEN {channel}").leak();
    let notify = format!("NOTIFY {channel}");
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let [holder, waiter] = fixture.actors();
        let mut observer = connect();
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        for actor in [&holder, &waiter] {
            assert_eq!(actor.run_sql(SqlCommand::Run(listen)), Done);
        }
        queue(fixture, &waiter, &key, LONG, 1);
        for _ in 0..3 {
            observer.run(&notify);
        }
        assert_outcome(holder.release(), Done, Lost);
        let granted = waiter.finish();
        assert_outcome(granted.clone(), Granted, Database);
        if granted == Granted {
            fixture.assert_held(&key, &[Exclusive]);
            observer.run(&notify);
            assert_outcome(waiter.release(), Done, Lost);
        }
        fixture.assert_soon_free(&key);
        let actor = fixture.actor();
        assert_granted_and_released(&actor, &key);
    });
}

/// The loss is an error, unless the body returns its own, or the guard is dropped.
pub(crate) fn ended_while_held(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let mut observer = connect();
        let key = fixture.key("key");
        let with = |scope, ending| {
            let actor = fixture.actor();
            actor.enter(scope, &key);
            connect().terminate(pid(&actor));
            fixture.assert_free(&key);
            let outcome = actor.end_body(ending);
            adapter.assert_recovers(fixture, &actor, &key);
            outcome
        };
        assert_eq!(with(LockScope::Session, BodyEnd::Ok), Failed(Lost));
        // Some clients notice the loss before the commit.
        let committed = with(LockScope::Transaction, BodyEnd::Ok);
        assert_any(committed, &LOST_SCOPE);
        for scope in SCOPES {
            assert_eq!(with(scope, BodyEnd::Err), BodyFailed);
            assert_eq!(with(scope, BodyEnd::Panic), Panicked);
        }
        for (end, outcome) in [(Command::Release, Failed(Lost)), (Command::DropGuard, Done)] {
            let actor = fixture.actor();
            assert_eq!(actor.acquire(&key, no_wait()), Granted);
            observer.terminate(pid(&actor));
            fixture.assert_free(&key);
            assert_eq!(actor.call(end), outcome);
            adapter.assert_recovers(fixture, &actor, &key);
        }
    });
}

/// The session is terminated during a statement of the body.
pub(crate) fn ended_in_the_body(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let mut observer = connect();
        for (scope, ending) in SCOPES
            .into_iter()
            .flat_map(|scope| [BodyEnd::Ok, BodyEnd::Err].map(|ending| (scope, ending)))
        {
            let key = fixture.key("key");
            let actor = fixture.actor();
            actor.enter(scope, &key);
            let sleeps = pid(&actor);
            actor.start(SLEEP);
            observer.wait_until_query(sleeps, "%pg_sleep(60)%");
            observer.terminate(sleeps);
            fixture.assert_free(&key);
            assert_eq!(actor.finish(), ClientFailed);
            let outcome = actor.end_body(ending);
            match (scope, ending) {
                (_, BodyEnd::Err) => assert_eq!(outcome, BodyFailed),
                (LockScope::Session, _) => assert_eq!(outcome, Failed(Lost)),
                (LockScope::Transaction, _) => {
                    assert_any(outcome, &LOST_SCOPE);
                }
            }
            adapter.assert_recovers(fixture, &actor, &key);
        }
    });
}

/// A statement of the body is cancelled. A session-level lock stays held; a transaction is aborted.
pub(crate) fn cancelled_in_the_body(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let mut observer = connect();
        let key = fixture.key("key");
        let actor = fixture.actor();
        for (scope, ending, outcome) in [
            (LockScope::Session, BodyEnd::Ok, BodySucceeded(BODY_VALUE)),
            (LockScope::Session, BodyEnd::Err, BodyFailed),
            (LockScope::Transaction, BodyEnd::Ok, Failed(CommitFailed)),
            (LockScope::Transaction, BodyEnd::Err, BodyFailed),
        ] {
            actor.enter(scope, &key);
            let sleeps = pid(&actor);
            actor.start(SLEEP);
            observer.wait_until_query(sleeps, "%pg_sleep(60)%");
            observer.cancel(sleeps);
            assert_eq!(actor.finish(), ClientFailed);
            assert_eq!(actor.end_body(ending), outcome);
            fixture.assert_free(&key);
            assert_granted_and_released(&actor, &key);
            assert_eq!(pid(&actor), sleeps, "the same session");
        }
    });
}

/// Cancel requests hit a client that acquires and releases, and its clean-up statements.
pub(crate) fn cancelled_all_the_time(adapter: AdapterUnderTest) {
    const ROUNDS: u32 = 100;
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let mut actor = fixture.actor();
        let mut observer = connect();
        let mut failed = 0;
        for _ in 0..ROUNDS {
            let target = pid(&actor);
            let stop = AtomicBool::new(false);
            let (cancelled, first_cancel) = channel();
            let outcomes = thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        observer.cancel(target);
                        let _ = cancelled.send(());
                    }
                });
                first_cancel.recv().unwrap();
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
            let mut after_failure = false;
            for outcome in outcomes {
                let mut expected = vec![Granted, Done];
                expected.extend([Canceled, Database, Lost].map(Failed));
                // A release was hit after it had released the lock, and so was its repetition.
                if adapter.hides_sqlstate() {
                    expected.push(Failed(NotHeld));
                }
                // A pool's next session may come before the server has ended the terminated one.
                if after_failure && adapter.kind != Kind::Connection {
                    expected.push(Failed(HeldElsewhere));
                }
                after_failure = matches!(outcome, Failed(_));
                failed += u32::from(after_failure);
                assert_any(outcome, &expected);
            }
            fixture.assert_soon_free(&key);
            if adapter.kind == Kind::Connection && actor.run_sql(SqlCommand::Pid) == ClientFailed {
                actor = fixture.actor();
            }
        }
        println!("{failed} statements were hit");
    });
}

/// A slow release function, so that the cancel request hits it.
const SLOW_RELEASE: &str = "SET allow_system_table_mods = on;
    ALTER FUNCTION pg_catalog.pg_advisory_unlock(int8) RENAME TO quick_unlock;
    CREATE FUNCTION pg_catalog.pg_advisory_unlock(int8) RETURNS bool LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(60); RETURN quick_unlock($1); END'";

/// The release is cancelled. Its result is unknown, so the session is terminated, also after a
/// dropped guard.
pub(crate) fn cancelled_at_the_release(adapter: AdapterUnderTest) {
    let server = ClusterGuard::acquire();
    let endpoint = server.database("slow_release", "", |admin| admin.run(SLOW_RELEASE));
    let mut observer = connect_to(&endpoint);
    adapter.run_at(&Endpoint::new(endpoint), |fixture| {
        let key = fixture.key("key");
        for (end, outcome) in [(Command::Release, Failed(Database)), (Command::DropGuard, Done)] {
            let actor = fixture.actor();
            let session = pid(&actor);
            assert_eq!(actor.acquire(&key, no_wait()), Granted);
            actor.start(end);
            let sleeps = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {session} AND wait_event = 'PgSleep'"
            );
            until(LONG, || (observer.number(&sleeps) > 0).then_some(())).expect("it sleeps");
            observer.cancel(session);
            assert_eq!(actor.finish(), outcome);
            fixture.assert_soon_free(&key);
            observer.wait_until_ended(session);
        }
    });
}

/// The server's timeouts for idle sessions. PostgreSQL 13 has none outside a transaction.
pub(crate) fn idle_for_too_long(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let mut observer = connect();
        let key = fixture.key("key");
        let lost = &LOST_SCOPE[..];
        let has_session_timeout = observer.version() >= 140_000;
        for (scope, setting, expected) in [
            (
                LockScope::Session,
                "SET idle_session_timeout = '50ms'",
                &lost[..1],
            ),
            (
                LockScope::Transaction,
                "SET LOCAL idle_in_transaction_session_timeout = '50ms'",
                lost,
            ),
        ] {
            let actor = fixture.actor();
            actor.enter(scope, &key);
            if scope == LockScope::Session && !has_session_timeout {
                let unknown = actor.run_sql(SqlCommand::Run(setting));
                assert_eq!(unknown, ClientFailed);
                assert_eq!(actor.end_body(BodyEnd::Ok), BodySucceeded(BODY_VALUE));
                continue;
            }
            let idles = pid(&actor);
            assert_eq!(actor.run_sql(SqlCommand::Run(setting)), Done);
            observer.wait_until_ended(idles);
            fixture.assert_free(&key);
            assert_any(actor.end_body(BodyEnd::Ok), expected);
            adapter.assert_recovers(fixture, &actor, &key);
        }
    });
}

/// A level that is never released, as after a leaked guard, is held until its connection closes.
pub(crate) fn leaked_and_closed(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let [actor, other] = fixture.actors();
        let by_hand = actor.run_sql(SqlCommand::TryLock(key.raw(), Exclusive));
        assert_eq!(by_hand, Outcome::Answered(Some(1)));
        assert_granted_and_released(&actor, &key);
        fixture.assert_held(&key, &[Exclusive]);
        actor.start(Command::Quit);
        fixture.assert_soon_free(&key);
        assert_granted_and_released(&other, &key);
    });
}
