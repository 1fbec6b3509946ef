//! The news that a session is lost, for everybody who holds a lock on it.

use std::sync::OnceLock;
use std::sync::{Mutex, PoisonError};

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Shared;

/// Whether the session of a lock is lost, and when.
#[derive(Debug)]
pub(super) struct Loss {
    happened: OnceLock<()>,
    tell: Mutex<Option<oneshot::Sender<()>>>,
    #[cfg_attr(
        not(feature = "async-lock-manager"),
        allow(dead_code, reason = "threads ask, and are not told")
    )]
    told: Shared<oneshot::Receiver<()>>,
}

impl Default for Loss {
    fn default() -> Self {
        let (tell, told) = oneshot::channel();
        Self {
            happened: OnceLock::new(),
            tell: Mutex::new(Some(tell)),
            told: told.shared(),
        }
    }
}

impl Loss {
    pub(super) fn happen(&self) {
        let _ = self.happened.set(());
        let tell = self
            .tell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Nobody may be listening.
        tell.map(|tell| tell.send(()));
    }

    pub(super) fn has_happened(&self) -> bool {
        self.happened.get().is_some()
    }

    /// Ends when the session is lost.
    #[cfg_attr(
        not(feature = "async-lock-manager"),
        allow(dead_code, reason = "threads ask, and are not told")
    )]
    pub(super) async fn wait(&self) {
        // It cannot be cancelled while this borrows what would cancel it.
        let _ = self.told.clone().await;
    }
}
