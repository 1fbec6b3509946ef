//! Unit tests of the dispatch: nothing is left of a session that has ended.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::*;
use crate::key::LockKey;
use crate::lock_manager::LockManager;
use crate::lock_manager::core::RequestKind;
use crate::lock_manager::options::LockManagerOptions;
use crate::lock_manager::request::Handle;
use crate::options::{LockMode, OnMissingLock};
use crate::session::{
    Backend, BatchReply, LockPool, LockSession, Script, ServerSigns, SessionError, TransactionState,
};

/// Pool that has no connection.
struct EmptyPool;

/// Connection that does not exist.
enum NoConnection {}

impl LockSession for NoConnection {
    fn session_backend(&mut self) -> Backend {
        match *self {}
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        match *self {}
    }

    fn session_mark_broken(&mut self) {}

    fn session_begin(&mut self) -> Result<(), SessionError> {
        match *self {}
    }

    fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        match *self {}
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        match *self {}
    }
}

impl LockPool for EmptyPool {
    type Session = NoConnection;
    type Connection = Box<NoConnection>;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        Err(SessionError::new("the pool is empty"))
    }
}

#[test]
fn failed_session_leaves_no_handle_behind() {
    let manager = LockManager::over_blocking_pool(EmptyPool).unwrap();
    for _ in 0..20 {
        let result = manager.acquire_blocking("empty pool", LockOptions::no_wait());
        let error = result.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Pool);
        assert!(error.waited().is_some(), "{error}");
    }
    // The thread of a session ends after its last report.
    let deadline = Instant::now() + Duration::from_secs(60);
    let shared = &manager.handle.shared;
    while !shared.state().sessions.is_empty() {
        assert!(Instant::now() < deadline, "handles are left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Pool that has no connection. The count of its value shows its drop.
struct CountedPool {
    _alive: Arc<()>,
}

impl LockPool for CountedPool {
    type Session = NoConnection;
    type Connection = Box<NoConnection>;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        EmptyPool.checkout()
    }
}

/// The timer keeps the pool, and sleeps without a limit while there is nothing to do.
#[test]
fn dropped_manager_drops_its_pool() {
    let alive = Arc::new(());
    let pool = CountedPool {
        _alive: Arc::clone(&alive),
    };
    let manager = LockManager::over_blocking_pool(pool).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait_until = |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(Instant::now() < deadline, "the timer is left");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait_until(&|| manager.handle.shared.state().timer_waker.is_some());
    drop(manager);
    wait_until(&|| Arc::strong_count(&alive) == 1);
}

/// Answers of a server that grants every request of one session at a time.
fn grant(shared: &Arc<Shared>, session: SessionId) {
    let reply = BatchReply {
        answers: Some(vec![Some(1)]),
        token: None,
        pid: 1,
        server_signs: ServerSigns::NONE,
    };
    shared.with_core(|core, now| core.on_batch_result(session, Ok(reply), now));
}

/// Waker of an executor that polls a task in its wake-up: it calls the lock manager.
struct CallsBack(Arc<Shared>);

impl Wake for CallsBack {
    fn wake(self: Arc<Self>) {
        let _ = self.0.snapshot();
    }
}

/// Runs `test` on a thread of its own, because a call under the mutex would never return.
fn assert_returns(test: impl FnOnce() + Send + 'static) {
    let (returned, is_returned) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        test();
        returned.send(()).unwrap();
    });
    is_returned.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn loss_wakes_tasks_outside_the_mutex() {
    assert_returns(|| {
        let (shared, session, lock) = granted();
        let loss = Arc::clone(lock.loss.as_ref().unwrap());
        let waker = Waker::from(Arc::new(CallsBack(Arc::clone(&shared))));
        let mut lost = pin!(loss.wait());
        let mut context = Context::from_waker(&waker);
        assert!(lost.as_mut().poll(&mut context).is_pending());
        shared.with_core(|core, now| core.on_connection_closed(session, now));
        assert!(loss.is_fired());
        assert!(lost.as_mut().poll(&mut context).is_ready());
        drop(lock);
    });
}

/// Waker of an executor that has ended: it drops the task in its wake-up.
struct DropsTask(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Wake for DropsTask {
    fn wake(self: Arc<Self>) {
        let task = self.0.lock().unwrap().take();
        drop(task);
    }
}

#[test]
fn task_may_be_dropped_when_its_loss_wakes_it() {
    assert_returns(|| {
        let (shared, session, lock) = granted();
        let loss = Arc::clone(lock.loss.as_ref().unwrap());
        let (dropped, other) = (Arc::new(DropsTask(Mutex::default())), Arc::clone(&loss));
        let mut task: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { other.wait().await });
        let waker = Waker::from(Arc::clone(&dropped));
        assert!(
            task.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        *dropped.0.lock().unwrap() = Some(task);
        shared.with_core(|core, now| core.on_connection_closed(session, now));
        assert!(dropped.0.lock().unwrap().is_none());
        assert!(loss.is_fired());
        drop(lock);
    });
}

#[test]
fn cancelled_request_wakes_its_task_outside_the_mutex() {
    assert_returns(|| {
        let (shared, _, lock) = granted();
        let waker = Waker::from(Arc::new(CallsBack(Arc::clone(&shared))));
        let handle = Handle { shared };
        let options = LockOptions::wait_forever();
        let mut context = Context::from_waker(&waker);
        {
            let call = handle.acquire(key(), options, RequestKind::Plain, Caller::Async);
            assert!(pin!(call).poll(&mut context).is_pending());
        }
        drop(lock);
    });
}

/// Pool, and connection, of a backend without locks.
struct WithoutLocks;

impl LockSession for WithoutLocks {
    fn session_backend(&mut self) -> Backend {
        Backend::Sqlite
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
    }

    fn session_mark_broken(&mut self) {}

    fn session_begin(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        Ok(())
    }
}

impl LockPool for WithoutLocks {
    type Session = Self;
    type Connection = Box<Self>;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        Ok(Box::new(Self))
    }
}

#[test]
fn missing_lock_is_warned_about_outside_the_mutex() {
    assert_returns(|| {
        let manager = LockManager::over_blocking_pool(WithoutLocks).unwrap();
        // Its session shows the backend.
        let quiet = LockOptions::no_wait().on_missing_lock(OnMissingLock::Ignore);
        drop(manager.acquire_blocking("quiet", quiet).unwrap());
        let (calling, warnings) = (manager.clone(), Arc::<AtomicU32>::default());
        let counted = Arc::clone(&warnings);
        let subscriber = tracing_subscriber::fmt().with_writer(move || {
            drop(calling.snapshot());
            counted.fetch_add(1, Ordering::Relaxed);
            std::io::sink()
        });
        tracing::subscriber::with_default(subscriber.finish(), || {
            for key in ["missing lock", "other missing lock"] {
                let guard = manager.acquire_blocking(key, LockOptions::no_wait());
                drop(guard.unwrap());
                // A thread without a subscriber disables an event that it sends first.
                tracing::callsite::rebuild_interest_cache();
            }
        });
        assert!(warnings.load(Ordering::Relaxed) > 0);
    });
}

fn key() -> LockKey {
    LockKey::from(1)
}

/// Returns a granted lock, and its session.
fn granted() -> (Arc<Shared>, SessionId, LockHandle) {
    let shared = Shared::new(LockManagerOptions::new(), false, Box::new(|_, _, _| None));
    let (sender, mut receiver) = oneshot::channel();
    let sender = ResponseSender::new(sender);
    let options = LockOptions::no_wait();
    shared.with_core(|core, now| core.request(key(), &options, RequestKind::Plain, sender, now));
    let session = *shared.state().sessions.keys().next().unwrap();
    shared.with_core(|core, now| core.on_opened(session, Ok((Backend::Postgres, 1)), now));
    grant(&shared, session);
    let Ok(Some(Response::Granted(lock))) = receiver.try_recv() else {
        panic!("the lock is granted");
    };
    (shared, session, lock)
}

/// Waker of an executor that has ended: it cannot schedule its task.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("the executor has ended");
    }
}

/// Adds a request for a shared lock. Returns the receiver of its response.
fn request_shared(shared: &Arc<Shared>) -> oneshot::Receiver<Response> {
    let (sender, receiver) = oneshot::channel();
    let (sender, options) = (
        ResponseSender::new(sender),
        LockOptions::no_wait().mode(LockMode::Shared),
    );
    shared.with_core(|core, now| core.request(key(), &options, RequestKind::Plain, sender, now));
    receiver
}

#[test]
fn waker_that_panics_does_not_keep_a_response_from_others() {
    let (shared, session, lock) = granted();
    drop(lock);
    let (mut first, mut second) = (request_shared(&shared), request_shared(&shared));
    let waker = Waker::from(Arc::new(Panics));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut first).poll(&mut context).is_pending());
    // The release, then the acquire.
    grant(&shared, session);
    grant(&shared, session);
    let granted = |response| matches!(response, Ok(Some(Response::Granted(_))));
    assert!(granted(second.try_recv()));
    assert!(granted(first.try_recv()));
}

#[test]
fn waker_that_panics_does_not_keep_a_loss_from_others() {
    let (shared, session, lock) = granted();
    let loss = Arc::clone(lock.loss.as_ref().unwrap());
    let woken = Arc::new(CallsBack(Arc::clone(&shared)));
    let wakers = [Arc::new(Panics).into(), Waker::from(Arc::clone(&woken))];
    let _waits = wakers.map(|waker| {
        let mut wait = Box::pin(loss.wait());
        assert!(
            wait.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        wait
    });
    assert_eq!(Arc::strong_count(&woken), 2);
    shared.with_core(|core, now| core.on_connection_closed(session, now));
    // The wake-up has consumed the waker.
    assert_eq!(Arc::strong_count(&woken), 1);
    drop(lock);
}

#[test]
fn closed_session_leaves_no_loss_signal_behind() {
    let (shared, session, lock) = granted();
    assert_eq!(shared.state().losses.len(), 1);
    drop(lock);
    grant(&shared, session);
    let (sender, _receiver) = oneshot::channel();
    let sender = ResponseSender::new(sender);
    shared.with_core(|core, _| core.close(sender));
    assert!(shared.state().losses.is_empty());
    assert!(shared.state().sessions.is_empty());
}

/// A guard may be dropped while its thread panics, where a second panic would abort.
#[test]
fn waker_of_the_timer_that_panics_reaches_no_call() {
    let shared = Shared::new(LockManagerOptions::new(), false, Box::new(|_, _, _| None));
    shared.state().timer_waker = Some(Arc::new(Panics).into());
    let (sender, _receiver) = oneshot::channel();
    let sender = ResponseSender::new(sender);
    let options = LockOptions::wait_up_to(Duration::from_secs(60));
    shared.with_core(|core, now| core.request(key(), &options, RequestKind::Plain, sender, now));
    assert!(shared.state().timer_waker.is_none());
}

#[test]
fn event_with_many_commands_leaves_a_small_buffer() {
    let (shared, _, lock) = granted();
    let options = LockOptions::no_wait();
    shared.with_core(|core, now| {
        for _ in 0..4 * RETAINED_CAPACITY {
            // The lock is held, so each request is refused.
            let sender = ResponseSender::new(oneshot::channel().0);
            core.request(key(), &options, RequestKind::Plain, sender, now);
        }
    });
    assert!(shared.state().commands.capacity() <= RETAINED_CAPACITY);
    drop(lock);
}
