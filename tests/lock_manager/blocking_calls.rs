//! Blocking calls and runtimes: panics in tasks, threads that may block, and the runtime that an
//! async pool needs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;

use advisory_locking::LockErrorKind::{Closed, HeldElsewhere};
use advisory_locking::lock_manager::{LockManager, OwnedLockGuard};
use advisory_locking::session::{AsyncLockPool, LockPool, SessionError};
use advisory_locking::{LockError, LockKey, LockOptions};
use diesel::connection::InstrumentationEvent;
use diesel::pg::PgConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::{Connection as _, r2d2};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use testkit::observer::Observe;
use testkit::server::{connect_to, eventually, url};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::timeout;

use crate::cases::{TIMEOUT, fresh_key, kind_of, no_wait, poll, within, without_keep_alive};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::{PoolKind, PoolUnderTest};
use crate::runtimes::runtime;
use crate::test_manager::Caller;

const POOLS: [PoolKind; 2] = [PoolKind::Bb8, PoolKind::R2d2];

fn single_threaded() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn manager(kind: PoolKind) -> LockManager {
    let pool_under_test = PoolUnderTest::new(kind, Caller::Blocking);
    pool_under_test.manager(without_keep_alive()).await.manager
}

/// A pool that counts its checkouts.
struct CountingPool<P> {
    pool: P,
    checkouts: Arc<AtomicUsize>,
}

impl<P: LockPool> LockPool for CountingPool<P> {
    type Session = P::Session;
    type Connection = P::Connection;

    fn checkout(&self) -> Result<P::Connection, SessionError> {
        self.checkouts.fetch_add(1, Ordering::SeqCst);
        self.pool.checkout()
    }
}

impl<P: AsyncLockPool> AsyncLockPool for CountingPool<P> {
    type Session = P::Session;
    type Connection = P::Connection;

    async fn checkout(&self) -> Result<P::Connection, SessionError> {
        self.checkouts.fetch_add(1, Ordering::SeqCst);
        self.pool.checkout().await
    }
}

type Call = (&'static str, fn(&LockManager, LockKey));

/// Every method that blocks, called for a free key.
const CALLS: [Call; 9] = [
    ("acquire", |manager, key| {
        drop(manager.acquire_blocking(key, no_wait()).unwrap());
    }),
    ("try_acquire", |manager, key| {
        drop(manager.try_acquire_blocking(key, no_wait()).unwrap());
    }),
    ("acquire_fenced", |manager, key| {
        drop(manager.acquire_fenced_blocking(key, no_wait()).unwrap());
    }),
    ("try_acquire_fenced", |manager, key| {
        drop(manager.try_acquire_fenced_blocking(key, no_wait()).unwrap());
    }),
    ("acquire_all", |manager, key| {
        let guards = manager.acquire_all_blocking([key], no_wait()).unwrap();
        guards.release_blocking().unwrap();
    }),
    ("try_acquire_all", |manager, key| {
        drop(manager.try_acquire_all_blocking([key], no_wait()).unwrap());
    }),
    ("with_lock", |manager, key| {
        let body = |_: &OwnedLockGuard| Ok::<_, LockError>(());
        manager.with_lock_blocking(key, no_wait(), body).unwrap();
    }),
    ("try_with_lock", |manager, key| {
        let body = |_: &OwnedLockGuard| Ok::<_, LockError>(());
        let done = manager.try_with_lock_blocking(key, no_wait(), body);
        assert!(done.unwrap().is_some());
    }),
    ("close", |manager, _| manager.close_blocking()),
];

/// Asserts that the call panics as tokio's own blocking calls do.
fn assert_panics(method: &str, call: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(call)).expect_err(method);
    let message = panic.downcast_ref::<&str>().map(ToString::to_string);
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
    let message = message.expect("a message");
    assert!(message.contains("block the current thread"), "{message}");
}

#[test]
fn blocking_calls_panic_in_a_task_before_they_request() {
    for kind in POOLS {
        for runtime in [runtime(), single_threaded()] {
            let checkouts = Arc::<AtomicUsize>::default();
            let manager = runtime.block_on(counted_manager(kind, &checkouts));
            let calling = manager.clone();
            runtime.block_on(async {
                let in_task = tokio::spawn(async move {
                    for (method, call) in CALLS {
                        assert_panics(method, || call(&calling, fresh_key()));
                    }
                });
                in_task.await.unwrap();
                for (method, call) in CALLS {
                    assert_panics(method, || call(&manager, fresh_key()));
                }
            });
            assert_eq!(checkouts.load(Ordering::SeqCst), 0, "a session was opened");
            // `close_blocking` panicked too, so the lock manager still grants requests.
            let lock = runtime.block_on(manager.acquire(fresh_key(), no_wait()));
            runtime.block_on(lock.unwrap().release()).unwrap();
            assert_eq!(checkouts.load(Ordering::SeqCst), 1);
        }
    }
}

async fn counted_manager(kind: PoolKind, checkouts: &Arc<AtomicUsize>) -> LockManager {
    let checkouts = Arc::clone(checkouts);
    if kind == PoolKind::R2d2 {
        let connections = ConnectionManager::<PgConnection>::new(url());
        let pool = Pool::builder().min_idle(Some(0)).max_size(2);
        let pool = pool.build_unchecked(connections);
        LockManager::over_blocking_pool(CountingPool { pool, checkouts }).unwrap()
    } else {
        let connections = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
        let pool = bb8::Pool::builder().max_size(2).build(connections).await;
        let pool = pool.unwrap();
        LockManager::over_async_pool(CountingPool { pool, checkouts }).unwrap()
    }
}

#[test]
fn release_blocking_in_a_task_panics_and_releases() {
    let mut observer = connect_to(&url());
    for kind in POOLS {
        runtime().block_on(async {
            let manager = manager(kind).await;
            let [one, two, three] = [fresh_key(), fresh_key(), fresh_key()];
            let guard = manager.acquire(one.clone(), no_wait()).await.unwrap();
            assert_panics("release", || guard.release_blocking().unwrap());
            let guards = manager.acquire_all([two.clone(), three.clone()], no_wait());
            let guards = guards.await.unwrap();
            assert_panics("release", || guards.release_blocking().unwrap());
            for key in [one, two, three] {
                observer.assert_soon_free(&key, "a panic of release_blocking");
            }
        });
    }
}

#[test]
fn blocking_calls_work_on_threads_that_may_block() {
    for kind in POOLS {
        let runtime = runtime();
        for (_, call) in CALLS {
            let manager = || runtime.block_on(manager(kind));
            let calling = manager();
            thread::spawn(move || call(&calling, fresh_key()))
                .join()
                .unwrap();
            let calling = manager();
            let blocking = runtime.spawn_blocking(move || call(&calling, fresh_key()));
            runtime.block_on(blocking).unwrap();
            let calling = manager();
            let in_place = runtime.spawn(async move {
                block_in_place(|| call(&calling, fresh_key()));
            });
            runtime.block_on(in_place).unwrap();
            // In the context of a runtime, but outside of its tasks.
            let calling = manager();
            let _entered = runtime.enter();
            call(&calling, fresh_key());
        }
    }
}

#[test]
fn guard_is_released_by_the_other_kind_of_caller() {
    let mut observer = connect_to(&url());
    for kind in POOLS {
        let runtime = runtime();
        let (manager, key) = (runtime.block_on(manager(kind)), fresh_key());
        let guard = manager.acquire_blocking(key.clone(), no_wait()).unwrap();
        let contended = runtime.block_on(manager.acquire(key.clone(), no_wait()));
        assert_eq!(kind_of(contended), Some(HeldElsewhere));
        runtime.block_on(guard.release()).unwrap();
        assert!(observer.is_free(&key));

        let guard = runtime.block_on(manager.acquire(key.clone(), no_wait()));
        let contended = manager.try_acquire_blocking(key.clone(), no_wait());
        assert!(contended.unwrap().is_none());
        guard.unwrap().release_blocking().unwrap();
        assert!(observer.is_free(&key));
    }
}

/// A blocking waiter and an async waiter are in one queue.
#[test]
fn waiters_of_both_kinds_are_served() {
    for kind in POOLS {
        let runtime = runtime();
        let (manager, key) = (runtime.block_on(manager(kind)), fresh_key());
        let mut competitor = CompetingSession::holding(&key);
        let thread = thread::spawn({
            let (manager, key) = (manager.clone(), key.clone());
            move || manager.acquire_blocking(key, poll())?.release_blocking()
        });
        let task = runtime.spawn({
            let (manager, key) = (manager.clone(), key.clone());
            async move { manager.acquire(key, poll()).await?.release().await }
        });
        eventually("both wait", || manager.snapshot().waiters() == 2);
        competitor.unlock(&key);
        thread.join().unwrap().unwrap();
        runtime.block_on(task).unwrap().unwrap();
    }
}

/// Sessions of an async pool are tasks of its runtime.
#[test]
fn blocking_call_over_an_async_pool_waits_for_its_runtime() {
    let runtime = single_threaded();
    let manager = runtime.block_on(manager(PoolKind::Bb8));
    let key = fresh_key();
    let calling = thread::spawn({
        let (manager, key) = (manager.clone(), key.clone());
        // The limit does not end the wait either: its timer is a task.
        let options = LockOptions::wait_up_to(Duration::from_millis(20));
        move || manager.acquire_blocking(key, options)
    });
    thread::sleep(Duration::from_millis(300));
    assert!(!calling.is_finished(), "the runtime did not run");
    let result = runtime.block_on(async {
        let joining = spawn_blocking(move || calling.join().unwrap());
        timeout(TIMEOUT, joining).await.expect("served").unwrap()
    });
    // Its session may open before the timer sees the limit, or after it.
    if let Ok(guard) = result {
        runtime.block_on(guard.release()).unwrap();
    }
    let guard = runtime.block_on(manager.acquire(key, poll())).unwrap();
    runtime.block_on(guard.release()).unwrap();
}

#[test]
fn blocking_call_is_rejected_after_the_runtime_has_ended() {
    let runtime = runtime();
    let manager = runtime.block_on(manager(PoolKind::Bb8));
    let guard = manager.acquire_blocking(fresh_key(), no_wait()).unwrap();
    drop(runtime);
    assert!(guard.is_lost());
    for options in [no_wait(), poll()] {
        let result = manager.acquire_blocking(fresh_key(), options);
        assert_eq!(kind_of(result), Some(Closed));
    }
    guard.release_blocking().unwrap_err();
    manager.close_blocking();
}

/// Records the threads that run statements.
#[derive(Clone, Debug, Default)]
struct StatementThreads(Arc<Mutex<Vec<ThreadId>>>);

impl CustomizeConnection<PgConnection, r2d2::Error> for StatementThreads {
    fn on_acquire(&self, conn: &mut PgConnection) -> Result<(), r2d2::Error> {
        let threads = Arc::clone(&self.0);
        conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { .. } = event {
                threads.lock().unwrap().push(thread::current().id());
            }
        });
        Ok(())
    }
}

impl StatementThreads {
    /// Returns the number of statements on this thread and on others since the last call.
    fn take_counts(&self) -> (usize, usize) {
        let threads = std::mem::take(&mut *self.0.lock().unwrap());
        let here = threads.iter().filter(|id| **id == thread::current().id());
        let here = here.count();
        (here, threads.len() - here)
    }

    fn manager(&self) -> LockManager {
        let pool = Pool::builder()
            .min_idle(Some(0))
            .connection_customizer(Box::new(self.clone()))
            .build_unchecked(ConnectionManager::<PgConnection>::new(url()));
        LockManager::over_blocking_pool_with(pool, without_keep_alive()).unwrap()
    }
}

#[test]
fn async_call_over_a_blocking_pool_runs_no_statement_itself() {
    let threads = StatementThreads::default();
    let manager = threads.manager();
    let keys = [fresh_key(), fresh_key()];
    block_on(async {
        for _ in 0..5 {
            let guard = manager.acquire(keys[0].clone(), no_wait()).await.unwrap();
            guard.release().await.unwrap();
            let guard = manager.acquire_fenced(keys[0].clone(), no_wait()).await;
            drop(guard.unwrap().release());
            let guards = manager.acquire_all(keys.clone(), no_wait()).await;
            guards.unwrap().release().await.unwrap();
            let body = async |_: &OwnedLockGuard| Ok::<_, LockError>(());
            let done = manager.with_lock(keys[0].clone(), no_wait(), body);
            done.await.unwrap();
        }
    });
    let (here, elsewhere) = threads.take_counts();
    assert_eq!(here, 0, "statements on the executor's thread");
    assert!(elsewhere >= 30, "{elsewhere} statements");

    // The same sessions are polled by blocking callers, unless they wait.
    for _ in 0..5 {
        let guard = manager.acquire_blocking(keys[0].clone(), no_wait());
        guard.unwrap().release_blocking().unwrap();
    }
    assert!(threads.take_counts().0 > 0, "no call polled a session");
    let options = within(TIMEOUT, advisory_locking::WaitStrategy::Poll);
    drop(manager.acquire_blocking(keys[1].clone(), options).unwrap());
    assert_eq!(threads.take_counts().0, 0, "a waiting call ran a statement");
    manager.close_blocking();
}

/// Over a silent network, a call that ran the statement itself would block the executor.
#[test]
fn async_call_over_a_blocking_pool_can_be_cancelled() {
    let proxy = testkit::proxy::Proxy::start();
    let pool_under_test = PoolUnderTest::new(PoolKind::R2d2, Caller::Async);
    let pool_under_test = pool_under_test.on_server(proxy.url());
    let mut observer = connect_to(&url());
    let key = fresh_key();
    single_threaded().block_on(async {
        let manager = pool_under_test.manager(without_keep_alive()).await.manager;
        let guard = manager.acquire(key.clone(), no_wait()).await.unwrap();
        proxy.fall_silent();
        let limit = Duration::from_millis(100);
        let acquired = timeout(limit, manager.acquire(fresh_key(), no_wait())).await;
        acquired.expect_err("the network is silent");
        let released = timeout(limit, guard.release()).await;
        released.expect_err("the network is silent");
        drop(manager);
    });
    proxy.break_connections();
    observer.wait_until_free(&key);
}

/// Runs a future on this thread without any runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn async_calls_over_a_blocking_pool_need_no_runtime() {
    let manager = StatementThreads::default().manager();
    let key = fresh_key();
    let mut competitor = CompetingSession::holding(&key);
    let contended = block_on(manager.try_acquire(key.clone(), no_wait()));
    assert!(contended.unwrap().is_none());
    let limit = LockOptions::wait_up_to(Duration::from_millis(50));
    assert!(
        block_on(manager.try_acquire(key.clone(), limit))
            .unwrap()
            .is_none()
    );
    competitor.unlock(&key);
    let guard = block_on(manager.acquire(key, poll())).unwrap();
    block_on(guard.release()).unwrap();
    block_on(manager.close());
    let closed = block_on(manager.acquire(fresh_key(), no_wait()));
    assert_eq!(kind_of(closed), Some(Closed));
}
