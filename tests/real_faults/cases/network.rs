//! Networks that are cut, fall silent, or lose packets.

use std::time::Duration;

use advisory_locking::LockErrorKind::{Database, Lost, Pool};
use advisory_locking::LockMode::Exclusive;
use testkit::observer::Observe;
use testkit::proxy::{Direction, Policy, Proxy};
use testkit::server::{connect, url};
use testkit::timeouts::notices_disconnects;

use super::{LONG, assert_granted_and_released, block, no_wait, poll};
use crate::actor::Outcome::{Done, Failed, Granted, NotGranted};
use crate::actor::{BodyEnd, Command, LockScope, OUTER_LIMIT, SqlCommand};
use crate::adapter_under_test::{AdapterUnderTest, Kind};
use crate::fixture::{Fixture, pid, until};
use crate::harness::postgres::Endpoint;

/// Runs a case with two fixtures: the actors of the first connect through the proxy.
pub(super) fn with_proxy(adapter: AdapterUnderTest, case: impl FnOnce(&Proxy, &Fixture, &Fixture)) {
    let url = url();
    let proxy = Proxy::to(&url);
    adapter.run(|direct| {
        // The observer connects directly.
        let endpoint = Endpoint {
            actors: proxy.url(),
            observer: url,
        };
        adapter.run_at(&endpoint, |proxied| {
            case(&proxy, proxied, direct);
            // The remaining actors stop without waiting for a reply.
            proxy.cut();
        });
    });
}

/// The key becomes free when the server's
/// [TCP keepalive](https://www.postgresql.org/docs/current/runtime-config-connection.html) expires.
pub(crate) fn silence_under_a_holder(adapter: AdapterUnderTest) {
    with_proxy(adapter, |proxy, proxied, direct| {
        let key = proxied.key("key");
        let (holder, other) = (proxied.actor(), direct.actor());
        let keepalive = SqlCommand::Run(
            "SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 1",
        );
        assert_eq!(holder.run_sql(keepalive), Done);
        let held = pid(&holder);
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        // With an open connection, so that the next request overtakes the keepalive.
        assert_eq!(other.try_acquire(&key, no_wait()), NotGranted);
        proxy.fall_silent();
        // On a stalled machine, the keepalive may expire first.
        match other.try_acquire(&key, no_wait()) {
            NotGranted => assert_eq!(other.acquire(&key, block(LONG)), Granted),
            outcome => assert_eq!(outcome, Granted),
        }
        connect().wait_until_ended(held);
        // The holder learns of the loss at its next request.
        holder.start(Command::Release);
        proxy.cut();
        assert_eq!(holder.finish(), Failed(Lost));
        proxied.assert_held(&key, &[Exclusive]);
        assert_eq!(other.release(), Done);
    });
}

/// The limit of the wait is the server's `lock_timeout`, which needs no client.
pub(crate) fn silence_under_a_waiter(adapter: AdapterUnderTest) {
    with_proxy(adapter, |proxy, proxied, direct| {
        let key = proxied.key("key");
        let (waiter, holder) = (proxied.actor(), direct.actor());
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        waiter.start_acquire(&key, block(Duration::from_secs(5)));
        proxied.until_queued(&key, 1);
        proxy.fall_silent();
        until(OUTER_LIMIT, || {
            (proxied.lock_entries(&key).len() == 1).then_some(())
        })
        .expect("it leaves the queue");
        assert_eq!(holder.release(), Done);
        proxied.assert_free(&key);
        proxy.cut();
        assert_eq!(waiter.finish(), Failed(Database));
        proxied.assert_free(&key);
    });
}

/// The client notices at once, and the server soon: the waiter leaves the queue while the lock is
/// held. A server before 14 notices at the grant, and grants to the next waiter.
pub(crate) fn a_cut_under_a_waiter(adapter: AdapterUnderTest) {
    with_proxy(adapter, |proxy, proxied, direct| {
        let key = proxied.key("key");
        let (waiter, holder, other) = (proxied.actor(), direct.actor(), direct.actor());
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        waiter.start_acquire(&key, block(LONG));
        proxied.until_queued(&key, 1);
        proxy.cut();
        assert_eq!(waiter.finish(), Failed(Database));
        if notices_disconnects(&mut connect()) {
            direct.until_queued(&key, 0);
        }
        other.start_acquire(&key, block(LONG));
        until(OUTER_LIMIT, || {
            let others = proxied
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
    with_proxy(adapter, |proxy, proxied, direct| {
        let key = proxied.key("key");
        let (holder, other) = (proxied.actor(), direct.actor());
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        proxy.set(Direction::ToServer, Policy::Hold);
        holder.start(Command::Release);
        proxy.wait_until_held(Direction::ToServer);
        proxied.assert_held(&key, &[Exclusive]);
        proxy.cut();
        assert_eq!(holder.finish(), Failed(Lost));
        proxied.assert_soon_free(&key);
        assert_granted_and_released(&other, &key);
        // The proxy accepts no connections, so a pool fails too, at the limit of the call.
        let refused = match adapter.kind {
            Kind::Connection => Database,
            Kind::Pool => Pool,
        };
        let limited = poll(Duration::from_millis(300));
        assert_eq!(holder.try_acquire(&key, limited), Failed(refused));
    });
}

/// The lock is granted, and the reply is lost with the connection.
pub(crate) fn a_lost_grant(adapter: AdapterUnderTest) {
    with_proxy(adapter, |proxy, proxied, direct| {
        for wait in [false, true] {
            let key = proxied.key(if wait { "waited for" } else { "free" });
            let (asker, holder) = (proxied.actor(), direct.actor());
            // Inside another lock's body, so that a pool does not test the connection first.
            let outer = proxied.key("outer");
            asker.enter(LockScope::Session, &outer);
            // A prepared statement takes one message instead of two.
            assert_granted_and_released(&asker, &key);
            if wait {
                assert_eq!(holder.acquire(&key, no_wait()), Granted);
                asker.start_acquire(&key, block(LONG));
                proxied.until_queued(&key, 1);
            }
            proxy.set(Direction::ToClient, Policy::Hold);
            if wait {
                assert_eq!(holder.release(), Done);
            } else {
                asker.start_acquire(&key, no_wait());
            }
            until(OUTER_LIMIT, || {
                let held = proxied.lock_entries(&key);
                matches!(held[..], [one] if one.granted).then_some(())
            })
            .expect("the server grants it");
            proxy.break_connections();
            assert_eq!(asker.finish(), Failed(Database));
            assert_eq!(asker.end_body(BodyEnd::Ok), Failed(Lost));
            proxied.assert_soon_free(&key);
            proxy.set(Direction::ToClient, Policy::Forward);
            assert_granted_and_released(&holder, &key);
            adapter.assert_recovers(proxied, &asker, &key);
        }
    });
}

/// The lock is released, and the reply is lost with the connection. The holder cannot know whether
/// the lock was held until then.
pub(crate) fn a_lost_release(adapter: AdapterUnderTest) {
    with_proxy(adapter, |proxy, proxied, direct| {
        let key = proxied.key("key");
        let (holder, other) = (proxied.actor(), direct.actor());
        // A prepared statement takes one message instead of two.
        assert_granted_and_released(&holder, &key);
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        proxy.set(Direction::ToClient, Policy::Discard);
        holder.start(Command::Release);
        proxy.wait_until_held(Direction::ToClient);
        proxied.assert_soon_free(&key);
        // First: a pool may open a connection as soon as it has lost one.
        proxy.set(Direction::ToClient, Policy::Forward);
        proxy.break_connections();
        assert_eq!(holder.finish(), Failed(Lost));
        assert_granted_and_released(&other, &key);
        adapter.assert_recovers(proxied, &holder, &key);
    });
}

/// The session is terminated while the release is in flight.
pub(crate) fn ended_at_the_release(adapter: AdapterUnderTest) {
    with_proxy(adapter, |proxy, proxied, _| {
        let key = proxied.key("key");
        let holder = proxied.actor();
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        let session = pid(&holder);
        proxy.set(Direction::ToServer, Policy::Hold);
        holder.start(Command::Release);
        proxy.wait_until_held(Direction::ToServer);
        connect().terminate(session);
        proxy.set(Direction::ToServer, Policy::Forward);
        assert_eq!(holder.finish(), Failed(Lost));
        proxied.assert_free(&key);
        adapter.assert_recovers(proxied, &holder, &key);
    });
}
