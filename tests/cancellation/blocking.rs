//! No poll and no drop blocks the executor while the server does not reply.
//!
//! A call runs in a runtime with one thread, and only that thread ends the stall of the proxy. So a
//! poll, a drop, or a task that a drop has started would never return if it waited for the server.
//! The thread of the test watches the duration of the stall.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions, WaitStrategy};
use testkit::gate::Gate;
use testkit::observer::Observe;
use testkit::pending::until_pending;
use testkit::proxy::Proxy;
use testkit::server::{connect, fresh_key};

use crate::adapters::{Adapter, Borrowed, CALLS, Pooled};
use crate::pools::{Bb8, Deadpool, Mobc, Pool, assert_works, begin, in_runtime};

/// Limit of a stall. A blocked executor waits for ever, so the limit can be long.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Runs a case on a thread of its own, and asserts that it ends each stall.
fn run_watched<F: Future<Output = ()>>(case: impl FnOnce(Proxy) -> F + Send + 'static) {
    let proxy = Proxy::start();
    let clock = proxy.stall_clock();
    let (alive, ended) = channel::<()>();
    let running = thread::spawn(move || {
        in_runtime(case(proxy));
        drop(alive);
    });
    while ended.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
        assert!(
            clock.elapsed() < STALL_LIMIT,
            "the executor waits for a stalled server"
        );
    }
    if let Err(panic) = running.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Polls a future a few times during the stall, then drops it. Returns `true` if it was ready,
/// which a reply from before the stall allows.
async fn poll_and_drop<F: Future>(mut future: Pin<Box<F>>) -> bool {
    let mut ended = false;
    for _ in 0..4 {
        ended = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await;
        if ended {
            break;
        }
        tokio::task::yield_now().await;
    }
    drop(future);
    tasks_run().await;
    ended
}

/// Asserts that a call that had no reply at all was not ready.
fn assert_waits(stalled_from_the_start: bool, ended: bool, what: &str) {
    assert!(
        !(stalled_from_the_start && ended),
        "{what}: it ended without a reply"
    );
}

/// Lets the tasks run that a drop has started.
async fn tasks_run() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

/// Every call, stalled at each of its pending points in turn.
async fn calls<A: Adapter>(proxy: Proxy) {
    let mut observer = connect();
    for call in CALLS {
        let mut adapter = A::open(&proxy.url()).await;
        for limit in 0.. {
            let key = fresh_key();
            let mut future = Box::pin(adapter.call(call, &key, LockOptions::no_wait()));
            let done = until_pending(limit, future.as_mut()).await;
            let what = format!("{}: {call:?} at pending point {limit}", A::NAME);
            if let Some(result) = done {
                result.expect(&what);
                break;
            }
            let stall = proxy.stall();
            let ended = poll_and_drop(future).await;
            assert_waits(limit == 0, ended, &what);
            drop(stall);
            adapter.flush(call).await;
            observer.assert_free(&key, &what).await;
            adapter.check().await;
        }
    }
}

/// Every call while another session holds the lock, stalled while the call waits.
async fn waits<A: Adapter>(proxy: Proxy) {
    let mut observer = connect();
    let mut gate = Gate::closed();
    let poll = LockOptions::wait_forever().interval(Duration::from_millis(1));
    let block = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    for call in CALLS {
        for (options, queues) in [(poll, false), (block, true)] {
            let key = gate.key.clone();
            let mut adapter = A::open(&proxy.url()).await;
            let mut future = Box::pin(adapter.call(call, &key, options));
            if queues {
                tokio::select! {
                    _ = &mut future => panic!("granted though it is held"),
                    () = gate.reached(&mut observer) => {}
                }
            } else {
                let waiting = until_pending(20, future.as_mut()).await;
                assert!(waiting.is_none(), "granted though it is held");
            }
            let stall = proxy.stall();
            let ended = poll_and_drop(future).await;
            assert!(!ended, "{}: {call:?} ended though it is held", A::NAME);
            drop(stall);
            let what = format!("{}: {call:?} is still queued", A::NAME);
            let alone = |shown: &[_]| shown.len() == 1;
            observer.wait_for(&key, alone, &what).await;
            adapter.check().await;
        }
    }
}

/// A dropped guard, in and outside a transaction, and a release, stalled at each pending point.
async fn guards<P: Pool>(proxy: Proxy) {
    let mut observer = connect();
    let pool = P::open(&proxy.url()).await;
    for transaction in [false, true] {
        let key = fresh_key();
        let guard = pool.acquire_advisory_lock(&key, LockOptions::no_wait());
        let mut guard = guard.await.unwrap();
        if transaction {
            begin(&mut guard).await;
        }
        let stall = proxy.stall();
        drop(guard);
        tasks_run().await;
        drop(stall);
        observer.assert_free(&key, "a guard dropped").await;
        assert_works(&pool).await;
    }
    for limit in 0.. {
        let key = fresh_key();
        let guard = pool.acquire_advisory_lock(&key, LockOptions::no_wait());
        let mut release = Box::pin(guard.await.unwrap().release());
        if let Some(released) = until_pending(limit, release.as_mut()).await {
            released.unwrap();
            break;
        }
        let stall = proxy.stall();
        let ended = poll_and_drop(release).await;
        assert_waits(limit == 0, ended, "the release");
        drop(stall);
        observer.assert_free(&key, "a release dropped").await;
        assert_works(&pool).await;
    }
}

macro_rules! for_each_adapter {
    ($($name:ident => $adapter:ty;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn calls_do_not_block() {
                run_watched(calls::<$adapter>);
            }

            #[test]
            fn waits_do_not_block() {
                run_watched(waits::<$adapter>);
            }
        }
    )*};
}
for_each_adapter! {
    borrowed => Borrowed;
    bb8_pool => Pooled<Bb8>;
    deadpool_pool => Pooled<Deadpool>;
    mobc_pool => Pooled<Mobc>;
    sea_orm_pool => crate::sea_orm::SeaOrm;
    sqlx_connection => crate::sqlx::Borrowed;
    sqlx_pool => crate::sqlx::Pooled;
}

macro_rules! guards {
    ($($name:ident => $pool:ty;)*) => {$(
        #[test]
        fn $name() {
            run_watched(guards::<$pool>);
        }
    )*};
}
guards! {
    guards_without_a_pool_do_not_block => crate::pools::MutexPool;
    guards_of_bb8_do_not_block => Bb8;
    guards_of_deadpool_do_not_block => Deadpool;
    guards_of_mobc_do_not_block => Mobc;
}
