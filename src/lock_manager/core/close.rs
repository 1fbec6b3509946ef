//! The end of a locker.

use std::time::Instant;

use super::entry::Stage;
use super::{Command, Core, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;

impl<W> Core<W> {
    /// Nobody is let in any more; those who wait are told. When the last lock is given back and the last session is gone, `waiter` is told.
    pub(crate) fn close(&mut self, waiter: W, _now: Instant) {
        self.refuse_everybody();
        self.closing.get_or_insert_default().push(waiter);
        self.finish_closing();
    }

    /// Nobody is left who could ask: every lock is given back, and those who hold one have lost it.
    pub(crate) fn shut_down(&mut self, now: Instant) {
        self.refuse_everybody();
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions.into_iter().chain([SessionId::PROCESS]) {
            self.commands.push(Command::Lost { session });
        }
        for key in self.keys_in_use() {
            if let Some(entry) = self.keys.get_mut(&key) {
                entry.holders.clear();
                if matches!(entry.stage, Stage::Held { .. }) {
                    self.settle(key, None, None, now);
                }
            }
        }
        self.finish_closing();
    }

    fn keys_in_use(&self) -> Vec<RawLockKey> {
        self.keys.keys().copied().collect()
    }

    fn refuse_everybody(&mut self) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(Vec::new());
        for key in self.keys_in_use() {
            let Some(entry) = self.keys.get_mut(&key) else {
                continue;
            };
            if let Stage::Waiting { session, .. } = entry.stage {
                entry.stage = Stage::Away;
                self.abandon(session);
            }
            self.refuse_all(key, LockErrorKind::Closed);
            self.not_due(key);
            self.forget_if_idle(key);
        }
    }

    /// Everybody who waits for a key is told the same.
    pub(super) fn refuse_all(&mut self, key: RawLockKey, kind: LockErrorKind) {
        let waiting = self.keys.get_mut(&key).map(|entry| entry.line.take());
        for request in waiting.into_iter().flatten() {
            self.refuse(request, kind);
        }
    }

    /// Whether it is closed and nothing is left.
    pub(crate) fn is_over(&self) -> bool {
        self.closing.is_some()
            && self.keys.is_empty()
            && self.sessions.is_empty()
            && self.leaving.is_empty()
    }

    /// The session is gone.
    pub(crate) fn closed(&mut self, id: SessionId) {
        self.leaving.remove(&id);
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
        if self.sessions.is_empty() && self.leaving.is_empty() {
            for waiter in self.closing.iter_mut().flat_map(std::mem::take) {
                self.commands.push(Command::Closed { waiter });
            }
        }
    }
}
