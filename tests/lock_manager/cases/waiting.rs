//! Waiting for somebody outside the process: asking again, or in the server's queue.

use std::time::{Duration, Instant};

use advisory_locking::LockErrorKind::{InvalidOptions, TimedOut};
use advisory_locking::LockOptions;
use advisory_locking::WaitStrategy::{Block, Poll};
use advisory_locking::lock_manager::LockManagerOptions;

use super::{block, both_ways, fresh_key, kind_of, once, poll, within};
use crate::eyes::{Eyes, Rival};
use crate::place::Place;

pub(crate) async fn a_limit_passes_and_nothing_is_left(place: Place) {
    const LIMIT: Duration = Duration::from_millis(60);
    let locker = place.locker(LockManagerOptions::new()).await;
    let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
    let rival = Rival::holding(&key);
    for strategy in [Poll, Block] {
        let began = Instant::now();
        let options = within(LIMIT, strategy);
        let error = locker.acquire(&key, options).await.unwrap_err();
        assert_eq!((error.kind(), error.key()), (TimedOut, Some(&key)));
        assert!(began.elapsed() >= LIMIT, "not before its limit");
        assert!(
            locker
                .try_acquire(&key, options.shared())
                .await
                .unwrap()
                .is_none()
        );
        crate::support::eventually("an empty queue", || eyes.waiters(&key).is_empty());
    }
    assert_eq!(eyes.holders(&key), [rival.pid]);
    drop(rival);
    eyes.until_free(&key);
    locker
        .acquire(&key, once())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

pub(crate) async fn a_waiter_is_granted_when_the_key_is_free(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let forever = LockOptions::wait_forever;
    let ways = both_ways()
        .into_iter()
        .chain([forever(), forever().strategy(Block)]);
    for options in ways {
        let (key, mut eyes) = (fresh_key(), Eyes::at(&place.url));
        let mut rival = Rival::holding(&key);
        let asking = locker.ask(&key, options);
        rival.gives_back(&key);
        let guard = asking.await.unwrap().unwrap();
        assert_ne!(eyes.holder(&key), rival.pid);
        guard.release().await.unwrap();
        assert!(eyes.is_free(&key));
    }
}

pub(crate) async fn whoever_blocks_waits_in_the_servers_queue(place: Place) {
    let locker = place.locker(LockManagerOptions::new()).await;
    let (key, shared, mut eyes) = (fresh_key(), fresh_key(), Eyes::at(&place.url));
    let other = locker.acquire(&shared, once()).await.unwrap();
    let mut first = Rival::holding(&key);
    let asking = locker.ask(&key, block());
    eyes.until_waited_for(&key, 1);
    let [waiter] = eyes.waiters(&key)[..] else {
        panic!("one waits")
    };
    assert_ne!(waiter, eyes.holder(&shared), "on a session of its own");
    let last = Rival::at(&place.url).queue(&mut eyes, &key, || ());
    first.gives_back(&key);
    let guard = asking.await.unwrap().unwrap();
    // In the order in which they came.
    assert_eq!(eyes.holders(&key), [waiter]);
    assert_eq!(eyes.waiters(&key).len(), 1);
    assert_ne!(guard.generation(), other.generation());
    guard.release().await.unwrap();
    last.granted().gives_back(&key);
    other.release().await.unwrap();
}

pub(crate) async fn without_waiting_sessions_whoever_blocks_polls(place: Place) {
    // A pool of one is enough then.
    let pool = place.pool(1).await;
    let locker = pool.locker(LockManagerOptions::new().max_waiting_sessions(0));
    let (key, other) = (fresh_key(), fresh_key());
    let other = locker.acquire(&other, once()).await.unwrap();
    let mut rival = Rival::holding(&key);
    let asking = locker.ask(&key, block());
    rival.gives_back(&key);
    let guard = asking.await.unwrap().unwrap();
    assert_eq!(guard.generation(), other.generation());
    guard.release().await.unwrap();
    other.release().await.unwrap();
}

pub(crate) async fn options_that_make_no_sense_are_refused(place: Place) {
    let pool = place.pool(1).await;
    let locker = pool.locker(LockManagerOptions::new());
    let key = fresh_key();
    for options in [
        once().allow_in_transaction(),
        once().strategy(Block),
        once().interval(Duration::from_millis(1)),
        poll().interval(Duration::ZERO),
        block().interval(Duration::from_millis(1)),
    ] {
        let invalid = Some(InvalidOptions);
        assert_eq!(kind_of(locker.acquire(&key, options).await), invalid);
        assert_eq!(kind_of(locker.acquire_fenced(&key, options).await), invalid);
        assert_eq!(kind_of(locker.try_acquire(&key, options).await), invalid);
        let keys = vec![key.clone()];
        assert_eq!(kind_of(locker.acquire_all(keys, options).await), invalid);
    }
    for options in [
        LockManagerOptions::new().max_sessions(0),
        LockManagerOptions::new().keep_alive(Duration::ZERO),
    ] {
        assert_eq!(kind_of(pool.try_locker(options)), Some(InvalidOptions));
    }
}
