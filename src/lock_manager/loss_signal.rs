//! Signal that a session is lost, for every holder of a lock on it.
//!
//! # Implementation details
//!
//! A flag for callers that check, and a shared oneshot channel for callers that await. Firing sets
//! the flag, then wakes every waiting task; it has no effect when repeated. The guards of all locks
//! on a session share one signal; those of the unit-test kit have one each, with that signal as its
//! parent. Consequence for users: `is_lost` needs no runtime and does not lock a mutex.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{Shared, select};

/// One-shot signal that a session is lost.
#[derive(Debug)]
pub(super) struct LossSignal {
    fired: OnceLock<()>,
    sender: Mutex<Option<oneshot::Sender<()>>>,
    receiver: Shared<oneshot::Receiver<()>>,
    /// Signal whose firing is also a loss of this one.
    parent: Option<Arc<Self>>,
}

impl Default for LossSignal {
    fn default() -> Self {
        let (sender, receiver) = oneshot::channel();
        Self {
            fired: OnceLock::new(),
            sender: Mutex::new(Some(sender)),
            receiver: receiver.shared(),
            parent: None,
        }
    }
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
        // Before the wake-up, after which a holder reads it. It is set already after an earlier
        // loss.
        let _ = self.fired.set(());
        let sender = self
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The receivers may have been dropped.
        sender.map(|sender| sender.send(()));
    }

    pub(super) fn is_fired(&self) -> bool {
        self.fired.get().is_some() || self.parent.as_ref().is_some_and(|parent| parent.is_fired())
    }

    /// Completes when the session is lost.
    pub(super) async fn wait(&self) {
        // Each call polls its own clone, so dropping one future does not affect the others.
        // It cannot fail: `self` keeps the sender until the signal fires.
        let own = self.receiver.clone();
        match &self.parent {
            None => drop(own.await),
            Some(parent) => drop(select(own, parent.receiver.clone()).await),
        }
    }
}
