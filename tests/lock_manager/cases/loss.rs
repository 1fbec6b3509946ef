//! Sessions that end.

use std::time::Duration;

use advisory_locking::LockErrorKind::Lost;
use advisory_locking::LockOptions;
use advisory_locking::lock_manager::LockManagerOptions;

use super::{OFTEN, block, fresh_key, kind_of, once, poll, unwatched};
use crate::eyes::{Eyes, Rival};
use crate::place::Place;
use crate::support::eventually;

/// Whoever holds is told without asking, releases with an error, and nothing is taken again for it.
pub(crate) async fn a_holder_learns_of_its_loss(place: Place) {
    let locker = place
        .locker(LockManagerOptions::new().keep_alive(OFTEN))
        .await;
    let (key, other, mut eyes) = (fresh_key(), fresh_key(), Eyes::at(&place.url));
    let guard = locker.acquire(&key, once()).await.unwrap();
    let second = locker.acquire(&other, once()).await.unwrap();
    assert_eq!(guard.generation(), second.generation(), "on one session");
    assert!(!guard.is_lost());
    eyes.terminate_holder(&key);
    eventually("news of the loss", || guard.is_lost() && second.is_lost());
    // The locker goes on, on a new session.
    let third = locker.acquire(&fresh_key(), poll()).await.unwrap();
    assert!(third.generation() > guard.generation());
    assert!(
        eyes.is_free(&key) && eyes.is_free(&other),
        "taken again silently"
    );
    assert_eq!(kind_of(guard.release().await), Some(Lost));
    assert_eq!(kind_of(second.release().await), Some(Lost));
    assert!(!third.is_lost());
    third.release().await.unwrap();
}

/// Nobody looks after the session, so the release itself finds it out; one that was waited for on the server too.
pub(crate) async fn a_release_reports_a_loss(place: Place) {
    let locker = place.locker(unwatched()).await;
    let mut eyes = Eyes::at(&place.url);
    for options in super::both_ways() {
        let key = fresh_key();
        let mut rival = Rival::holding(&key);
        let asking = locker.ask(&key, options);
        rival.gives_back(&key);
        let guard = asking.await.unwrap().unwrap();
        eyes.terminate_holder(&key);
        assert!(!guard.is_lost(), "nobody has noticed");
        assert_eq!(kind_of(guard.release().await), Some(Lost));
        let again = locker.acquire(&key, poll()).await.unwrap();
        again.release().await.unwrap();
    }
    // Of several, each.
    let keys = vec![fresh_key(), fresh_key()];
    let guards = locker.acquire_all(keys.clone(), once()).await.unwrap();
    eyes.terminate_holder(&keys[0]);
    assert_eq!(kind_of(guards.release().await), Some(Lost));
}

/// It ends while nothing is held on it. Those who wait do not notice; whoever asks but once is told at most once.
pub(crate) async fn an_idle_session_is_replaced(place: Place) {
    let locker = place.locker(unwatched()).await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    for options in super::both_ways() {
        let guard = locker.acquire(&key, poll()).await.unwrap();
        let (holder, generation) = (eyes.holder(&key), guard.generation());
        guard.release().await.unwrap();
        eyes.terminate(holder);
        let guard = locker.acquire(&key, options).await.unwrap();
        assert!(guard.generation() > generation);
        assert_ne!(eyes.holder(&key), holder);
        guard.release().await.unwrap();
    }
}

/// The session on which somebody asks again and again ends between two questions.
pub(crate) async fn those_who_poll_go_on(place: Place) {
    let locker = place.locker(unwatched()).await;
    let (key, other, mut eyes) = (fresh_key(), fresh_key(), Eyes::at(&place.url));
    let held = locker.acquire(&other, once()).await.unwrap();
    let mut rival = Rival::holding(&key);
    let options = LockOptions::wait_forever().interval(Duration::from_millis(10));
    let asking = locker.ask(&key, options);
    eyes.terminate_holder(&other);
    // The next question finds it out, for those who hold too.
    eventually("the loss", || held.is_lost());
    rival.gives_back(&key);
    let guard = asking.await.unwrap().unwrap();
    assert!(guard.generation() > held.generation());
    guard.release().await.unwrap();
    assert_eq!(kind_of(held.release().await), Some(Lost));
}

pub(crate) async fn sessions_lose_only_their_own(place: Place) {
    let locker = place
        .locker(LockManagerOptions::new().keep_alive(OFTEN))
        .await;
    let (own, shared, mut eyes) = (fresh_key(), fresh_key(), Eyes::at(&place.url));
    let mut rival = Rival::holding(&own);
    let asking = locker.ask(&own, block());
    eyes.until_waited_for(&own, 1);
    rival.gives_back(&own);
    let own_guard = asking.await.unwrap().unwrap();
    let guard = locker.acquire(&shared, once()).await.unwrap();
    assert_ne!(eyes.holder(&own), eyes.holder(&shared));
    eyes.terminate_holder(&own);
    eventually("news of the loss", || own_guard.is_lost());
    assert!(!guard.is_lost());
    guard.release().await.unwrap();
    assert_eq!(kind_of(own_guard.release().await), Some(Lost));
}

/// A session that waits on the server is the locker's own affair: those who wait there go on without it.
pub(crate) async fn those_who_block_go_on(place: Place) {
    let locker = place.locker(unwatched()).await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let mut rival = Rival::holding(&key);
    let asking = locker.ask(&key, block());
    eyes.until_waited_for(&key, 1);
    let waiter = eyes.waiters(&key)[0];
    eyes.terminate(waiter);
    eventually("another one waits", || {
        let waiters = eyes.waiters(&key);
        waiters.len() == 1 && !waiters.contains(&waiter)
    });
    rival.gives_back(&key);
    asking.await.unwrap().unwrap().release().await.unwrap();
}
