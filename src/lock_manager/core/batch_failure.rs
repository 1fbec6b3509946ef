//! What becomes of a round that failed on a session that lives.

use std::sync::Arc;
use std::time::Instant;

use super::key_state::KeyPhase;
use super::sessions::{Failure, SessionPhase};
use super::{Command, Core, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::session::{BatchMode, LockBatch, LockOp, LockOpKind, TokenSource};

impl<W> Core<W> {
    /// Tokens cannot be drawn from that sequence: whoever is first is told.
    pub(super) fn on_bad_sequence(&mut self, key: RawLockKey, now: Instant) {
        let failure = Failure {
            kind: LockErrorKind::InvalidOptions,
            why: "fencing tokens need a sequence that counts up, with CACHE 1 and NO CYCLE"
                .to_owned(),
        };
        self.fail_first(key, &failure, now);
    }

    /// The first in the queue is told of an error, and the key goes on without it.
    fn fail_first(&mut self, key: RawLockKey, failure: &Failure, now: Instant) {
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        key_state.retry_alone = false;
        let first = key_state.queue.pop();
        match key_state.phase {
            KeyPhase::Acquiring { .. } => key_state.phase = KeyPhase::NotHeld,
            KeyPhase::IssuingToken { session, mode } => {
                key_state.phase = KeyPhase::Held { session, mode }
            }
            KeyPhase::NotHeld
            | KeyPhase::WaitingOnServer { .. }
            | KeyPhase::Held { .. }
            | KeyPhase::Releasing { .. } => {}
        }
        if let Some(request) = first {
            let error = LockError::new(failure.kind).with_key(&request.key);
            let error = error.with_context(failure.why.clone());
            self.fail_with(request, error);
        }
        match self.keys.get(&key).map(|key_state| &key_state.phase) {
            Some(KeyPhase::Held { .. }) => self.grant_waiters(key, None, None, now),
            Some(KeyPhase::NotHeld) => self.send_acquire(key, now),
            Some(_) | None => {}
        }
    }

    /// A round failed on a session that lives, and nobody knows how far it got. SessionState-level locks outlive an error, so what it took is
    /// given back. No lock is taken twice on a session, so whatever is shown there is of this batch, or was to be given back.
    pub(super) fn start_compensation(
        &mut self,
        id: SessionId,
        ops: Arc<[LockOp]>,
        error: Failure,
        now: Instant,
    ) {
        let mut undone: Vec<_> = ops
            .iter()
            .filter(|op| op.kind() != LockOpKind::IssueToken)
            .copied()
            .collect();
        // A lock that was given back and taken again, one after the other, is given back once.
        undone.dedup_by_key(|op| (op.key(), op.mode()));
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let tokens = TokenSource::TransactionId;
        let batch = LockBatch::new(BatchMode::Compensate, session.pid, undone, tokens);
        session.phase = SessionPhase::Compensating { ops, error };
        session.phase_start = now;
        self.commands.push(Command::RunBatch { session: id, batch });
    }

    /// A failed round is undone. If it was of one op, whoever it was for is told; else each is asked again in a round of its own.
    pub(super) fn on_compensated(
        &mut self,
        id: SessionId,
        ops: &[LockOp],
        failure: &Failure,
        now: Instant,
    ) {
        let asked = ops.iter().filter(|op| op.kind() != LockOpKind::Release);
        let alone = asked.count() == 1;
        for op in ops {
            let key = op.key();
            match op.kind() {
                LockOpKind::Release => self.on_released(key, true, now),
                LockOpKind::Acquire { .. } | LockOpKind::IssueToken if alone => {
                    self.fail_first(key, failure, now);
                }
                LockOpKind::Acquire { .. } => {
                    if let Some(key_state) = self.keys.get_mut(&key) {
                        key_state.phase = KeyPhase::NotHeld;
                        key_state.retry_alone = true;
                        self.send_acquire(key, now);
                    }
                }
                LockOpKind::IssueToken => self.enqueue_ops(id, &[*op], true, now),
            }
        }
    }
}
