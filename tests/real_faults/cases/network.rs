//! Networks that are cut, fall silent, or lose what was sent.

use std::time::Duration;

use advisory_locking::LockErrorKind::{Database, Lost, Pool};
use advisory_locking::LockMode::Exclusive;

use super::{LONG, assert_granted_and_released, block, no_wait};
use crate::actor::Outcome::{BodyStarted, Done, Failed, Granted, NotGranted};
use crate::actor::{BodyEnd, Command, LockScope, OUTER_LIMIT, SqlCommand};
use crate::adapter_under_test::{AdapterUnderTest, Kind};
use crate::fixture::{Fixture, pid, until};
use crate::harness::postgres::{Endpoint, url};
use crate::relay::{Direction, Flow, Relay};
use crate::watch::Watch;

/// Actors of the one fixture come through the relay, those of the other do not.
fn between(adapter: AdapterUnderTest, play: impl FnOnce(&Relay, &Fixture, &Fixture)) {
    let url = url();
    let relay = Relay::start(&url);
    adapter.run(|near| {
        // The observer does not come through the relay.
        let endpoint = Endpoint {
            actors: relay.through(&url),
            observer: url,
        };
        adapter.run_at(&endpoint, |far| {
            play(&relay, far, near);
            // Whoever is left behind it is told to go, and must not wait for an answer.
            relay.cut();
        });
    });
}

/// Nobody can tell a holder who is cut off from one who is slow, but for TCP: the key is free when the server's keepalive has given up.
pub(crate) fn silence_under_a_holder(adapter: AdapterUnderTest) {
    between(adapter, |relay, far, near| {
        let key = far.key("key");
        let (holder, other) = (far.actor(), near.actor());
        let keepalive = SqlCommand::Run(
            "SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 1",
        );
        assert_eq!(holder.run_sql(keepalive), Done);
        let held = pid(&holder);
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        relay.fall_silent();
        assert_eq!(other.try_acquire(&key, no_wait()), NotGranted);
        assert_eq!(other.acquire(&key, block(LONG)), Granted);
        Watch::at(&url()).until_gone(held);
        // The holder learns of it when it asks for something.
        holder.start(Command::Release);
        relay.cut();
        assert_eq!(holder.finish(), Failed(Lost));
        far.assert_held(&key, &[Exclusive]);
        assert_eq!(other.release(), Done);
    });
}

/// The server's own limit for the wait ends it, though nobody is there to be told.
pub(crate) fn silence_under_a_waiter(adapter: AdapterUnderTest) {
    between(adapter, |relay, far, near| {
        let key = far.key("key");
        let (waiter, holder) = (far.actor(), near.actor());
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        waiter.start_acquire(&key, block(Duration::from_secs(3)));
        far.until_queued(&key, 1);
        relay.fall_silent();
        until(OUTER_LIMIT, || {
            (far.lock_entries(&key).len() == 1).then_some(())
        })
        .expect("it leaves the queue");
        assert_eq!(holder.release(), Done);
        far.assert_free(&key);
        relay.cut();
        assert_eq!(waiter.finish(), Failed(Database));
        far.assert_free(&key);
    });
}

/// The client knows at once. The server does not look while it waits, but nobody waits for who is gone.
pub(crate) fn a_cut_under_a_waiter(adapter: AdapterUnderTest) {
    between(adapter, |relay, far, near| {
        let key = far.key("key");
        let (waiter, holder, other) = (far.actor(), near.actor(), near.actor());
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        waiter.start_acquire(&key, block(LONG));
        far.until_queued(&key, 1);
        relay.cut();
        assert_eq!(waiter.finish(), Failed(Database));
        other.start_acquire(&key, block(LONG));
        until(OUTER_LIMIT, || {
            let others = far
                .lock_entries(&key)
                .iter()
                .filter(|held| !held.granted)
                .count();
            (1..=2).contains(&others).then_some(())
        })
        .expect("the other waits");
        assert_eq!(holder.release(), Done);
        assert_eq!(other.finish(), Granted);
        assert_eq!(other.release(), Done);
    });
}

/// The connection breaks before the release has reached the server.
pub(crate) fn a_cut_at_the_release(adapter: AdapterUnderTest) {
    between(adapter, |relay, far, near| {
        let key = far.key("key");
        let (holder, other) = (far.actor(), near.actor());
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        relay.set(Direction::ToServer, Flow::Held);
        holder.start(Command::Release);
        relay.until_kept_back(Direction::ToServer);
        far.assert_held(&key, &[Exclusive]);
        relay.cut();
        assert_eq!(holder.finish(), Failed(Lost));
        far.assert_soon_free(&key);
        assert_granted_and_released(&other, &key);
        // There is no way to the server any more, for a pool neither.
        let refused = match adapter.kind {
            Kind::Connection => Database,
            Kind::Pool => Pool,
        };
        assert_eq!(holder.try_acquire(&key, no_wait()), Failed(refused));
    });
}

/// The lock is granted, and the answer is lost with the connection.
pub(crate) fn a_lost_grant(adapter: AdapterUnderTest) {
    between(adapter, |relay, far, near| {
        for wait in [false, true] {
            let key = far.key(if wait { "waited for" } else { "free" });
            let (asker, holder) = (far.actor(), near.actor());
            // Under another lock, so that a pool has nothing to ask the server before.
            let outer = far.key("outer");
            assert_eq!(
                asker.with(LockScope::Session, &outer, no_wait()),
                BodyStarted
            );
            // What is prepared takes one message, not two.
            assert_granted_and_released(&asker, &key);
            if wait {
                assert_eq!(holder.acquire(&key, no_wait()), Granted);
                asker.start_acquire(&key, block(LONG));
                far.until_queued(&key, 1);
            }
            relay.set(Direction::ToClient, Flow::Held);
            if wait {
                assert_eq!(holder.release(), Done);
            } else {
                asker.start_acquire(&key, no_wait());
            }
            until(OUTER_LIMIT, || {
                let held = far.lock_entries(&key);
                matches!(held[..], [one] if one.granted).then_some(())
            })
            .expect("the server grants it");
            relay.break_connections();
            assert_eq!(asker.finish(), Failed(Database));
            assert_eq!(asker.end_body(BodyEnd::Ok), Failed(Lost));
            far.assert_soon_free(&key);
            relay.set(Direction::ToClient, Flow::Pass);
            assert_granted_and_released(&holder, &key);
            adapter.assert_goes_on(far, &asker, &key);
        }
    });
}

/// The lock is released, and the answer is lost with the connection: whether it was held to the end cannot be known.
pub(crate) fn a_lost_release(adapter: AdapterUnderTest) {
    between(adapter, |relay, far, near| {
        let key = far.key("key");
        let (holder, other) = (far.actor(), near.actor());
        // What is prepared takes one message, not two.
        assert_granted_and_released(&holder, &key);
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        relay.set(Direction::ToClient, Flow::Lost);
        holder.start(Command::Release);
        relay.until_kept_back(Direction::ToClient);
        far.assert_soon_free(&key);
        relay.break_connections();
        assert_eq!(holder.finish(), Failed(Lost));
        relay.set(Direction::ToClient, Flow::Pass);
        assert_granted_and_released(&other, &key);
        adapter.assert_goes_on(far, &holder, &key);
    });
}

/// The session is ended while the release is on its way.
pub(crate) fn ended_at_the_release(adapter: AdapterUnderTest) {
    between(adapter, |relay, far, _| {
        let key = far.key("key");
        let holder = far.actor();
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        let session = pid(&holder);
        relay.set(Direction::ToServer, Flow::Held);
        holder.start(Command::Release);
        relay.until_kept_back(Direction::ToServer);
        Watch::at(&url()).terminate(session);
        relay.set(Direction::ToServer, Flow::Pass);
        assert_eq!(holder.finish(), Failed(Lost));
        far.assert_free(&key);
        adapter.assert_goes_on(far, &holder, &key);
    });
}
