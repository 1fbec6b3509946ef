//! The future of one session, polled by its owner task and by calls: [`SessionTask`].
//!
//! # Implementation details
//!
//! Handing a command to the owner (a task or a thread) costs two context switches, which is
//! expensive beside a statement that does not wait. Therefore a call that sends a command to an
//! idle session polls the session once itself. Measured so, an uncontended cycle takes 1.03 to 1.12
//! times the two bare lock functions (`benches/lock_manager.rs`, section `uncontended`).
//!
//! On an async connection that poll sends the statement; the reply wakes the owner. On a blocking
//! connection it runs the statement to its reply.
//!
//! The future is in a mutex. Its waker, the task itself, wakes the owner, never a call. So a
//! session does not depend on a call that its executor no longer polls. A poll needs a claim
//! ([`PollPermit`]), that of the owner too: a response that the session sends may poll a task that
//! calls the same session. While the session is claimed, a wake-up is only noted. The permit passes
//! it on to the owner when it is dropped. Dropping the owner drops the future, or marks it for the
//! call that polls it then. The end of the future also ends the cycle of the task, its future, and
//! the waker in the future.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The future of a session, polled by one thread at a time.
pub(super) struct SessionTask {
    /// `None` after its end.
    session: Mutex<Option<Session>>,
    wake_state: Mutex<WakeState>,
}

#[derive(Default)]
struct WakeState {
    /// The waker of the owner, when it sleeps.
    owner_waker: Option<Waker>,
    /// The owner or a call is about to poll the session.
    claimed: bool,
    /// The session was woken since the last poll began.
    notified: bool,
    /// The owner is gone; the session has to end.
    owner_dropped: bool,
}

/// Wakes the owner, unless the session is claimed.
impl Wake for SessionTask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let owner = {
            let mut state = self.wake_state();
            state.notified = true;
            if state.claimed {
                None
            } else {
                state.owner_waker.take()
            }
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl SessionTask {
    pub(super) fn new(session: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            session: Mutex::new(Some(Box::pin(session))),
            wake_state: Mutex::default(),
        })
    }

    fn wake_state(&self) -> MutexGuard<'_, WakeState> {
        lock(&self.wake_state)
    }

    /// Returns the owner's future: it polls the session while no call does, and its drop ends it.
    pub(super) fn run(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Created here, not in the future, which may be dropped before its first poll.
        let owner = OwnerGuard(self);
        async move { poll_fn(|context| owner.0.poll_as_owner(context)).await }
    }

    fn poll_as_owner(self: &Arc<Self>, context: &Context<'_>) -> Poll<()> {
        self.wake_state().owner_waker = Some(context.waker().clone());
        // A wake-up during this poll reschedules the owner task. Do not poll in a loop: that would
        // starve other tasks of the executor.
        match self.try_claim() {
            Some(permit) => permit.poll_session(),
            None => Poll::Pending,
        }
    }

    /// Claims the session for one poll by the caller. Returns `None` if the owner polls it, or if
    /// another call has claimed it.
    pub(super) fn try_claim(self: &Arc<Self>) -> Option<PollPermit> {
        let mut state = self.wake_state();
        let free = !std::mem::replace(&mut state.claimed, true);
        free.then(|| PollPermit(Arc::clone(self)))
    }

    fn poll(self: &Arc<Self>) -> Poll<()> {
        let waker = Waker::from(Arc::clone(self));
        let polled = {
            let mut slot = lock(&self.session);
            // Taken out of the slot, so that a panic drops the session, which reports to the core.
            let Some(mut session) = slot.take() else {
                return Poll::Ready(());
            };
            let polled = session.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_pending() {
                *slot = Some(session);
            }
            polled
        };
        if self.wake_state().owner_dropped {
            // The owner could not take the session while this thread polled it.
            self.end();
        }
        polled
    }

    /// Drops the session, unless a thread polls it right now; that thread drops it afterwards.
    fn end(&self) {
        let session = match self.session.try_lock() {
            Ok(mut slot) => slot.take(),
            Err(TryLockError::Poisoned(slot)) => slot.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        drop(session);
    }
}

/// Ends the session when the owner is dropped: with its runtime, or because no thread started.
struct OwnerGuard(Arc<SessionTask>);

impl Drop for OwnerGuard {
    fn drop(&mut self) {
        self.0.wake_state().owner_dropped = true;
        self.0.end();
    }
}

/// Permit of the owner or of a call to poll a session once. Dropping it returns the session to its
/// owner.
pub(super) struct PollPermit(Arc<SessionTask>);

impl PollPermit {
    /// Polls the session once: it carries out one command at most.
    pub(super) fn poll(self) {
        // A client library that panics ends its session, not the call: the call gets the same error
        // as after any other end of the session.
        let polled = catch_unwind(AssertUnwindSafe(|| self.poll_session()));
        if !matches!(polled, Ok(Poll::Pending)) {
            self.0.wake_state().notified = true;
        }
    }

    fn poll_session(&self) -> Poll<()> {
        // Before the poll: a wake-up during the poll must reach the owner.
        self.0.wake_state().notified = false;
        self.0.poll()
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        let owner = {
            // In one critical section: a wake-up comes either before it, and is noted, or after it,
            // and wakes the owner itself.
            let mut state = self.0.wake_state();
            state.claimed = false;
            if state.notified {
                state.owner_waker.take()
            } else {
                None
            }
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

/// Locks a mutex of this file. A panic leaves the guarded values valid, so poison is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
