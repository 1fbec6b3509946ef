//! Servers that stop, and networks that fall silent or lose what was sent.
#![allow(
    clippy::future_not_send,
    reason = "whoever has the private server has it on one thread"
)]

use std::time::Duration;

use advisory_locking::LockErrorKind::{Database, Lost, TimedOut};
use advisory_locking::LockMode::Exclusive;
use advisory_locking::WaitStrategy::Block;
use advisory_locking::lock_manager::LockManagerOptions;
use tokio::time::timeout;

use super::{OFTEN, PATIENCE, block, fresh_key, kind_of, once, poll, unwatched, within};
use crate::cluster::Private;
use crate::eyes::{Eyes, Rival};
use crate::place::Place;
use crate::relay::Direction::{ToClient, ToServer};
use crate::relay::{Flow, Relay};
use crate::support::{eventually, run};

pub(crate) async fn the_server_restarts(place: Place) {
    everybody_is_thrown_out(place, "fast").await;
}

/// Without telling anybody.
pub(crate) async fn the_server_crashes(place: Place) {
    everybody_is_thrown_out(place, "immediate").await;
}

/// Whoever holds has lost, whoever waits goes on, in either way, and nothing is taken again for anybody.
async fn everybody_is_thrown_out(place: Place, mode: &str) {
    let server = Private::take();
    let place = Place::at(place.kind, server.url());
    let locker = place
        .locker(LockManagerOptions::new().keep_alive(OFTEN))
        .await;
    let [held, polled, blocked] = [fresh_key(), fresh_key(), fresh_key()];
    let guard = locker.acquire(&held, once()).await.unwrap();
    let (mut rival, mut eyes) = (Rival::at(&place.url), Eyes::at(&place.url));
    let waiting: Vec<_> = [(polled, poll()), (blocked.clone(), block())]
        .into_iter()
        .map(|(key, options)| {
            assert!(rival.takes(&key, Exclusive));
            let asking = locker.ask(&key, options);
            (key, options, asking)
        })
        .collect();
    eyes.until_waited_for(&blocked, 1);

    server.ctl(&["-m", mode, "-w", "restart"]);
    eventually("news of the loss", || guard.is_lost());
    for (key, options, asking) in waiting {
        // The rival may have been thrown out first, and for a moment the lock was this one's.
        let released = asking.await.unwrap().unwrap().release().await;
        assert!(matches!(kind_of(released), None | Some(Lost)));
        let again = locker.acquire(&key, options).await.unwrap();
        assert!(again.generation() > guard.generation());
        again.release().await.unwrap();
    }
    let mut eyes = Eyes::at(&place.url);
    assert!(eyes.is_free(&held), "taken again silently");
    assert_eq!(kind_of(guard.release().await), Some(Lost));
    let again = locker.acquire(&held, poll()).await.unwrap();
    again.release().await.unwrap();
}

/// What is new goes through; what was cut off stays so.
fn pass(relay: &Relay) {
    relay.set(ToServer, Flow::Pass);
    relay.set(ToClient, Flow::Pass);
}

fn behind_a_relay(place: &Place) -> (Relay, Place) {
    let relay = Relay::start(&place.url);
    let far = Place::at(place.kind, relay.through(&place.url));
    (relay, far)
}

/// The holder is told in time, while the server believes that it has the lock.
pub(crate) async fn silence_under_a_holder(place: Place) {
    let (relay, far) = behind_a_relay(&place);
    let locker = far
        .locker(LockManagerOptions::new().keep_alive(OFTEN))
        .await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let guard = locker.acquire(&key, once()).await.unwrap();
    let holder = eyes.holder(&key);
    relay.fall_silent();
    eventually("news of the loss", || guard.is_lost());
    assert_eq!(eyes.holders(&key), [holder]);
    let generation = guard.generation();
    assert_eq!(kind_of(guard.release().await), Some(Lost));

    // Those who wait are served as soon as the server has noticed too.
    pass(&relay);
    let asking = locker.ask(&key, poll());
    let noticed = format!("SELECT pg_terminate_backend({holder})");
    run(&mut eyes.0, &noticed);
    let again = asking.await.unwrap().unwrap();
    assert!(again.generation() > generation);
    again.release().await.unwrap();
    eyes.until_free(&key);
}

/// Whoever waits there is told at its limit, at which the server ends the wait by itself.
pub(crate) async fn silence_under_a_waiter(place: Place) {
    let (relay, far) = behind_a_relay(&place);
    let locker = far.locker(unwatched()).await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let mut rival = Rival::holding(&key);
    let asking = locker.ask(&key, within(Duration::from_secs(5), Block));
    eyes.until_waited_for(&key, 1);
    relay.fall_silent();
    assert_eq!(kind_of(asking.await.unwrap()), Some(TimedOut));
    eyes.until_waited_for(&key, 0);
    rival.gives_back(&key);
    assert!(eyes.is_free(&key));
}

/// It asks on a session that is cut off, and goes on as soon as that is known, long before its limit.
pub(crate) async fn silence_under_a_poller(place: Place) {
    let (relay, far) = behind_a_relay(&place);
    let locker = far
        .locker(LockManagerOptions::new().keep_alive(OFTEN))
        .await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let other = locker.acquire(&fresh_key(), poll()).await.unwrap();
    relay.fall_silent();
    relay.set(ToServer, Flow::Lost);
    let asking = locker.ask(&key, poll());
    relay.until_kept_back(ToServer);
    pass(&relay);
    let guard = asking.await.unwrap().unwrap();
    assert!(guard.generation() > other.generation());
    guard.release().await.unwrap();
    eyes.until_free(&key);
    assert_eq!(kind_of(other.release().await), Some(Lost));
}

/// What cannot be reached is not waited for.
pub(crate) async fn closing_in_silence(place: Place) {
    let (relay, far) = behind_a_relay(&place);
    let locker = far
        .locker(LockManagerOptions::new().keep_alive(OFTEN))
        .await;
    let guard = locker.acquire(&fresh_key(), once()).await.unwrap();
    relay.fall_silent();
    timeout(PATIENCE, locker.close()).await.unwrap();
    assert_eq!(kind_of(guard.release().await), Some(Lost));
}

/// The connection breaks before the release has reached the server, which frees the lock with the session.
pub(crate) async fn a_lost_release(place: Place) {
    let (relay, far) = behind_a_relay(&place);
    let locker = far.locker(unwatched()).await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let guard = locker.acquire(&key, once()).await.unwrap();
    let holder = eyes.holder(&key);
    relay.set(ToServer, Flow::Held);
    let releasing = tokio::spawn(guard.release());
    relay.until_kept_back(ToServer);
    assert_eq!(eyes.holders(&key), [holder]);
    relay.break_connections();
    assert_eq!(kind_of(releasing.await.unwrap()), Some(Lost));
    eyes.until_free(&key);
    relay.set(ToServer, Flow::Pass);
    let again = locker.acquire(&key, poll()).await.unwrap();
    again.release().await.unwrap();
}

/// The server has granted, and the connection breaks before the answer is there. Whoever waits asks again, and whoever asks but once is told.
pub(crate) async fn a_lost_grant(place: Place) {
    let (relay, far) = behind_a_relay(&place);
    let locker = far.locker(unwatched()).await;
    for (options, granted) in [(poll(), true), (once(), false)] {
        let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
        // Which opens the session.
        let first = locker.acquire(&fresh_key(), poll()).await.unwrap();
        relay.set(ToClient, Flow::Held);
        let asking = locker.ask(&key, options);
        eventually("the grant", || !eyes.holders(&key).is_empty());
        let holder = eyes.holder(&key);
        relay.break_connections();
        relay.set(ToClient, Flow::Pass);
        match asking.await.unwrap() {
            Ok(guard) => {
                assert!(granted);
                assert_ne!(eyes.holder(&key), holder);
                assert!(guard.generation() > first.generation());
                guard.release().await.unwrap();
            }
            Err(error) => assert_eq!((granted, error.kind()), (false, Database)),
        }
        eyes.until_free(&key);
        assert_eq!(kind_of(first.release().await), Some(Lost));
    }
}
