//! Nothing blocks the executor: while the server is silent, every poll returns, and so does every drop.
//!
//! A call lives in a runtime of one thread, and only that thread ends the silence. So what waits there for the server, in a poll, in
//! a drop, or in a task that a drop has started, waits for ever; the thread of the test watches.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions, WaitStrategy};

use crate::adapters::{Adapter, Borrowed, CALLS, Pooled};
use crate::observer::{Gate, Observer, fresh_key};
use crate::pending::until_pending;
use crate::pools::{Bb8, Deadpool, Mobc, Pool, answers, begin, in_runtime};
use crate::silence::{Server, Switch};

/// How long the executor may be silent with the server. What waits for it waits for ever, so a slow machine may take its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a case on a thread of its own, and watches that it never waits for a silent server.
fn watch<F: Future<Output = ()>>(case: impl FnOnce(Server) -> F + Send + 'static) {
    let switch = Arc::new(Switch::default());
    let server = Server::new(Arc::clone(&switch));
    let (alive, ended) = channel::<()>();
    let playing = thread::spawn(move || {
        in_runtime(case(server));
        drop(alive);
    });
    while ended.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
        assert!(
            switch.silent_for() < PATIENCE,
            "the executor waits for a silent server"
        );
    }
    if let Err(panic) = playing.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The longest that a poll or a drop took.
#[derive(Default)]
struct Longest(Duration);

impl Longest {
    fn time<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let value = act();
        self.0 = self.0.max(began.elapsed());
        value
    }

    fn assert_short(&self, what: &str) {
        println!("{what}: the longest poll or drop took {:?}", self.0);
        assert!(self.0 < PATIENCE / 10, "{what}: {:?}", self.0);
    }
}

/// Polls a future a few times in the silence, then drops it. Whether it ended: what came before the silence may let it.
async fn poll_and_drop<F: Future>(mut future: Pin<Box<F>>, longest: &mut Longest) -> bool {
    let mut ended = false;
    for _ in 0..4 {
        ended = poll_fn(|context| {
            Poll::Ready(longest.time(|| future.as_mut().poll(context)).is_ready())
        })
        .await;
        if ended {
            break;
        }
        tokio::task::yield_now().await;
    }
    longest.time(|| drop(future));
    tasks_run().await;
    ended
}

/// How often a call is pending is a matter of luck, for an answer may be there when it looks. Without answers it is pending for good.
fn assert_waits(silent_from_the_start: bool, ended: bool, what: &str) {
    assert!(
        !(silent_from_the_start && ended),
        "{what}: it ended without an answer"
    );
}

/// What a drop has started gets its turn.
async fn tasks_run() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

/// Every call, with the server falling silent at its first, second, third … pending point.
async fn calls<A: Adapter>(server: Server) {
    let (mut observer, mut longest) = (Observer::new(), Longest::default());
    for call in CALLS {
        let mut adapter = A::open(&server.url()).await;
        for limit in 0.. {
            let key = fresh_key();
            let mut future = Box::pin(adapter.call(call, &key, LockOptions::no_wait()));
            let done = until_pending(limit, future.as_mut()).await;
            let what = format!("{}: {call:?} at pending point {limit}", A::NAME);
            if let Some(result) = done {
                result.expect(&what);
                break;
            }
            let silence = server.fall_silent();
            let ended = poll_and_drop(future, &mut longest).await;
            assert_waits(limit == 0, ended, &what);
            drop(silence);
            observer.assert_free(&key, &what).await;
            adapter.check().await;
        }
    }
    longest.assert_short(A::NAME);
}

/// The same while somebody else holds the lock, so that the silence meets a call that waits.
async fn waits<A: Adapter>(server: Server) {
    let (mut observer, mut longest) = (Observer::new(), Longest::default());
    let mut gate = Gate::closed();
    let poll = LockOptions::wait_forever().interval(Duration::from_millis(1));
    let block = LockOptions::wait_forever().strategy(WaitStrategy::Block);
    for call in CALLS {
        for (options, queues) in [(poll, false), (block, true)] {
            let key = gate.key.clone();
            let mut adapter = A::open(&server.url()).await;
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
            let silence = server.fall_silent();
            let ended = poll_and_drop(future, &mut longest).await;
            assert!(!ended, "{}: {call:?} ended though it is held", A::NAME);
            drop(silence);
            let what = format!("{}: {call:?} is still queued", A::NAME);
            let alone = |shown: &[_]| shown.len() == 1;
            observer.wait_until(&key, alone, &what).await;
            adapter.check().await;
        }
    }
    longest.assert_short(A::NAME);
}

/// A guard dropped, in and outside a transaction, and its release.
async fn guards<P: Pool>(server: Server) {
    let (mut observer, mut longest) = (Observer::new(), Longest::default());
    let pool = P::open(&server.url()).await;
    for transaction in [false, true] {
        let key = fresh_key();
        let guard = pool.acquire_advisory_lock(&key, LockOptions::no_wait());
        let mut guard = guard.await.unwrap();
        if transaction {
            begin(&mut guard).await;
        }
        let silence = server.fall_silent();
        longest.time(|| drop(guard));
        tasks_run().await;
        drop(silence);
        observer.assert_free(&key, "a guard dropped").await;
        answers(&pool).await;
    }
    for limit in 0.. {
        let key = fresh_key();
        let guard = pool.acquire_advisory_lock(&key, LockOptions::no_wait());
        let mut release = Box::pin(guard.await.unwrap().release());
        if let Some(released) = until_pending(limit, release.as_mut()).await {
            released.unwrap();
            break;
        }
        let silence = server.fall_silent();
        let ended = poll_and_drop(release, &mut longest).await;
        assert_waits(limit == 0, ended, "the release");
        drop(silence);
        observer.assert_free(&key, "a release dropped").await;
        answers(&pool).await;
    }
    longest.assert_short(P::NAME);
}

macro_rules! for_each_adapter {
    ($($name:ident => $adapter:ty;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn calls_do_not_block() {
                watch(calls::<$adapter>);
            }

            #[test]
            fn waits_do_not_block() {
                watch(waits::<$adapter>);
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
}

macro_rules! guards {
    ($($name:ident => $pool:ty;)*) => {$(
        #[test]
        fn $name() {
            watch(guards::<$pool>);
        }
    )*};
}
guards! {
    guards_without_a_pool_do_not_block => crate::pools::Shared;
    guards_of_bb8_do_not_block => Bb8;
    guards_of_deadpool_do_not_block => Deadpool;
    guards_of_mobc_do_not_block => Mobc;
}
