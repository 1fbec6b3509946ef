//! Servers that stop, crash, or are full.

use advisory_locking::LockErrorKind::{
    CommitFailed, Database, Lost, Pool, TooManyLocks, TransactionAborted,
};
use advisory_locking::LockKey;
use advisory_locking::LockMode::Exclusive;

use super::{LONG, assert_granted_and_released, block, no_wait, poll, queue};
use crate::actor::Outcome::{BodyStarted, Done, Failed, Granted};
use crate::actor::{Actor, BodyEnd, LockScope, SqlCommand};
use crate::adapter_under_test::{AdapterUnderTest, Kind, assert_any};
use crate::client::signal;
use crate::cluster::Private;
use crate::fixture::pid;
use crate::harness::postgres::Endpoint;
use crate::watch::Watch;

pub(crate) fn the_server_restarts(adapter: AdapterUnderTest) {
    everybody_is_thrown_out(adapter, |server, _| {
        server.ctl(&["-m", "fast", "-w", "restart"]);
    });
}

/// Without telling anybody.
pub(crate) fn the_server_restarts_at_once(adapter: AdapterUnderTest) {
    everybody_is_thrown_out(adapter, |server, _| {
        server.ctl(&["-m", "immediate", "-w", "restart"]);
    });
}

/// One session's process is killed. The server ends all others, because the memory that they share may be damaged.
pub(crate) fn the_server_crashes(adapter: AdapterUnderTest) {
    everybody_is_thrown_out(adapter, |_, holder| {
        signal("KILL", u32::try_from(pid(holder)).expect("a process id"));
    });
}

/// Whoever holds, in either way, has lost; whoever waits, in either way, has failed; no lock is left; and life goes on.
fn everybody_is_thrown_out(adapter: AdapterUnderTest, throw: fn(&Private, &Actor)) {
    let server = Private::take();
    adapter.run_at(&Endpoint::new(server.url()), |fixture| {
        let (key, scoped) = (fixture.key("key"), fixture.key("scoped"));
        let [holder, body, scope, waiter, poller] = fixture.actors();
        assert_eq!(
            body.with(LockScope::Session, &fixture.key("body"), no_wait()),
            BodyStarted
        );
        assert_eq!(
            scope.with(LockScope::Transaction, &scoped, no_wait()),
            BodyStarted
        );
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        queue(fixture, &waiter, &key, LONG, 1);
        let polls = pid(&poller);
        let mut watch = Watch::at(&server.url());
        poller.start_acquire(&key, poll(LONG));
        watch.until_it_runs(polls, "%pg_try_advisory_lock%");

        throw(&server, &holder);
        for asker in [&waiter, &poller] {
            match asker.finish() {
                // The holder was thrown out first, and for a moment the lock was this one's.
                Granted => assert_eq!(asker.release(), Failed(Lost)),
                outcome => assert_eq!(outcome, Failed(Database)),
            }
        }
        assert_eq!(holder.release(), Failed(Lost));
        assert_eq!(body.end_body(BodyEnd::Ok), Failed(Lost));
        let committed = scope.end_body(BodyEnd::Ok);
        assert_any(committed, &[Failed(CommitFailed), Failed(Lost)]);
        fixture.assert_free(&key);
        for actor in [&holder, &body, &scope, &waiter, &poller] {
            adapter.assert_goes_on(fixture, actor, &key);
        }
    });
}

/// There is nobody to ask; later there is.
pub(crate) fn the_server_is_gone(adapter: AdapterUnderTest) {
    let server = Private::take();
    adapter.run_at(&Endpoint::new(server.url()), |fixture| {
        let key = fixture.key("key");
        let actor = fixture.actor();
        assert_granted_and_released(&actor, &key);
        server.ctl(&["-m", "fast", "-w", "stop"]);
        // A pool may only now notice that its connection is none.
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
        adapter.assert_goes_on(fixture, &actor, &key);
    });
}

/// All of the server's lock table is taken up. The session outlives it.
pub(crate) fn the_lock_table_is_full(adapter: AdapterUnderTest) {
    let server = Private::take();
    adapter.run_at(&Endpoint::new(server.url()), |fixture| {
        let actor = fixture.actor();
        let session = pid(&actor);
        let mine = fixture.track_key((1, 1));
        assert_eq!(actor.acquire(&mine, no_wait()), Granted);
        let mut filler = Watch::at(&server.url());
        // The error leaves what was locked before it.
        let mut fill = || {
            filler
                .try_run("SELECT count(pg_advisory_lock(0, number)) FROM generate_series(1, 1000000) AS number")
                .unwrap_err();
        };
        fill();

        // Shared memory is handed out in pieces, and one may be left for this key but not for that: several are asked for.
        for key in (0..10_i64).map(|number| fixture.track_key(LockKey::from(number))) {
            for options in [no_wait(), poll(LONG), block(LONG)] {
                let mut outcome = actor.acquire(&key, options);
                // The server's own processes have given some back meanwhile.
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
        // The failed statement has aborted the transaction, and some clients hide why.
        assert_any(refused, &[Failed(TooManyLocks), Failed(TransactionAborted)]);
        assert_eq!(actor.rollback(), Done);
        // Whoever has a lock can take it again, and give it back.
        fixture.assert_held(&mine, &[Exclusive]);
        assert_granted_and_released(&actor, &mine);

        filler.run("SELECT pg_advisory_unlock_all()");
        assert_eq!(actor.release(), Done);
        assert_granted_and_released(&actor, &LockKey::from(3));
        assert_eq!(actor.number(SqlCommand::Pid), i64::from(session), "the same session");
    });
}
