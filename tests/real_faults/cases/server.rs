//! Servers that stop, crash, or are full.

use advisory_locking::LockErrorKind::{
    CommitFailed, CommitUnknown, Database, Lost, Pool, TooManyLocks, TransactionAborted,
};
use advisory_locking::LockKey;
use advisory_locking::LockMode::Exclusive;
use diesel::{Connection, PgConnection};
use testkit::cluster::ClusterGuard;
use testkit::observer::Observe;
use testkit::server::{connect_to, eventually};

use super::{LONG, assert_granted_and_released, block, no_wait, poll, queue};
use crate::actor::Outcome::{Done, Failed, Granted};
use crate::actor::{Actor, BodyEnd, LockScope, SqlCommand};
use crate::adapter_under_test::{AdapterUnderTest, Kind, assert_any};
use crate::client::signal;
use crate::fixture::pid;
use crate::harness::postgres::Endpoint;

pub(crate) fn the_server_restarts(adapter: AdapterUnderTest) {
    all_sessions_are_terminated(adapter, |server, _| {
        server.ctl(&["-m", "fast", "-w", "restart"]);
    });
}

/// The sessions end without a message.
pub(crate) fn the_server_restarts_at_once(adapter: AdapterUnderTest) {
    all_sessions_are_terminated(adapter, |server, _| {
        server.ctl(&["-m", "immediate", "-w", "restart"]);
    });
}

/// One session's process is killed. The server ends all others, because their shared memory may be
/// damaged.
pub(crate) fn the_server_crashes(adapter: AdapterUnderTest) {
    all_sessions_are_terminated(adapter, |server, holder| {
        let mut session = connect_to(&server.url());
        signal("KILL", u32::try_from(pid(holder)).expect("a process id"));
        eventually("the end of another session", || {
            session.try_run("SELECT 1").is_err()
        });
        // The server accepts connections once all sessions have ended.
        eventually("a new connection", || {
            PgConnection::establish(&server.url()).is_ok()
        });
    });
}

/// Holders report the loss, waiters fail, no lock is left, and new sessions work.
fn all_sessions_are_terminated(adapter: AdapterUnderTest, end_sessions: fn(&ClusterGuard, &Actor)) {
    let server = ClusterGuard::acquire();
    adapter.run_at(&Endpoint::new(server.url()), |fixture| {
        let (key, scoped) = (fixture.key("key"), fixture.key("scoped"));
        let [holder, body, scope, waiter, poller] = fixture.actors();
        body.enter(LockScope::Session, &fixture.key("body"));
        scope.enter(LockScope::Transaction, &scoped);
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        queue(fixture, &waiter, &key, LONG, 1);
        let polls = pid(&poller);
        let mut observer = connect_to(&server.url());
        poller.start_acquire(&key, poll(LONG));
        observer.wait_until_query(polls, "%pg_try_advisory_lock%");

        end_sessions(&server, &holder);
        for asker in [&waiter, &poller] {
            match asker.finish() {
                // The holder's session may end first, which grants the lock to this one.
                Granted => assert_eq!(asker.release(), Failed(Lost)),
                outcome => assert_eq!(outcome, Failed(Database)),
            }
        }
        assert_eq!(holder.release(), Failed(Lost));
        assert_eq!(body.end_body(BodyEnd::Ok), Failed(Lost));
        let committed = scope.end_body(BodyEnd::Ok);
        assert_any(
            committed,
            &[Failed(CommitFailed), Failed(CommitUnknown), Failed(Lost)],
        );
        fixture.assert_free(&key);
        for actor in [&holder, &body, &scope, &waiter, &poller] {
            adapter.assert_recovers(fixture, actor, &key);
        }
    });
}

/// The server is stopped, and started again.
pub(crate) fn the_server_is_gone(adapter: AdapterUnderTest) {
    let server = ClusterGuard::acquire();
    adapter.run_at(&Endpoint::new(server.url()), |fixture| {
        let key = fixture.key("key");
        let actor = fixture.actor();
        assert_granted_and_released(&actor, &key);
        server.ctl(&["-m", "fast", "-w", "stop"]);
        // A pool may notice the lost connection only now.
        let refused = [Failed(Database), Failed(Pool)];
        assert_any(actor.acquire(&key, block(LONG)), &refused);
        assert_any(
            actor.with(LockScope::Transaction, &key, no_wait()),
            &refused,
        );
        if adapter.kind == Kind::Pool {
            assert_eq!(actor.acquire(&key, no_wait()), Failed(Pool));
        }
        server.ctl(&["-w", "start"]);
        fixture.assert_free(&key);
        adapter.assert_recovers(fixture, &actor, &key);
    });
}

/// The server's lock table is full. The session survives the error.
pub(crate) fn the_lock_table_is_full(adapter: AdapterUnderTest) {
    let server = ClusterGuard::acquire();
    adapter.run_at(&Endpoint::new(server.url()), |fixture| {
        let actor = fixture.actor();
        let session = pid(&actor);
        let mine = fixture.track_key((1, 1));
        assert_eq!(actor.acquire(&mine, no_wait()), Granted);
        let mut filler = connect_to(&server.url());
        // The locks before the error stay held.
        let mut fill = || {
            filler
                .try_run("SELECT count(pg_advisory_lock(0, number)) FROM generate_series(1, 1000000) AS number")
                .unwrap_err();
        };
        fill();

        // The free shared memory may suffice for one key but not for another, so several are tried.
        for key in (0..10_i64).map(|number| fixture.track_key(LockKey::from(number))) {
            for options in [no_wait(), poll(LONG), block(LONG)] {
                let mut outcome = actor.acquire(&key, options);
                // The server's own processes may have released some entries.
                for _ in 0..100 {
                    if outcome != Granted {
                        break;
                    }
                    assert_eq!(actor.release(), Done);
                    fill();
                    outcome = actor.acquire(&key, options);
                }
                assert_eq!(outcome, Failed(TooManyLocks));
                fixture.assert_free(&key);
            }
        }
        assert_eq!(actor.begin(), Done);
        let refused = actor.xact(&LockKey::from(11), block(LONG));
        // The failed statement has aborted the transaction, and some clients hide its SQLSTATE.
        assert_any(refused, &[Failed(TooManyLocks), Failed(TransactionAborted)]);
        assert_eq!(actor.rollback(), Done);
        // A held lock can be acquired again, and released.
        fixture.assert_held(&mine, &[Exclusive]);
        assert_granted_and_released(&actor, &mine);

        filler.run("SELECT pg_advisory_unlock_all()");
        assert_eq!(actor.release(), Done);
        assert_granted_and_released(&actor, &LockKey::from(3));
        assert_eq!(actor.number(SqlCommand::Pid), i64::from(session), "the same session");
    });
}
