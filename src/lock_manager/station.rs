//! Where a session of a locker is run: by its owner, which is a thread or a task of its own, and by calls that have just given it an order.
//!
//! To hand an order to the owner and to be woken by it costs a switch between threads or tasks each way, which is much beside a statement that
//! waits for nobody. So a call runs the idle session that it gives an order, once: as far as that goes without waiting, which is to the sending of
//! the statement on an async connection, and to its answer on a blocking one. What comes later rings for the owner, so that no session ever needs
//! a call that nobody polls any more.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A session, run by one at a time.
pub(super) struct Station {
    /// `None` when it is over.
    session: Mutex<Option<Session>>,
    bell: Arc<Bell>,
    /// Rings it.
    waker: Waker,
}

/// Rings where the session is run: what has an order or an answer for it does not know who does.
#[derive(Default)]
struct Bell(Mutex<Ringing>);

#[derive(Default)]
struct Ringing {
    /// The session's owner, when it sleeps.
    owner: Option<Waker>,
    /// A call is about to run the session.
    reserved: bool,
    /// It rang meanwhile.
    rang: bool,
    /// The owner is gone, and the session is to go with it.
    orphaned: bool,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, Ringing> {
        lock(&self.0)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let owner = {
            let mut state = self.state();
            state.rang = true;
            if state.reserved {
                None
            } else {
                state.owner.take()
            }
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl Station {
    pub(super) fn new(session: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        let bell = Arc::<Bell>::default();
        Arc::new(Self {
            session: Mutex::new(Some(Box::pin(session))),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        })
    }

    /// What the session's owner does: it runs the session whenever no call does. Dropped, it takes the session with it.
    pub(super) fn run(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Here, not in the future: that may be dropped before its first poll.
        let owner = Owner(self);
        async move { poll_fn(|context| owner.0.poll_as_owner(context)).await }
    }

    fn poll_as_owner(&self, context: &Context<'_>) -> Poll<()> {
        {
            let mut state = self.bell.state();
            state.owner = Some(context.waker().clone());
            if state.reserved {
                return Poll::Pending;
            }
            state.rang = false;
        }
        // What rings meanwhile wakes the owner, so it is not run again at once: whoever runs many tasks has others to run too.
        self.poll()
    }

    /// A promise to run the session at once. `None` if another call has given it.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Help> {
        let mut state = self.bell.state();
        let free = !std::mem::replace(&mut state.reserved, true);
        free.then(|| Help(Arc::clone(self)))
    }

    fn poll(&self) -> Poll<()> {
        let polled = {
            let mut place = lock(&self.session);
            // Out of its place, so that one that panics is dropped, which tells the locker.
            let Some(mut session) = place.take() else {
                return Poll::Ready(());
            };
            let polled = session.as_mut().poll(&mut Context::from_waker(&self.waker));
            if polled.is_pending() {
                *place = Some(session);
            }
            polled
        };
        if self.bell.state().orphaned {
            self.end();
        }
        polled
    }

    /// Drops the session, unless it is being run; then whoever runs it does this afterwards.
    fn end(&self) {
        let session = match self.session.try_lock() {
            Ok(mut place) => place.take(),
            Err(TryLockError::Poisoned(place)) => place.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        drop(session);
    }
}

/// Ends the session when it is dropped: with the runtime of a task, or with a thread that there is not.
struct Owner(Arc<Station>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.bell.state().orphaned = true;
        self.0.end();
    }
}

/// The promise of a call to run a session; its owner goes on when this is dropped.
pub(super) struct Help(Arc<Station>);

impl Help {
    /// Runs the session as far as its orders go, which is no further than the first.
    pub(super) fn run(self) {
        self.0.bell.state().rang = false;
        // A client that panics ends its session, and the call hears of that as of any other end. It is not the one to panic.
        let polled = catch_unwind(AssertUnwindSafe(|| self.0.poll()));
        if !matches!(polled, Ok(Poll::Pending)) {
            self.0.bell.state().rang = true;
        }
    }
}

impl Drop for Help {
    fn drop(&mut self) {
        let owner = {
            let mut state = self.0.bell.state();
            state.reserved = false;
            if state.rang { state.owner.take() } else { None }
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

/// What these mutexes guard is in order also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
