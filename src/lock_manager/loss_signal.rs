//! Signal that a session is lost, for every holder of a lock on it. In the unit-test kit, also the
//! signal that a lock manager closes.
//!
//! # Implementation details
//!
//! A flag for callers that check, and a tree of wakers for callers that await. Firing sets the
//! flag, then wakes every waiting task outside the mutex; it has no effect when repeated. The
//! guards of all locks on a session share one signal; those of the unit-test kit have one each,
//! with that signal as its parent. Consequence for users: `is_lost` needs no runtime and does not
//! lock a mutex.
//!
//! A wake-up may poll or drop the task. `Shared` of futures-util 0.3.34 wakes inside its mutex, so
//! it would deadlock then. It may also [miss a
//! wake-up](https://github.com/rust-lang/futures-rs/issues/2706) of one of several tasks.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::observer::contained;

/// One-shot signal that a session is lost.
#[derive(Debug, Default)]
pub(super) struct LossSignal {
    fired: OnceLock<()>,
    /// Wakers of the waiting tasks, by the number of their wait.
    wakers: Mutex<BTreeMap<u64, Waker>>,
    /// Signal whose firing is also a loss of this one.
    parent: Option<Arc<Self>>,
}

impl LossSignal {
    /// Returns a signal of one holder, which also fires with `parent`.
    #[cfg(feature = "testing")]
    pub(super) fn within(parent: Option<Arc<Self>>) -> Self {
        Self {
            parent,
            ..Self::default()
        }
    }

    /// Sets the flag and wakes the waiting tasks. Their wakers may run any code of an executor.
    pub(super) fn fire(&self) {
        // Before the mutex is locked: a task that stores its waker later sees the flag. It is set
        // already after an earlier loss.
        let _ = self.fired.set(());
        let wakers = std::mem::take(&mut *self.wakers());
        for waker in wakers.into_values() {
            contained(|| waker.wake());
        }
    }

    pub(super) fn is_fired(&self) -> bool {
        self.fired.get().is_some() || self.parent.as_ref().is_some_and(|parent| parent.is_fired())
    }

    /// Completes when the session is lost.
    pub(super) async fn wait(&self) {
        let mut own = Waiting::new(self);
        let mut parent = self.parent.as_deref().map(Waiting::new);
        poll_fn(|context| {
            let parent = parent.as_mut().map(|parent| parent.poll(context));
            match (own.poll(context), parent) {
                (Poll::Pending, None | Some(Poll::Pending)) => Poll::Pending,
                (_, _) => Poll::Ready(()),
            }
        })
        .await;
    }

    fn wakers(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        // Each change is one call of the tree, so a panic leaves it whole.
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wait for a signal. Dropping it removes its waker.
struct Waiting<'s> {
    signal: &'s LossSignal,
    /// `None` before the first poll.
    number: Option<u64>,
}

impl<'s> Waiting<'s> {
    const fn new(signal: &'s LossSignal) -> Self {
        Self {
            signal,
            number: None,
        }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        // Cloned and dropped outside the mutex, because a waker may run any code.
        let waker = context.waker().clone();
        let mut wakers = self.signal.wakers();
        if self.signal.fired.get().is_some() {
            return Poll::Ready(());
        }
        // A wait without a waker has ended, so its number is free.
        let next = || wakers.last_key_value().map_or(0, |(last, _)| last + 1);
        let number = *self.number.get_or_insert_with(next);
        let previous = wakers.insert(number, waker);
        drop(wakers);
        drop(previous);
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waker = self
            .number
            .and_then(|number| self.signal.wakers().remove(&number));
        // Outside the mutex.
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn ended_wait_leaves_no_waker_behind() {
        let signal = LossSignal::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut other = pin!(signal.wait());
        {
            let mut wait = pin!(signal.wait());
            assert!(wait.as_mut().poll(&mut context).is_pending());
            assert!(other.as_mut().poll(&mut context).is_pending());
            // A second poll of one wait replaces its waker.
            assert!(other.as_mut().poll(&mut context).is_pending());
            assert_eq!(signal.wakers().len(), 2);
        }
        assert_eq!(signal.wakers().len(), 1);
        // Its number is not that of a wait in progress.
        let mut later = pin!(signal.wait());
        assert!(later.as_mut().poll(&mut context).is_pending());
        assert_eq!(signal.wakers().len(), 2);
        signal.fire();
        assert!(other.as_mut().poll(&mut context).is_ready());
        assert!(pin!(signal.wait()).poll(&mut context).is_ready());
        assert_eq!(signal.wakers().len(), 0);
    }
}
