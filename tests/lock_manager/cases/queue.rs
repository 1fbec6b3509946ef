//! The queue in the process, and how a lock is handed on in it. A request is in the queue when its future was polled.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use advisory_locking::LockKey;
use advisory_locking::LockOptions;
use advisory_locking::lock_manager::LockManagerOptions;
use futures_util::poll;
use tokio::task::JoinHandle;

use super::{both_ways, fresh_key, keeping, once, unwatched};
use crate::eyes::{Eyes, Rival};
use crate::face::{Face, Guard};
use crate::place::Place;

pub(crate) type Request = Pin<Box<dyn Future<Output = Guard> + Send>>;

/// Somebody who is in the queue now.
pub(crate) async fn queued(locker: &Face, key: &LockKey, options: LockOptions) -> Request {
    let (locker, key) = (locker.clone(), key.clone());
    let mut request: Request =
        Box::pin(async move { locker.acquire(&key, options).await.unwrap() });
    assert!(poll!(&mut request).is_pending(), "it has to wait");
    request
}

/// Who had the lock, in order.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<Vec<String>>>);

impl Turns {
    fn write(&self, who: impl ToString) {
        self.0.lock().unwrap().push(who.to_string());
    }

    fn read(&self) -> String {
        self.0.lock().unwrap().join(" ")
    }
}

/// Takes its turn when that comes, and looks around.
fn take_turn(
    request: Request,
    who: impl ToString + Send + 'static,
    turns: &Turns,
    look: impl FnOnce() + Send + 'static,
) -> JoinHandle<()> {
    let turns = turns.clone();
    tokio::spawn(async move {
        let guard = request.await;
        turns.write(who);
        look();
        guard.release().await.unwrap();
    })
}

pub(crate) async fn waiters_are_served_in_order(place: Place) {
    for options in both_ways() {
        let (locker, key, turns) = (place.locker(keeping()).await, fresh_key(), Turns::default());
        let first = locker.acquire(&key, once()).await.unwrap();
        let mut tasks = Vec::new();
        for who in 0..20 {
            let request = queued(&locker, &key, options).await;
            tasks.push(take_turn(request, who, &turns, || ()));
        }
        first.release().await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        let order: Vec<_> = (0..20).map(|who| who.to_string()).collect();
        assert_eq!(turns.read(), order.join(" "));
    }
}

pub(crate) async fn later_sharers_do_not_pass_a_waiting_writer(place: Place) {
    let (locker, key, turns) = (place.locker(keeping()).await, fresh_key(), Turns::default());
    let sharer = locker.acquire(&key, once().shared()).await.unwrap();
    let writer = queued(&locker, &key, super::poll()).await;
    // Not even those who do not wait, and could have it beside the one who has it.
    assert!(
        locker
            .try_acquire(&key, once().shared())
            .await
            .unwrap()
            .is_none()
    );
    let later = queued(&locker, &key, super::poll().shared()).await;
    let tasks = [
        take_turn(writer, "writer", &turns, || ()),
        take_turn(later, "later", &turns, || ()),
    ];
    sharer.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(turns.read(), "writer later");
}

pub(crate) async fn whoever_gives_up_leaves_the_queue(place: Place) {
    for options in both_ways() {
        let (locker, key) = (place.locker(keeping()).await, fresh_key());
        let first = locker.acquire(&key, once()).await.unwrap();
        let second = queued(&locker, &key, options).await;
        let third = queued(&locker, &key, options).await;
        drop(second);
        first.release().await.unwrap();
        third.await.release().await.unwrap();
        assert!(Eyes::at(&place.url).is_free(&key));
    }
}

/// A waiter in the server's queue gets a lock the moment that it is given back, so while it waits, the lock was not.
pub(crate) async fn a_lock_that_is_handed_on_stays_on_the_server(place: Place) {
    let (locker, key, turns) = (place.locker(keeping()).await, fresh_key(), Turns::default());
    let mut eyes = Eyes::at(&place.url);
    let first = locker.acquire(&key, once()).await.unwrap();
    let pid = eyes.holder(&key);
    let mut tasks = Vec::new();
    for who in 0..20 {
        let (url, key) = (place.url.clone(), key.clone());
        let request = queued(&locker, &key, super::poll()).await;
        tasks.push(take_turn(request, who, &turns, move || {
            assert_eq!(Eyes::at(&url).holders(&key), [pid]);
        }));
    }
    let written = turns.clone();
    let rival = Rival::at(&place.url).queue(&mut eyes, &key, move || written.write("rival"));
    first.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    rival.granted();
    let order: Vec<_> = (0..20).map(|who| who.to_string()).collect();
    assert_eq!(turns.read(), format!("{} rival", order.join(" ")));
}

/// The holder, five who wait here, and between them and it a rival in the server's queue.
async fn between(place: &Place, options: LockManagerOptions, expected: &str) {
    for wait in both_ways() {
        let (locker, key) = (place.locker(options.clone()).await, fresh_key());
        let (turns, mut eyes) = (Turns::default(), Eyes::at(&place.url));
        let first = locker.acquire(&key, once()).await.unwrap();
        let written = turns.clone();
        let rival = Rival::at(&place.url).queue(&mut eyes, &key, move || written.write("rival"));
        let mut tasks = Vec::new();
        for who in 1..=5 {
            let request = queued(&locker, &key, wait).await;
            tasks.push(take_turn(request, who, &turns, || ()));
        }
        first.release().await.unwrap();
        rival.granted().gives_back(&key);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(turns.read(), expected, "{wait:?}");
    }
}

pub(crate) async fn turns_are_bounded(place: Place) {
    // The first holder's turn counts.
    between(
        &place,
        unwatched().hand_off_limit(3, super::NEVER),
        "1 2 rival 3 4 5",
    )
    .await;
    between(
        &place,
        unwatched().hand_off_limit(0, super::NEVER),
        "rival 1 2 3 4 5",
    )
    .await;
    between(
        &place,
        unwatched().hand_off_limit(1, super::NEVER),
        "rival 1 2 3 4 5",
    )
    .await;
}

pub(crate) async fn so_is_the_time(place: Place) {
    let no_time = unwatched().hand_off_limit(u32::MAX, Duration::ZERO);
    between(&place, no_time, "rival 1 2 3 4 5").await;
}

/// Four tasks that never leave the key alone, until another process's poller had it three times.
pub(crate) async fn another_lockers_poller_gets_its_turn(place: Place) {
    let (busy, other) = (
        place.locker(LockManagerOptions::new()).await,
        place.locker(LockManagerOptions::new()).await,
    );
    let (key, stop) = (fresh_key(), Arc::new(Mutex::new(false)));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (busy, key, stop) = (busy.clone(), key.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !*stop.lock().unwrap() {
                    let guard = busy.acquire(&key, LockOptions::wait_forever()).await;
                    tokio::task::yield_now().await;
                    guard.unwrap().release().await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let guard = other
            .acquire(&key, LockOptions::wait_up_to(super::PATIENCE))
            .await;
        guard.unwrap().release().await.unwrap();
    }
    *stop.lock().unwrap() = true;
    for task in tasks {
        task.await.unwrap();
    }
}
