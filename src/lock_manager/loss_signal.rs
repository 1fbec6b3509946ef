//! The news that a session is lost, for everybody who holds a lock on it.

use std::sync::OnceLock;
use std::sync::{Mutex, PoisonError};

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Shared;

/// Whether the session of a lock is lost, and when.
#[derive(Debug)]
pub(super) struct LossSignal {
    fired: OnceLock<()>,
    sender: Mutex<Option<oneshot::Sender<()>>>,
    #[cfg_attr(
        not(feature = "async-lock-manager"),
        allow(dead_code, reason = "threads ask, and are not receiver")
    )]
    receiver: Shared<oneshot::Receiver<()>>,
}

impl Default for LossSignal {
    fn default() -> Self {
        let (sender, receiver) = oneshot::channel();
        Self {
            fired: OnceLock::new(),
            sender: Mutex::new(Some(sender)),
            receiver: receiver.shared(),
        }
    }
}

impl LossSignal {
    pub(super) fn fire(&self) {
        let _ = self.fired.set(());
        let sender = self
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Nobody may be listening.
        sender.map(|sender| sender.send(()));
    }

    pub(super) fn is_fired(&self) -> bool {
        self.fired.get().is_some()
    }

    /// Ends when the session is lost.
    #[cfg_attr(
        not(feature = "async-lock-manager"),
        allow(dead_code, reason = "threads ask, and are not receiver")
    )]
    pub(super) async fn wait(&self) {
        // It cannot be cancelled while this borrows what would cancel it.
        let _ = self.receiver.clone().await;
    }
}
