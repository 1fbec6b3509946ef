//! Client processes that are killed or stopped.

use std::time::Duration;

use advisory_locking::LockErrorKind::TimedOut;
use advisory_locking::{LockKey, LockMode::Exclusive};
use testkit::observer::Observe;
use testkit::server::{connect, fresh_name, url};
use testkit::timeouts::notices_disconnects;

use super::{LONG, assert_granted_and_released, block, no_wait, poll};
use crate::actor::Outcome::{Done, Failed, Granted};
use crate::adapter_under_test::AdapterUnderTest;
use crate::client::Client;
use crate::fixture::Fixture;

/// Returns a key and its name, by which another process makes the same key.
fn key(fixture: &Fixture) -> (LockKey, String) {
    let name = fresh_name();
    (fixture.track_key(LockKey::from(name.as_str())), name)
}

/// Starts a client that holds the key.
fn holder(adapter: AdapterUnderTest, name: &str) -> Client {
    let mut client = Client::spawn(adapter, &url());
    assert_eq!(client.call(&format!("acquire {name}")), "Granted");
    client
}

pub(crate) fn a_client_killed_while_it_holds(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let (key, name) = key(fixture);
        let mut client = holder(adapter, &name);
        fixture.assert_held(&key, &[Exclusive]);
        client.kill();
        fixture.assert_soon_free(&key);
        assert_granted_and_released(&fixture.actor(), &key);
    });
}

/// The killed waiter leaves the queue while the lock is held. A server before 14 notices at the
/// grant, and grants the lock to the next waiter.
pub(crate) fn a_client_killed_while_it_waits(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let (key, name) = key(fixture);
        let [first, second] = fixture.actors();
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        let mut client = Client::spawn(adapter, &url());
        client.start(&format!("wait {name}"));
        fixture.until_queued(&key, 1);
        second.start_acquire(&key, block(LONG));
        fixture.until_queued(&key, 2);
        client.kill();
        if notices_disconnects(&mut connect()) {
            fixture.until_queued(&key, 1);
        }
        assert_eq!(first.release(), Done);
        assert_eq!(second.finish(), Granted);
        assert_eq!(second.release(), Done);
        fixture.assert_free(&key);
    });
}

/// A lock does not expire while its session lives.
pub(crate) fn a_client_stopped_while_it_holds(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let (key, name) = key(fixture);
        let mut client = holder(adapter, &name);
        client.stop();
        let other = fixture.actor();
        let limit = Duration::from_millis(500);
        for options in [poll(limit), block(limit)] {
            assert_eq!(other.acquire(&key, options), Failed(TimedOut));
        }
        assert!(client.is_stopped());
        fixture.assert_held(&key, &[Exclusive]);
        client.resume();
        assert_eq!(client.call("release"), "Done");
        assert_granted_and_released(&other, &key);
    });
}

/// Another session acquires the lock meanwhile, and the client's release reports the loss.
pub(crate) fn a_client_stopped_and_ended(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let (key, name) = key(fixture);
        let mut client = holder(adapter, &name);
        client.stop();
        let held = fixture.lock_entries(&key);
        connect().terminate(held[0].pid);
        let other = fixture.actor();
        assert_eq!(other.acquire(&key, no_wait()), Granted);
        client.resume();
        assert_eq!(client.call("release"), "Failed(Lost)");
        fixture.assert_held(&key, &[Exclusive]);
        assert_eq!(other.release(), Done);
    });
}
