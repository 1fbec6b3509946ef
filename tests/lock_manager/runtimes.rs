//! Runtimes that end before their locker, and futures of it that are dropped half-way. On every pool of an async client.

use std::time::Duration;

use advisory_locking::LockErrorKind::{Closed, Lost, Pool};
use advisory_locking::lock_manager::OwnedLockGuard;
use advisory_locking::{LockError, LockKey};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::cases::{PATIENCE, fresh_key, kind_of, once, poll, unwatched};
use crate::eyes::{Eyes, Rival, SOON};
use crate::face::Face;
use crate::place::{Kind, Place};
use crate::support::{block, eventually};

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Ends with its runtime while it holds and waits. Guards have lost; whoever asks from elsewhere is refused and does not hang.
fn a_runtime_ends(kind: Kind) {
    let (place, home, elsewhere) = (Place::here(kind), runtime(), runtime());
    let (held, busy, mut eyes) = (fresh_key(), fresh_key(), Eyes::at(&place.url));
    let _rival = Rival::holding(&busy);
    let (locker, guard) = home.block_on(async {
        let locker = place.locker(unwatched()).await;
        let guard = locker.acquire(&held, once()).await.unwrap();
        (locker, guard)
    });
    let waiting = elsewhere.spawn({
        let (locker, busy) = (locker.clone(), busy.clone());
        async move { kind_of(locker.acquire(&busy, block()).await) }
    });
    eyes.until_waited_for(&busy, 1);
    drop(home);
    eyes.soon_free(&held, "the end of the runtime");
    eventually("the end of the wait", || eyes.waiters(&busy).is_empty());
    elsewhere.block_on(async {
        // By its session that has gone, or by the locker that has.
        let told = timeout(PATIENCE, waiting).await.unwrap().unwrap();
        assert!(matches!(told, Some(Closed | Pool)), "{told:?}");
        assert!(guard.is_lost());
        assert_eq!(kind_of(guard.release().await), Some(Lost));
        for options in [once(), poll()] {
            let asked = timeout(PATIENCE, locker.acquire(&fresh_key(), options)).await;
            assert_eq!(kind_of(asked.expect("an answer")), Some(Closed));
        }
        timeout(PATIENCE, locker.close())
            .await
            .expect("nothing is left");
    });
}

/// It was made, and the runtime ended before anybody asked.
fn a_runtime_ends_before_the_first_call(kind: Kind) {
    let (place, home, elsewhere) = (Place::here(kind), runtime(), runtime());
    let locker = home.block_on(async { place.locker(unwatched()).await });
    drop(home);
    elsewhere.block_on(async {
        let asked = timeout(PATIENCE, locker.acquire(&fresh_key(), poll())).await;
        assert_eq!(kind_of(asked.expect("an answer")), Some(Closed));
    });
}

/// The guard goes after the runtime has.
fn a_guard_outlives_the_runtime(kind: Kind) {
    let (place, home) = (Place::here(kind), runtime());
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let guard = home.block_on(async {
        let locker = place.locker(unwatched()).await;
        let guard = locker.acquire(&key, once()).await.unwrap();
        assert!(!guard.is_lost());
        std::mem::forget(locker);
        guard
    });
    drop(home);
    drop(guard);
    eyes.soon_free(&key, "the end of the runtime");
}

/// Whoever is dropped leaves nothing, wherever it was; whoever comes next is served.
fn a_wait_is_dropped(kind: Kind) {
    let (place, home) = (Place::here(kind), runtime());
    let mut eyes = Eyes::at(&place.url);
    home.block_on(async {
        let locker = place.locker(unwatched()).await;
        let [free, busy] = [fresh_key(), fresh_key()];
        let mut rival = Rival::holding(&busy);

        let waiting = tokio::spawn(wait_for(locker.clone(), busy.clone()));
        eyes.until_waited_for(&busy, 1);
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        soon("an abort", || eyes.waiters(&busy).is_empty()).await;

        let limit = Duration::from_millis(50);
        timeout(limit, locker.acquire(&busy, block()))
            .await
            .unwrap_err();
        soon("a time-out", || eyes.waiters(&busy).is_empty()).await;

        // What it had before the one that it waits for.
        let mut keys = vec![free.clone(), busy.clone()];
        keys.sort_by_key(LockKey::raw);
        timeout(limit, locker.acquire_all(keys, poll()))
            .await
            .unwrap_err();
        eyes.soon_free(&free, "acquire_all");

        rival.gives_back(&busy);
        let guard = locker.acquire(&busy, poll()).await.unwrap();
        guard.release().await.unwrap();
        assert!(eyes.is_free(&busy));
    });
}

async fn wait_for(locker: Face, key: LockKey) {
    drop(locker.acquire(&key, block()).await);
}

async fn soon(after: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let found = timeout(SOON, looking).await;
    assert!(found.is_ok(), "left behind after {after}");
}

/// A request is dropped each time it was pending, as often as it may be.
fn a_call_is_dropped_at_each_point(kind: Kind) {
    // One thread: what a call leaves to the locker's own tasks is not done before the call has been polled.
    let home = Builder::new_current_thread().enable_all().build().unwrap();
    let place = Place::here(kind);
    let mut eyes = Eyes::at(&place.url);
    home.block_on(async {
        let pool = place.pool(2).await;
        let locker = pool.locker(unwatched());
        for method in [
            "acquire",
            "acquire_fenced",
            "try_acquire",
            "try_acquire_fenced",
            "acquire_all",
            "try_acquire_all",
            "with_lock",
            "try_with_lock",
            "with_lock_while_held",
        ] {
            let (mut limit, mut at_once) = (1, 0);
            loop {
                let key = fresh_key();
                let call = call(&locker, method, &key);
                let completed = crate::pending::drop_at(limit, call).await.is_some();
                soon(method, || eyes.is_free(&key)).await;
                let again = locker.acquire(&key, poll()).await.unwrap();
                again.release().await.unwrap();
                if !completed {
                    limit += 1;
                } else if limit > 1 {
                    break;
                } else {
                    // Now and then the server has answered before the call looks for it.
                    at_once += 1;
                    assert!(at_once < 100, "{method} was never pending");
                }
            }
        }
        // The same with its end.
        let guard = locker.acquire(&fresh_key(), once()).await.unwrap();
        assert!(crate::pending::drop_at(1, locker.close()).await.is_none());
        let refused = locker.acquire(&fresh_key(), once()).await;
        assert_eq!(kind_of(refused), Some(Closed));
        let key = guard.key().clone();
        drop(crate::pending::drop_at(1, guard.release()).await);
        soon("a release", || eyes.is_free(&key)).await;
        drop(locker);
        let pids = pool.pids(2).await;
        assert_eq!(eyes.locks_of(&pids), 0);
    });
}

/// Whoever asks, or gives back, and does not look for the answer holds up nobody else on the same session.
fn a_call_that_is_not_polled_holds_up_nobody(kind: Kind) {
    let (place, home) = (Place::here(kind), runtime());
    let mut eyes = Eyes::at(&place.url);
    home.block_on(async {
        let pool = place.pool(2).await;
        let Face::Tasks(locker) = pool.locker(unwatched().max_sessions(1)) else {
            panic!("an async locker")
        };
        let [before, asked, key] = [fresh_key(), fresh_key(), fresh_key()];
        let guard = locker.acquire(&before, once()).await.unwrap();
        let given_back = guard.release();
        let mut asking = Box::pin(locker.acquire(&asked, once()));
        drop(crate::pending::until_pending(1, &mut asking).await);

        let other = timeout(PATIENCE, locker.acquire(&key, once())).await;
        let other = other.expect("it is not held up").unwrap();
        soon("a release that nobody waits for", || eyes.is_free(&before)).await;
        drop((given_back, asking));
        soon("a call that was not polled", || eyes.is_free(&asked)).await;
        other.release().await.unwrap();
    });
}

/// Takes a free key in one of the ways there are, and gives it back.
async fn call(locker: &Face, method: &str, key: &LockKey) {
    let keys = || vec![key.clone(), fresh_key()];
    let body = || Ok::<_, LockError>(());
    let granted = match method {
        "acquire" => locker.acquire(key, once()).await.is_ok(),
        "acquire_fenced" => locker.acquire_fenced(key, once()).await.is_ok(),
        "try_acquire" => locker.try_acquire(key, once()).await.unwrap().is_some(),
        "try_acquire_fenced" => locker
            .try_acquire_fenced(key, once())
            .await
            .unwrap()
            .is_some(),
        "acquire_all" => locker.acquire_all(keys(), once()).await.is_ok(),
        "try_acquire_all" => locker
            .try_acquire_all(keys(), once())
            .await
            .unwrap()
            .is_some(),
        "with_lock" => locker.with_lock(key, once(), body).await.is_ok(),
        "try_with_lock" => locker
            .try_with_lock(key, once(), body)
            .await
            .unwrap()
            .is_some(),
        "with_lock_while_held" => {
            let Face::Tasks(locker) = locker else {
                panic!("a method of async lockers")
            };
            let body = async |_: &OwnedLockGuard| body();
            locker.with_lock_while_held(key, once(), body).await.is_ok()
        }
        other => panic!("no method {other}"),
    };
    assert!(granted, "{method} of a free key");
}

macro_rules! on_every_pool {
    ($($pool:ident => $kind:expr;)*) => {$(
        mod $pool {
            on_every_pool!(@cases $kind, a_runtime_ends, a_runtime_ends_before_the_first_call, a_guard_outlives_the_runtime,
                a_wait_is_dropped, a_call_is_dropped_at_each_point, a_call_that_is_not_polled_holds_up_nobody);
        }
    )*};
    (@cases $kind:expr, $($case:ident),*) => {$(
        #[test]
        fn $case() {
            super::$case($kind);
        }
    )*};
}

on_every_pool! {
    bb8 => crate::place::Kind::Bb8;
    deadpool => crate::place::Kind::Deadpool;
    mobc => crate::place::Kind::Mobc;
    sea_orm => crate::place::Kind::SeaOrm;
}
