//! Copy of the state for operators: [`Core::snapshot`].
//!
//! # Implementation details
//!
//! It reads the trees of keys and sessions and changes nothing, so it wakes no waiter. Its cost
//! grows with the number of keys and sessions. The driver calls it under the mutex of the core.
//! Consequence for users: the figures of one snapshot belong together.

use std::time::Instant;

use super::key_state::{KeyPhase, KeyState};
use super::sessions::{SessionPhase, SessionState};
use super::{Core, SessionId};
use crate::lock_manager::snapshot::{
    KeySnapshot, LockManagerSnapshot, ManagedSession, ManagedSessionState,
};

/// Numbers of events since the lock manager was created.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) batches: u64,
    pub(super) hand_offs: u64,
    pub(super) lost_sessions: u64,
}

impl<W> Core<W> {
    /// Returns a copy of the state.
    pub(crate) fn snapshot(&self, now: Instant) -> LockManagerSnapshot {
        let keys = self.keys.values();
        let sessions = self.sessions.iter();
        LockManagerSnapshot {
            keys: keys.map(|key| key.snapshot(now)).collect(),
            sessions: sessions
                .map(|(id, session)| session.snapshot(*id, self.keys_of(*id).len()))
                .collect(),
            is_closed: self.closing.is_some(),
            batches: self.counters.batches,
            hand_offs: self.counters.hand_offs,
            lost_sessions: self.counters.lost_sessions,
        }
    }
}

impl<W> KeyState<W> {
    fn snapshot(&self, now: Instant) -> KeySnapshot {
        let elapsed = |since: Instant| now.saturating_duration_since(since);
        let mode = match self.phase() {
            KeyPhase::Held { mode, .. } | KeyPhase::IssuingToken { mode, .. } => Some(mode),
            KeyPhase::NotHeld
            | KeyPhase::Acquiring { .. }
            | KeyPhase::WaitingOnServer { .. }
            | KeyPhase::Releasing { .. } => None,
        };
        let is_held = !self.holders.is_empty();
        KeySnapshot {
            key: self.name.clone(),
            mode,
            holders: self.holders.len(),
            waiters: self.queue.len(),
            held_for: self.last_grant.filter(|_| is_held).map(elapsed),
            longest_wait: self.queue.front().map(|next| elapsed(next.since)),
            generation: self.phase().session().map(SessionId::generation),
        }
    }
}

impl<W> SessionState<W> {
    fn snapshot(&self, id: SessionId, keys: usize) -> ManagedSession {
        ManagedSession {
            generation: id.generation(),
            pid: (!self.is_opening()).then_some(self.pid),
            state: match self.phase {
                SessionPhase::Opening => ManagedSessionState::Opening,
                SessionPhase::Idle => ManagedSessionState::Idle,
                SessionPhase::Executing { .. } | SessionPhase::Compensating { .. } => {
                    ManagedSessionState::Executing
                }
                SessionPhase::WaitingOnServer { .. } => ManagedSessionState::WaitingOnServer,
            },
            dedicated_to: self.dedicated_key,
            keys,
            outbox: self.outbox.len(),
        }
    }
}
