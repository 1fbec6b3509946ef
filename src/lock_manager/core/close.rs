//! End of a lock manager.
//!
//! # Implementation details
//!
//! Closing fails all waiters at once and keeps the holders. After every event,
//! [`Core::take_commands`] calls [`Core::finish_closing`]. As soon as no key is in use, it closes
//! the idle sessions. As soon as no session is left, it responds to the closers. Consequence for
//! users: after `close` has returned, every connection is back in its pool, or its session was told
//! to terminate.

use std::time::Instant;

use super::key_state::{KeyEvent, KeyPhase};
use super::{Command, Core, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;

impl<W> Core<W> {
    /// Rejects all waiters and all later requests.
    ///
    /// Responds to `waiter` when the last lock is released and the last session has ended. Over a
    /// blocking pool, the driver reports a terminated session as ended at once.
    pub(crate) fn close(&mut self, waiter: W) {
        self.fail_all();
        self.closing.get_or_insert_default().push(waiter);
    }

    /// Closes the lock manager when its pool is closed, which waits for the connections.
    pub(crate) fn on_pool_closed(&mut self) {
        self.fail_all();
    }

    /// Ends the lock manager when no caller is left: the holders lose their locks, and all locks
    /// are released.
    pub(crate) fn shut_down(&mut self, now: Instant) {
        self.fail_all();
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        // Locks that exclude this process only are lost as well.
        for session in sessions.into_iter().chain([SessionId::IN_PROCESS]) {
            self.commands.push(Command::SessionLost { session });
        }
        // Without holders and waiters, a held key is released. Guards that still exist report a
        // loss.
        for key in self.keys_in_use() {
            if let Some(key_state) = self.keys.get_mut(&key) {
                key_state.holders.clear();
                if matches!(key_state.phase(), KeyPhase::Held { .. }) {
                    self.grant_waiters(key, None, None, now);
                }
            }
        }
    }

    fn keys_in_use(&self) -> Vec<RawLockKey> {
        self.keys.keys().copied().collect()
    }

    fn fail_all(&mut self) {
        // `shut_down` may follow `close`, whose waiting callers must stay recorded.
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(Vec::new());
        // The pool may not return a connection for a long time, and nothing was sent.
        let sessions = self.sessions.iter();
        let opening = sessions.filter(|(_, session)| session.is_opening());
        for id in opening.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.terminate_session(id);
            for key in self.keys_of(id) {
                if let Some(key_state) = self.keys.get_mut(&key) {
                    key_state.apply(KeyEvent::SessionLost);
                }
            }
        }
        for key in self.keys_in_use() {
            let Some(key_state) = self.keys.get_mut(&key) else {
                continue;
            };
            // Keys in other phases go on until their reply, which may be a grant to release.
            if let KeyPhase::WaitingOnServer { session, .. } = key_state.phase() {
                key_state.apply(KeyEvent::NotGranted);
                self.terminate_session(session);
            }
            self.fail_waiters(key, LockErrorKind::Closed);
            self.cancel_poll(key);
            self.remove_if_unused(key);
        }
    }

    /// Fails all waiters of a key.
    pub(super) fn fail_waiters(&mut self, key: RawLockKey, kind: LockErrorKind) {
        let waiting = self
            .keys
            .get_mut(&key)
            .map(|key_state| key_state.queue.drain());
        for request in waiting.into_iter().flatten() {
            self.fail(request, kind);
        }
    }

    /// Returns whether the lock manager is closed and nothing is left.
    pub(crate) fn is_finished(&self) -> bool {
        self.closing.is_some()
            && self.keys.is_empty()
            && self.sessions.is_empty()
            && self.ending_sessions.is_empty()
    }

    /// Closes the idle sessions if no key is in use, and responds to [`Core::close`] if no session
    /// is left.
    pub(super) fn finish_closing(&mut self) {
        if self.closing.is_none() || !self.keys.is_empty() {
            return;
        }
        let idle: Vec<_> = self
            .sessions
            .iter()
            // A session with a statement in flight comes here again after its reply.
            .filter(|(_, session)| session.is_idle())
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.close_session(id);
        }
        if self.sessions.is_empty() && self.ending_sessions.is_empty() {
            for waiter in self.closing.iter_mut().flat_map(std::mem::take) {
                self.commands.push(Command::Closed { waiter });
            }
        }
    }
}
