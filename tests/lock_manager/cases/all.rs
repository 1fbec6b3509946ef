//! Calls that acquire several keys.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use advisory_locking::LockErrorKind::{HeldElsewhere, TimedOut};
use advisory_locking::lock_manager::LockManagerOptions;
use advisory_locking::{LockKey, WaitStrategy};
use testkit::observer::Observe;
use testkit::proxy::Proxy;
use testkit::server::connect_to;

use super::{TIMEOUT, fresh_key, no_wait, open_session, within, without_keep_alive};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::PoolUnderTest;
use crate::test_manager::TestManager;

/// Maximum number of calls in a case that a stall of the machine makes inconclusive.
const MAX_CALLS: u32 = 20;

/// Returns new keys in ascending order of their raw keys, in which they are acquired.
fn keys(count: usize) -> Vec<LockKey> {
    let mut keys: Vec<_> = (0..count).map(|_| fresh_key()).collect();
    keys.sort_by_key(LockKey::raw);
    keys
}

pub(crate) async fn acquires_each_key_once_in_order(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(LockManagerOptions::new()).await;
    let (keys, mut observer) = (keys(5), connect_to(&pool_under_test.url));
    let named = [4, 1, 0, 3, 1, 2, 4].map(|at| keys[at].clone());
    let guards = manager
        .acquire_all(named.to_vec(), no_wait())
        .await
        .unwrap();
    assert_eq!(guards.keys(), keys);
    assert!(!guards.is_lost());
    for key in &keys {
        assert_eq!(observer.holders(key).len(), 1);
    }
    let again = manager
        .try_acquire_all(vec![keys[2].clone()], no_wait())
        .await;
    assert!(again.unwrap().is_none());
    guards.release().await.unwrap();
    assert!(keys.iter().all(|key| observer.is_free(key)));

    let none = manager.acquire_all(Vec::new(), no_wait()).await.unwrap();
    assert_eq!(none.keys(), []);
    none.release().await.unwrap();
}

pub(crate) async fn acquires_none_if_one_is_contended(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(LockManagerOptions::new()).await;
    let (keys, mut observer) = (keys(5), connect_to(&pool_under_test.url));
    for busy in &keys {
        let mut competitor = CompetingSession::holding(busy);
        let error = manager
            .acquire_all(keys.clone(), no_wait())
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.key()), (HeldElsewhere, Some(busy)));
        for key in keys.iter().filter(|key| *key != busy) {
            assert!(observer.is_free(key), "held after the call has returned");
        }
        let shared = no_wait().shared();
        assert!(
            manager
                .try_acquire_all(keys.clone(), shared)
                .await
                .unwrap()
                .is_none()
        );
        competitor.unlock(busy);
    }
}

pub(crate) async fn acquires_none_if_the_limit_elapses(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    open_session(&manager).await;
    let (keys, mut observer) = (keys(5), connect_to(&pool_under_test.url));
    let _competitor = CompetingSession::holding(&keys[3]);
    for strategy in [WaitStrategy::Poll, WaitStrategy::Block] {
        let options = within(Duration::from_secs(1), strategy);
        // On a stalled machine, the limit may pass before the attempts have a reply.
        for calls in 1.. {
            let ended = manager.acquire_all(keys.clone(), options).await;
            let error = ended.unwrap_err();
            assert_eq!(error.kind(), TimedOut);
            if error.key() == Some(&keys[3]) {
                break;
            }
            assert!(calls < MAX_CALLS, "{error}");
        }
        for key in [0, 1, 2, 4].map(|at| &keys[at]) {
            assert!(observer.is_free(key), "held after the call has returned");
        }
    }
}

/// The limit does not begin again at each contended key. A call during which the machine stalls
/// does not show that, so another one follows.
pub(crate) async fn limit_applies_to_the_whole_call(pool_under_test: PoolUnderTest) {
    let manager = pool_under_test.manager(without_keep_alive()).await;
    open_session(&manager).await;
    for _ in 0..MAX_CALLS {
        if ends_soon_after_the_second_key(&manager).await {
            return;
        }
    }
    panic!("the limit began again at the second key");
}

/// Releases the first of two keys after half of the limit of a call. Returns `true` if the call
/// ended less than a limit later.
async fn ends_soon_after_the_second_key(manager: &TestManager) -> bool {
    const LIMIT: Duration = Duration::from_secs(2);
    let keys = keys(2);
    let mut first = CompetingSession::holding(&keys[0]);
    let _second = CompetingSession::holding(&keys[1]);
    let began = Instant::now();
    let acquiring = tokio::spawn({
        let (manager, keys) = (manager.clone(), keys.clone());
        async move {
            let result = manager.acquire_all(keys, within(LIMIT, WaitStrategy::Poll));
            (result.await.map(drop), Instant::now())
        }
    });
    tokio::time::sleep(LIMIT / 2).await;
    let released = Instant::now();
    first.unlock(&keys[0]);
    let (result, ended) = acquiring.await.unwrap();
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.limit()), (TimedOut, Some(LIMIT)));
    assert!(error.waited() >= Some(LIMIT), "{error}");
    assert!(ended - began >= LIMIT, "before its limit");
    error.key() == Some(&keys[1]) && ended - released < LIMIT
}

pub(crate) async fn opposite_orders_do_not_deadlock(pool_under_test: PoolUnderTest) {
    const ROUNDS: u64 = 25;
    let keys = keys(4);
    let managers = [
        pool_under_test.manager(LockManagerOptions::new()).await,
        pool_under_test
            .manager(LockManagerOptions::new().max_sessions(2))
            .await,
    ];
    let tasks: Vec<_> = (0..6)
        .map(|task: usize| {
            let (manager, keys) = (managers[task % 2].clone(), keys.clone());
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(task as u64);
                for _ in 0..ROUNDS {
                    let mut keys = keys.clone();
                    random.shuffle(&mut keys);
                    keys.truncate(2 + random.usize(..3));
                    let options = within(
                        TIMEOUT,
                        random
                            .choice([WaitStrategy::Poll, WaitStrategy::Block])
                            .unwrap(),
                    );
                    let guards = manager.acquire_all(keys, options).await;
                    guards.expect("no deadlock").release().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

pub(crate) async fn thousand_keys_take_one_round_trip(pool_under_test: PoolUnderTest) {
    let proxy = Proxy::to(&pool_under_test.url);
    // The proxy ends with its connection, and a failing test must not wait for that.
    let proxy = ManuallyDrop::new(proxy);
    let through = PoolUnderTest {
        url: proxy.url(),
        ..pool_under_test.clone()
    };
    let pool = through.pool(1).await;
    let manager = pool.manager(without_keep_alive());
    // Open the connection and prepare its statements.
    for _ in 0..2 {
        manager
            .acquire_all(keys(2), no_wait())
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    }
    let (keys, before) = (keys(1000), proxy.round_trips());
    let guards = manager.acquire_all(keys.clone(), no_wait()).await.unwrap();
    let taken = proxy.round_trips() - before;
    assert_eq!(taken, 1);
    let mut observer = connect_to(&pool_under_test.url);
    let holder = observer.holder(&keys[0]);
    assert_eq!(observer.lock_count(&[holder]), 1000);
    let before = proxy.round_trips();
    guards.release().await.unwrap();
    let given = proxy.round_trips() - before;
    assert_eq!(given, 1);
    assert_eq!(observer.lock_count(&[holder]), 0);
    manager.close().await;
    // A closed lock manager does not keep its pool, even with timers pending.
    drop((manager, pool));
    drop(ManuallyDrop::into_inner(proxy));
}
