//! Loss of a session: [`Core::on_session_lost`].
//!
//! # Implementation details
//!
//! Every key of the session becomes not held at once, and the signal of the session wakes its
//! holders. Waiters poll after a pause on another session. A request that does not wait is tried
//! once more at once, if the session has ended: it may have ended while it was idle. So may have
//! all sessions that are older than the request, and it survives each of them. It fails after a
//! silence, or if its new session ends too. If another session replied, every waiter of these keys
//! fails. Consequence for users: holders notice the loss of a session. Calls that wait notice only
//! its exchange by a pooler.

use std::time::Instant;

use super::key_state::KeyEvent;
use super::sessions::SessionPhase;
use super::wait_queue::AfterLoss;
use super::{Command, Core, SessionCommand, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;

/// Reason for which a session is given no more commands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SessionLoss {
    /// The client reports the end of the session, which holds nothing any more.
    Ended,
    /// The session does not reply, or not as expected.
    Unreliable,
    /// Another session replied.
    Changed,
}

impl SessionLoss {
    const fn kind(self) -> LockErrorKind {
        match self {
            Self::Ended | Self::Unreliable => LockErrorKind::Lost,
            Self::Changed => LockErrorKind::SessionChanged,
        }
    }
}

impl<W> Core<W> {
    /// Handles a session that has ended or cannot be relied on: every lock on it is lost.
    ///
    /// No lost lock is acquired again for its holder.
    pub(super) fn on_session_lost(&mut self, id: SessionId, loss: SessionLoss, now: Instant) {
        let kind = loss.kind();
        if !self.sessions.contains_key(&id) {
            return;
        }
        self.counters.lost_sessions += 1;
        // Before the termination: the driver removes the signal of a session that it terminates.
        self.commands.push(Command::SessionLost { session: id });
        let Some(session) = self.remove_session(id, SessionCommand::Terminate) else {
            return;
        };
        let acks = match session.phase {
            SessionPhase::Executing { acks, .. } => acks,
            // A failed batch has moved its acks to `pending_acks` before its compensation.
            SessionPhase::Opening
            | SessionPhase::Idle
            | SessionPhase::Compensating { .. }
            | SessionPhase::WaitingOnServer { .. } => Vec::new(),
        };
        for waiter in acks.into_iter().chain(session.pending_acks) {
            self.reply(Some(waiter), Err(kind));
        }
        for key in self.keys_of(id) {
            let Some(key_state) = self.keys.get_mut(&key) else {
                continue;
            };
            // A release by one of these holders now finds no holder and reports `Lost`.
            key_state.holders.clear();
            key_state.reset_hand_offs();
            key_state.apply(KeyEvent::SessionLost);
            let releaser = key_state.releaser.take();
            self.reply(releaser, Err(kind));
            // A pooler may change the next session as well, so no waiter is retried.
            if loss == SessionLoss::Changed {
                self.fail_waiters(key, kind);
            }
            if self.retry_or_fail_no_wait(key, id, loss) {
                self.send_acquire(key, now);
            } else {
                // After a pause: a server that restarts ends the sessions of all processes at once.
                self.poll_later(key, now);
            }
        }
    }

    /// Handles the end of the driver's session: after a command, or because its task was dropped.
    pub(crate) fn on_session_closed(&mut self, id: SessionId, now: Instant) {
        if let Some(session) = self.sessions.get(&id) {
            if session.is_opening() {
                // A source, because the error of a request contains the causes of this one.
                let cause = "the task that opened a session has panicked, or its runtime has ended";
                let error = LockError::new(LockErrorKind::Pool).with_source(cause);
                self.on_open_failed(id, error, now);
            } else {
                self.on_session_lost(id, SessionLoss::Ended, now);
            }
        }
        self.ending_sessions.remove(&id);
    }

    /// Marks the requests that do not wait for a retry on another session, or fails them. Returns
    /// whether one is retried.
    fn retry_or_fail_no_wait(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        loss: SessionLoss,
    ) -> bool {
        let Some(key_state) = self.keys.get_mut(&key) else {
            return false;
        };
        let mut retries = false;
        let failed = key_state.queue.drain_no_wait(|request| {
            // A session that is older than the request may have ended while it was idle, and so
            // may all others. Ids ascend over requests and sessions.
            let may_retry =
                request.after_loss == AfterLoss::RetriesOnce || session.generation() < request.id.0;
            match request.after_loss {
                AfterLoss::Waits => false,
                AfterLoss::RetriesOnce | AfterLoss::Fails
                    if loss == SessionLoss::Ended && may_retry =>
                {
                    request.after_loss = AfterLoss::Fails;
                    retries = true;
                    false
                }
                AfterLoss::RetriesOnce | AfterLoss::Fails => true,
            }
        });
        for request in failed {
            let error = LockError::new(LockErrorKind::Database).with_key(&request.key);
            self.fail_with(
                request,
                error.with_context("the session ended before its reply"),
            );
        }
        retries
    }
}
