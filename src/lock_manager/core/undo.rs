//! What becomes of a round that failed on a session that lives.

use std::sync::Arc;
use std::time::Instant;

use super::entry::Stage;
use super::sessions::{Failure, State};
use super::{Command, Core, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::session::{BatchMode, LockBatch, LockOp, LockOpKind, TokenSource};

impl<W> Core<W> {
    /// Tokens cannot be drawn from that sequence: whoever is first is told.
    pub(super) fn unfit(&mut self, key: RawLockKey, now: Instant) {
        let failure = Failure {
            kind: LockErrorKind::InvalidOptions,
            why: "fencing tokens need a sequence that counts up, with CACHE 1 and NO CYCLE"
                .to_owned(),
        };
        self.fail_first(key, &failure, now);
    }

    /// The first in the queue is told of an error, and the key goes on without it.
    fn fail_first(&mut self, key: RawLockKey, failure: &Failure, now: Instant) {
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        entry.alone = false;
        let first = entry.line.pop();
        match entry.stage {
            Stage::Asking { .. } => entry.stage = Stage::Away,
            Stage::Drawing { session, mode } => entry.stage = Stage::Held { session, mode },
            Stage::Away | Stage::Waiting { .. } | Stage::Held { .. } | Stage::Leaving { .. } => {}
        }
        if let Some(request) = first {
            let error = LockError::new(failure.kind).with_key(&request.key);
            let error = error.with_context(failure.why.clone());
            self.refuse_with(request, error);
        }
        match self.keys.get(&key).map(|entry| &entry.stage) {
            Some(Stage::Held { .. }) => self.settle(key, None, None, now),
            Some(Stage::Away) => self.ask(key, now),
            Some(_) | None => {}
        }
    }

    /// A round failed on a session that lives, and nobody knows how far it got. Session-level locks outlive an error, so what it took is
    /// given back. No lock is taken twice on a session, so whatever is shown there is of this round, or was to be given back.
    pub(super) fn undo(
        &mut self,
        id: SessionId,
        steps: Arc<[LockOp]>,
        error: Failure,
        now: Instant,
    ) {
        let mut undone: Vec<_> = steps
            .iter()
            .filter(|step| step.kind() != LockOpKind::IssueToken)
            .copied()
            .collect();
        // A lock that was given back and taken again, one after the other, is given back once.
        undone.dedup_by_key(|step| (step.key(), step.mode()));
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let tokens = TokenSource::TransactionId;
        let round = LockBatch::new(BatchMode::Compensate, session.pid, undone, tokens);
        session.state = State::Undoing { steps, error };
        session.since = now;
        self.commands.push(Command::Send { session: id, round });
    }

    /// A failed round is undone. If it was of one step, whoever it was for is told; else each is asked again in a round of its own.
    pub(super) fn undone(
        &mut self,
        id: SessionId,
        steps: &[LockOp],
        failure: &Failure,
        now: Instant,
    ) {
        let asked = steps
            .iter()
            .filter(|step| step.kind() != LockOpKind::Release);
        let alone = asked.count() == 1;
        for step in steps {
            let key = step.key();
            match step.kind() {
                LockOpKind::Release => self.left(key, true, now),
                LockOpKind::Acquire { .. } | LockOpKind::IssueToken if alone => {
                    self.fail_first(key, failure, now);
                }
                LockOpKind::Acquire { .. } => {
                    if let Some(entry) = self.keys.get_mut(&key) {
                        entry.stage = Stage::Away;
                        entry.alone = true;
                        self.ask(key, now);
                    }
                }
                LockOpKind::IssueToken => self.push(id, &[*step], true, now),
            }
        }
    }
}
