//! Clients that are killed or stopped.

use std::time::Duration;

use advisory_locking::LockErrorKind::TimedOut;
use advisory_locking::{LockKey, LockMode::Exclusive};

use super::{LONG, assert_granted_and_released, block, no_wait, poll};
use crate::actor::Outcome::{Done, Failed, Granted};
use crate::client::Client;
use crate::harness::postgres::url;
use crate::mount::Mount;
use crate::stage::Stage;
use crate::watch::{Watch, fresh_name};

/// A key that two processes can name.
fn key(stage: &Stage) -> (LockKey, String) {
    let name = fresh_name();
    (stage.watch(LockKey::from(name.as_str())), name)
}

/// A client that holds the key.
fn holder(mount: Mount, name: &str) -> Client {
    let mut client = Client::spawn(mount, &url());
    assert_eq!(client.call(&format!("acquire {name}")), "Granted");
    client
}

pub(crate) fn a_client_killed_while_it_holds(mount: Mount) {
    mount.here(|stage| {
        let (key, name) = key(stage);
        let mut client = holder(mount, &name);
        stage.assert_held(&key, &[Exclusive]);
        client.kill();
        stage.assert_soon_free(&key);
        assert_granted_and_released(&stage.actor(), &key);
    });
}

/// The server does not notice while it waits. It grants the lock in its turn, to nobody, and at once to the next.
pub(crate) fn a_client_killed_while_it_waits(mount: Mount) {
    mount.here(|stage| {
        let (key, name) = key(stage);
        let [first, second] = stage.actors();
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        let mut client = Client::spawn(mount, &url());
        client.start(&format!("wait {name}"));
        stage.until_queued(&key, 1);
        second.start_acquire(&key, block(LONG));
        stage.until_queued(&key, 2);
        client.kill();
        assert_eq!(first.release(), Done);
        assert_eq!(second.finish(), Granted);
        assert_eq!(second.release(), Done);
        stage.assert_free(&key);
    });
}

/// A lock is no lease: it does not run out while its session lives.
pub(crate) fn a_client_stopped_while_it_holds(mount: Mount) {
    mount.here(|stage| {
        let (key, name) = key(stage);
        let mut client = holder(mount, &name);
        client.stop();
        let other = stage.actor();
        let limit = Duration::from_millis(500);
        for options in [poll(limit), block(limit)] {
            assert_eq!(other.acquire(&key, options), Failed(TimedOut));
        }
        assert!(client.is_stopped());
        stage.assert_held(&key, &[Exclusive]);
        client.go_on();
        assert_eq!(client.call("release"), "Done");
        assert_granted_and_released(&other, &key);
    });
}

/// Somebody else has held the lock meanwhile, and the client is told when it releases.
pub(crate) fn a_client_stopped_and_ended(mount: Mount) {
    mount.here(|stage| {
        let (key, name) = key(stage);
        let mut client = holder(mount, &name);
        client.stop();
        let held = stage.holders(&key);
        Watch::at(&url()).terminate(held[0].pid);
        let other = stage.actor();
        assert_eq!(other.acquire(&key, no_wait()), Granted);
        client.go_on();
        assert_eq!(client.call("release"), "Failed(Lost)");
        stage.assert_held(&key, &[Exclusive]);
        assert_eq!(other.release(), Done);
    });
}
