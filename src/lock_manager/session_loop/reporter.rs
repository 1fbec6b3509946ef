//! Reports of a session to the core, also of its unexpected end: [`SessionReporter`].

use std::sync::Arc;
use std::time::Instant;

use crate::error::{LockError, LockErrorKind};
use crate::lock_manager::core::{Core, SessionId, WaitOutcome};
use crate::lock_manager::shared::{ResponseSender, Shared};
use crate::session::SessionError;

/// Reports results to the core, and on drop the end of a loop that was dropped, with its runtime.
pub(super) struct SessionReporter {
    pub(super) shared: Arc<Shared>,
    pub(super) id: SessionId,
    pub(super) phase: Phase,
}

/// The phase of a session's loop: it decides which report the core expects.
pub(super) enum Phase {
    Opening,
    Open,
    Waiting,
    Ended,
}

impl SessionReporter {
    pub(super) fn report(&self, event: impl FnOnce(&mut Core<ResponseSender>, Instant)) {
        self.shared.with_core(event);
    }
}

impl Drop for SessionReporter {
    fn drop(&mut self) {
        let id = self.id;
        let message = "the task of the session was dropped; its runtime may have ended";
        let error = || LockError::new(LockErrorKind::Pool).with_context(message);
        match self.phase {
            Phase::Opening => self.report(|core, now| core.on_opened(id, Err(error()), now)),
            Phase::Waiting => self.report(|core, now| {
                core.on_wait_ended(id, WaitOutcome::Failed(error()), now);
                core.on_session_closed(id);
            }),
            Phase::Open => self.report(|core, now| {
                let ended = SessionError::new(message).with_disconnected(true);
                core.on_batch_result(id, Err(ended), now);
                core.on_session_closed(id);
            }),
            Phase::Ended => {}
        }
        // After the report: a command to a session that was removed would start it again.
        self.shared.remove_session(id);
    }
}
