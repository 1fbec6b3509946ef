//! Lock managers over SQLite, for async and blocking callers.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use advisory_locking::lock_manager::{LockManager, LockManagerOptions, NoLockBackend};
use advisory_locking::testing::{Event, Fault, TestLocks};
use advisory_locking::{LockError, LockErrorKind, LockOptions, OnMissingLock, WaitStrategy};
use diesel::SqliteConnection;
use diesel::r2d2::{ConnectionManager, Pool};

use crate::{BOTH, LONG, QUIET, kind, wait};

/// Longer than any test may take.
const HOUR: Duration = Duration::from_secs(3600);

fn manager(backend: NoLockBackend) -> LockManager {
    let pool = Pool::builder()
        .max_size(1)
        .build(ConnectionManager::<SqliteConnection>::new(":memory:"));
    let options = LockManagerOptions::new().on_no_lock_backend(backend);
    LockManager::over_blocking_pool_with(pool.unwrap(), options).unwrap()
}

#[test]
fn lock_of_another_session_is_contended() {
    for backend in [NoLockBackend::NoOp, NoLockBackend::InProcess] {
        let (manager, locks) = (manager(backend), TestLocks::enter());
        let other = locks.hold_from_other_session("key");
        let refused = manager.try_acquire_blocking("key", QUIET).unwrap();
        assert!(refused.is_none(), "{backend:?}");
        let all = manager.acquire_all_blocking(["free", "key"], QUIET);
        assert_eq!(kind(all), LockErrorKind::HeldElsewhere, "{backend:?}");
        assert!(!locks.is_held("free"));
        drop(other);
        let guard = manager.acquire_blocking("key", QUIET).unwrap();
        assert!(locks.is_held("key"));
        guard.release_blocking().unwrap();
        assert!(!locks.is_held("key"));
        let events = locks.events();
        let key = |event: &&Event| event.key() == &"key".into();
        let of_key: Vec<_> = events.iter().filter(key).cloned().collect();
        let held = Event::held_elsewhere("key");
        assert_eq!(
            of_key,
            [
                held.clone(),
                held,
                Event::acquired("key"),
                Event::released("key")
            ]
        );
    }
}

#[test]
fn limit_passes_on_a_paused_clock() {
    let (manager, locks) = (manager(NoLockBackend::NoOp), TestLocks::enter());
    locks.pause_clock();
    let (_other, began) = (locks.hold_from_other_session("key"), Instant::now());
    for strategy in BOTH {
        let outcome = manager.acquire_blocking("key", wait(HOUR, strategy));
        assert_eq!(kind(outcome), LockErrorKind::TimedOut, "{strategy:?}");
    }
    assert!(began.elapsed() < LONG);
}

#[test]
fn waiter_is_granted_after_the_other_session() {
    let (manager, locks) = (manager(NoLockBackend::NoOp), TestLocks::enter());
    let other = locks.hold_from_other_session("key");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _scope = locks.attach();
            let guard = manager.acquire_blocking("key", wait(LONG, WaitStrategy::Block));
            guard.unwrap().release_blocking().unwrap();
        });
        crate::until_contended(&locks, "key", 1);
        drop(other);
    });
}

#[test]
fn close_refuses_a_call_that_waits_for_another_session() {
    for backend in [NoLockBackend::NoOp, NoLockBackend::InProcess] {
        for strategy in BOTH {
            let (manager, locks) = (manager(backend), TestLocks::enter());
            let _other = locks.hold_from_other_session("key");
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    let _scope = locks.attach();
                    let outcome = manager.acquire_blocking("key", wait(HOUR, strategy));
                    outcome.map(drop)
                });
                crate::until_contended(&locks, "key", 1);
                manager.close_blocking();
                let outcome = waiter.join().unwrap();
                assert_eq!(kind(outcome), LockErrorKind::Closed, "{backend:?}");
            });
        }
    }
}

#[test]
fn lost_lock_reaches_its_guard() {
    let (manager, locks) = (manager(NoLockBackend::NoOp), TestLocks::enter());
    locks.inject_fault("key", Fault::Lost);
    let guard = manager.acquire_blocking("key", QUIET).unwrap();
    assert!(guard.is_lost());
    let error = guard.release_blocking().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost);

    let guard = manager.acquire_blocking("key", QUIET).unwrap();
    assert!(!guard.is_lost());
    assert_eq!(locks.terminate_holders("key"), 1);
    assert!(guard.is_lost());
    drop(guard);
    let lost = Event::not_released("key", LockErrorKind::Lost);
    assert_eq!(
        locks.events(),
        [
            Event::acquired("key"),
            lost.clone(),
            Event::acquired("key"),
            lost
        ]
    );
}

/// In the process, all locks of a lock manager are those of one session.
#[test]
fn lost_lock_spares_the_other_guards() {
    for backend in [NoLockBackend::NoOp, NoLockBackend::InProcess] {
        let (manager, locks) = (manager(backend), TestLocks::enter());
        let other = manager.acquire_blocking("other", QUIET).unwrap();
        let guard = manager.acquire_blocking("key", QUIET).unwrap();
        assert_eq!(locks.terminate_holders("key"), 1);
        assert!(guard.is_lost() && !other.is_lost(), "{backend:?}");
        drop(guard);
        let later = manager.acquire_blocking("key", QUIET).unwrap();
        assert!(!later.is_lost(), "{backend:?}");
        later.release_blocking().unwrap();
        // The end of the lock manager still reaches a guard of the process.
        drop(manager);
        let in_process = backend == NoLockBackend::InProcess;
        assert_eq!(other.is_lost(), in_process, "{backend:?}");
    }
}

/// A terminated session holds nothing, although its guard exists.
#[test]
fn lost_lock_is_free_for_other_callers() {
    for backend in [NoLockBackend::NoOp, NoLockBackend::InProcess] {
        let (manager, locks) = (manager(backend), TestLocks::enter_exclusive());
        let lost = manager.acquire_blocking("key", QUIET).unwrap();
        assert_eq!(locks.terminate_holders("key"), 1);
        let next = manager.acquire_blocking("key", QUIET).unwrap();
        let outcome = lost.release_blocking();
        assert_eq!(kind(outcome), LockErrorKind::Lost, "{backend:?}");
        // The release does not end the hold of the next caller.
        let refused = manager.try_acquire_blocking("key", QUIET).unwrap();
        assert!(refused.is_none(), "{backend:?}");
        next.release_blocking().unwrap();
    }
}

#[test]
fn strict_options_accept_locks_that_exclude() {
    let strict = LockOptions::no_wait().on_missing_lock(OnMissingLock::Error);
    let acquire = |backend| manager(backend).acquire_blocking("key", strict).map(drop);
    {
        let _locks = TestLocks::enter();
        acquire(NoLockBackend::InProcess).unwrap();
        let refused = acquire(NoLockBackend::NoOp);
        assert_eq!(kind(refused), LockErrorKind::NoMutualExclusion);
    }
    let _locks = TestLocks::enter_exclusive();
    acquire(NoLockBackend::InProcess).unwrap();
    acquire(NoLockBackend::NoOp).unwrap();
    let all = manager(NoLockBackend::NoOp).acquire_all_blocking(["one", "two"], strict);
    all.unwrap().release_blocking().unwrap();
}

#[test]
fn faults_of_acquire_and_release_apply() {
    let (manager, locks) = (manager(NoLockBackend::NoOp), TestLocks::enter());
    for (fault, expected) in [
        (Fault::TooManyLocks, LockErrorKind::TooManyLocks),
        (Fault::Database, LockErrorKind::Database),
        (Fault::Canceled, LockErrorKind::Canceled),
        (Fault::Pool, LockErrorKind::Pool),
    ] {
        locks.inject_fault("key", fault);
        assert_eq!(kind(manager.acquire_blocking("key", QUIET)), expected);
    }
    locks.inject_fault("key", Fault::NotHeld);
    let outcome = manager.with_lock_blocking("key", QUIET, |_| Ok::<_, LockError>(()));
    assert_eq!(kind(outcome), LockErrorKind::NotHeld);
}

/// The call itself releases the lock, as on a server.
#[test]
fn release_that_is_not_polled_frees_the_lock() {
    for backend in [NoLockBackend::NoOp, NoLockBackend::InProcess] {
        let (manager, locks) = (manager(backend), TestLocks::enter_exclusive());
        let release = manager.acquire_blocking("key", QUIET).unwrap().release();
        assert!(!locks.is_held("key"), "{backend:?}");
        let next = manager.acquire_blocking("key", QUIET).unwrap();
        drop(release);
        next.release_blocking().unwrap();
        let once = [Event::acquired("key"), Event::released("key")];
        assert_eq!(locks.events(), [once.clone(), once].concat());
    }
}

#[test]
fn several_keys_are_shared() {
    for backend in [NoLockBackend::NoOp, NoLockBackend::InProcess] {
        let (manager, _locks) = (manager(backend), TestLocks::enter_exclusive());
        let all = || manager.acquire_all_blocking(["one", "two"], QUIET.shared());
        let (first, second) = (all().unwrap(), all().unwrap());
        let exclusive = manager.try_acquire_all_blocking(["one", "two"], QUIET);
        assert!(exclusive.unwrap().is_none(), "{backend:?}");
        first.release_blocking().unwrap();
        second.release_blocking().unwrap();
    }
}

#[test]
fn guard_dropped_without_release_frees_the_lock() {
    let (manager, locks) = (manager(NoLockBackend::NoOp), TestLocks::enter());
    drop(manager.acquire_blocking("key", QUIET).unwrap());
    assert_eq!(
        locks.events(),
        [Event::acquired("key"), Event::released("key")]
    );
}

/// Waker of a caller. It notes whether the lock is held when the caller is granted it.
struct HeldWhenWoken(TestLocks, Mutex<Option<bool>>);

impl Wake for HeldWhenWoken {
    fn wake(self: Arc<Self>) {
        *self.1.lock().unwrap() = Some(self.0.is_held("key"));
    }
}

/// Otherwise the next caller would find the lock contended.
#[test]
fn dropped_guard_frees_the_lock_before_the_next_grant() {
    let (manager, locks) = (
        manager(NoLockBackend::InProcess),
        TestLocks::enter_exclusive(),
    );
    let guard = manager.acquire_blocking("key", QUIET).unwrap();
    let woken = Arc::new(HeldWhenWoken((*locks).clone(), Mutex::default()));
    let waker = Waker::from(Arc::clone(&woken));
    let mut next = pin!(manager.acquire("key", wait(HOUR, WaitStrategy::Poll)));
    let polled = next.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(guard);
    assert_eq!(*woken.1.lock().unwrap(), Some(false));
}

#[test]
fn lock_managers_outside_a_test_are_not_affected() {
    let (manager, locks) = (manager(NoLockBackend::NoOp), TestLocks::new());
    let _other = locks.hold_from_other_session("key");
    let guard = manager.acquire_blocking("key", QUIET).unwrap();
    guard.release_blocking().unwrap();
    assert_eq!(locks.events(), []);
}

#[test]
fn injected_timeout_applies_to_several_keys() {
    for backend in [NoLockBackend::NoOp, NoLockBackend::InProcess] {
        let (manager, locks) = (manager(backend), TestLocks::enter());
        locks.inject_fault("key", Fault::TimedOut);
        let options = wait(HOUR, WaitStrategy::Poll);
        let all = manager.acquire_all_blocking(["free", "key"], options);
        assert_eq!(kind(all), LockErrorKind::TimedOut, "{backend:?}");
        assert!(!locks.is_held("free"));
    }
}

/// Async callers over a bb8 pool, in the runtime of the test.
#[cfg(all(
    feature = "async-lock-manager",
    feature = "diesel-async-sqlite",
    feature = "bb8"
))]
mod asynchronous {
    use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
    use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

    use super::*;

    async fn manager() -> LockManager {
        type Sqlite = SyncConnectionWrapper<SqliteConnection>;
        let manager = AsyncDieselConnectionManager::<Sqlite>::new(":memory:");
        let pool = bb8::Pool::builder().max_size(1).build(manager).await;
        LockManager::over_async_pool(pool.unwrap()).unwrap()
    }

    #[tokio::test]
    #[allow(
        clippy::future_not_send,
        reason = "the future stays on the test's thread"
    )]
    async fn limit_passes_on_a_paused_clock() {
        let (manager, locks) = (manager().await, TestLocks::enter());
        locks.pause_clock();
        let (_other, began) = (locks.hold_from_other_session("key"), Instant::now());
        for strategy in BOTH {
            let outcome = manager.acquire("key", wait(HOUR, strategy)).await;
            assert_eq!(kind(outcome), LockErrorKind::TimedOut, "{strategy:?}");
        }
        assert!(began.elapsed() < LONG);
    }

    /// A storage rejects a token that is smaller than one that it has seen.
    #[tokio::test]
    #[allow(
        clippy::future_not_send,
        reason = "the future stays on the test's thread"
    )]
    async fn fencing_tokens_grow_in_the_order_of_the_grants() {
        let (manager, locks) = (manager().await, TestLocks::enter_exclusive());
        let first = manager.acquire_fenced("key", QUIET).await.unwrap();
        let mut waits =
            std::pin::pin!(manager.acquire_fenced("key", wait(LONG, WaitStrategy::Poll)));
        while locks.contention_count("key") == 0 {
            std::future::poll_fn(|context| {
                assert!(waits.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        }
        first.release().await.unwrap();
        // The waiter pauses.
        let second = manager.acquire_fenced("key", QUIET).await.unwrap();
        let earlier = second.fencing_token();
        second.release().await.unwrap();
        assert!(waits.await.unwrap().fencing_token() > earlier);
    }

    #[tokio::test]
    #[allow(
        clippy::future_not_send,
        reason = "the future stays on the test's thread"
    )]
    async fn body_stops_when_its_lock_is_lost() {
        let (manager, locks) = (manager().await, TestLocks::enter());
        let body = async |_: &_| {
            assert_eq!(locks.terminate_holders("leader"), 1);
            std::future::pending::<Result<(), LockError>>().await
        };
        let outcome = manager.with_lock_while_held("leader", QUIET, body).await;
        assert_eq!(kind(outcome), LockErrorKind::Lost);
    }
}
