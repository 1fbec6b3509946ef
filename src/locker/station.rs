//! Where a session of a blocking locker runs: on a thread of its own, or in a call that has just asked it something and would only wait.
//!
//! To wake a thread and to be woken by it costs as much as a round trip. So a release, or a call that does not wait, runs the idle session that it
//! gives its order. A call that waits does not: it has to end at its limit, which no blocking statement does over a silent network. Async sessions
//! are not run by calls: a call that nobody polls would hold up the others.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A session, run by one thread at a time.
pub(super) struct Station {
    /// `None` when it is over.
    session: Mutex<Option<Session>>,
    bell: Arc<Bell>,
}

/// Rings where the session is run: what has an order or an answer for it does not know who does.
#[derive(Default)]
struct Bell(Mutex<Ringing>);

#[derive(Default)]
struct Ringing {
    /// The session's own thread, when it sleeps.
    thread: Option<Waker>,
    /// A call is about to run the session.
    reserved: bool,
    /// It rang meanwhile.
    rang: bool,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, Ringing> {
        lock(&self.0)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let thread = {
            let mut state = self.state();
            state.rang = true;
            if state.reserved {
                None
            } else {
                state.thread.take()
            }
        };
        if let Some(thread) = thread {
            thread.wake();
        }
    }
}

impl Station {
    pub(super) fn new(session: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            session: Mutex::new(Some(Box::pin(session))),
            bell: Arc::default(),
        })
    }

    /// What the session's own thread does: it runs the session whenever no call does.
    pub(super) async fn run(self: Arc<Self>) {
        poll_fn(|context| {
            loop {
                {
                    let mut state = self.bell.state();
                    state.thread = Some(context.waker().clone());
                    if state.reserved {
                        return Poll::Pending;
                    }
                    state.rang = false;
                }
                if self.poll().is_ready() {
                    return Poll::Ready(());
                }
                if !self.bell.state().rang {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// A promise to run the session at once. `None` if another call has given it.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Help> {
        let mut state = self.bell.state();
        let free = !std::mem::replace(&mut state.reserved, true);
        free.then(|| Help(Arc::clone(self)))
    }

    fn poll(&self) -> Poll<()> {
        let mut place = lock(&self.session);
        // Out of its place, so that one that panics is dropped, which tells the locker.
        let Some(mut session) = place.take() else {
            return Poll::Ready(());
        };
        let waker = Waker::from(Arc::clone(&self.bell));
        let polled = session.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            *place = Some(session);
        }
        polled
    }
}

/// The promise of a call to run a session; its own thread goes on when this is dropped.
pub(super) struct Help(Arc<Station>);

impl Help {
    /// Runs the session as far as its orders go, which is no further than the first.
    pub(super) fn run(self) {
        self.0.bell.state().rang = false;
        if self.0.poll().is_ready() {
            self.0.bell.state().rang = true;
        }
    }
}

impl Drop for Help {
    fn drop(&mut self) {
        let thread = {
            let mut state = self.0.bell.state();
            state.reserved = false;
            if state.rang {
                state.thread.take()
            } else {
                None
            }
        };
        if let Some(thread) = thread {
            thread.wake();
        }
    }
}

/// What these mutexes guard is in order also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
