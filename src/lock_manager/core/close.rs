//! The end of a locker.

use std::time::Instant;

use super::key_state::KeyPhase;
use super::{Command, Core, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;

impl<W> Core<W> {
    /// Nobody is let in any more; those who wait are told. When the last lock is given back and the last session is gone, `waiter` is told.
    pub(crate) fn close(&mut self, waiter: W, _now: Instant) {
        self.fail_all();
        self.closing.get_or_insert_default().push(waiter);
        self.finish_closing();
    }

    /// Nobody is left who could ask: every lock is given back, and those who grant one have lost it.
    pub(crate) fn shut_down(&mut self, now: Instant) {
        self.fail_all();
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions.into_iter().chain([SessionId::IN_PROCESS]) {
            self.commands.push(Command::SessionLost { session });
        }
        for key in self.keys_in_use() {
            if let Some(key_state) = self.keys.get_mut(&key) {
                key_state.holders.clear();
                if matches!(key_state.phase, KeyPhase::Held { .. }) {
                    self.grant_waiters(key, None, None, now);
                }
            }
        }
        self.finish_closing();
    }

    fn keys_in_use(&self) -> Vec<RawLockKey> {
        self.keys.keys().copied().collect()
    }

    fn fail_all(&mut self) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(Vec::new());
        for key in self.keys_in_use() {
            let Some(key_state) = self.keys.get_mut(&key) else {
                continue;
            };
            if let KeyPhase::WaitingOnServer { session, .. } = key_state.phase {
                key_state.phase = KeyPhase::NotHeld;
                self.terminate_session(session);
            }
            self.fail_waiters(key, LockErrorKind::Closed);
            self.cancel_poll(key);
            self.remove_if_unused(key);
        }
    }

    /// Everybody who waits for a key is told the same.
    pub(super) fn fail_waiters(&mut self, key: RawLockKey, kind: LockErrorKind) {
        let waiting = self
            .keys
            .get_mut(&key)
            .map(|key_state| key_state.queue.drain());
        for request in waiting.into_iter().flatten() {
            self.fail(request, kind);
        }
    }

    /// Whether it is closed and nothing is left.
    pub(crate) fn is_finished(&self) -> bool {
        self.closing.is_some()
            && self.keys.is_empty()
            && self.sessions.is_empty()
            && self.ending_sessions.is_empty()
    }

    /// The session is gone.
    pub(crate) fn on_session_closed(&mut self, id: SessionId) {
        self.ending_sessions.remove(&id);
        self.finish_closing();
    }

    /// With no key in use the sessions are given back, and with no session left the locker is closed.
    pub(super) fn finish_closing(&mut self) {
        if self.closing.is_none() || !self.keys.is_empty() {
            return;
        }
        let idle: Vec<_> = self
            .sessions
            .iter()
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
