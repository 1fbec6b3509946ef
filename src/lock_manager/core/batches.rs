//! What is sent to a session and what its answers mean.

use std::sync::Arc;
use std::time::Instant;

use super::key_state::KeyPhase;
use super::sessions::{Failure, SessionPhase};
use super::{Command, Core, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, SessionError, TokenSource,
};

impl<W> Core<W> {
    /// Adds ops to what is asked next on a session; `alone`, each in a round of its own.
    pub(super) fn enqueue_ops(&mut self, id: SessionId, ops: &[LockOp], alone: bool, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outbox.extend(ops.iter().map(|op| (*op, alone)));
            self.flush(id, now);
        }
    }

    /// As [`ack_after_next_reply`](Self::ack_after_next_reply), with a round that is about to be asked for.
    pub(super) fn ack_with_next_batch(&mut self, id: SessionId, releaser: Option<W>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.pending_acks.extend(releaser);
        }
    }

    /// Tells a releaser after the next answer that the session was alive until then: what it gave back is still held, for another.
    pub(super) fn ack_after_next_reply(
        &mut self,
        id: SessionId,
        releaser: Option<W>,
        now: Instant,
    ) {
        let Some(releaser) = releaser else { return };
        if id == SessionId::IN_PROCESS {
            self.reply(Some(releaser), Ok(()));
        } else if let Some(session) = self.sessions.get_mut(&id) {
            session.pending_acks.push(releaser);
            self.flush(id, now);
        } else {
            self.reply(Some(releaser), Err(LockErrorKind::Lost));
        }
    }

    /// What is asked and given back meanwhile goes together.
    pub(crate) fn batched<T>(&mut self, now: Instant, act: impl FnOnce(&mut Self) -> T) -> T {
        self.batching = true;
        let value = act(self);
        self.batching = false;
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.flush(session, now);
        }
        value
    }

    /// Sends what there is to send, if the session is idle.
    pub(super) fn flush(&mut self, id: SessionId, now: Instant) {
        let most = self.settings.max_batch_len;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let idle = matches!(session.phase, SessionPhase::Idle) && !self.batching;
        if !idle || (session.outbox.is_empty() && session.pending_acks.is_empty()) {
            return;
        }
        let mut ahead = session.outbox.iter().take(most);
        let count = match ahead.position(|(_, alone)| *alone) {
            Some(0) => 1,
            Some(place) => place,
            None => session.outbox.len().min(most),
        };
        let ops = session.outbox.drain(..count);
        let ops = ops.map(|(op, _)| op).collect();
        let acks = std::mem::take(&mut session.pending_acks);
        self.send_batch(id, ops, acks, now);
    }

    /// Asks whether the session is alive.
    pub(super) fn ping(&mut self, id: SessionId, now: Instant) {
        self.send_batch(id, Arc::default(), Vec::new(), now);
    }

    fn send_batch(&mut self, id: SessionId, ops: Arc<[LockOp]>, acks: Vec<W>, now: Instant) {
        // What asks the sequence fails with it, so it is asked for tokens only.
        let draws = |op: &LockOp| {
            matches!(
                op.kind(),
                LockOpKind::IssueToken | LockOpKind::Acquire { with_token: true }
            )
        };
        let tokens = if ops.iter().any(draws) {
            self.settings.token_source.clone()
        } else {
            TokenSource::TransactionId
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            let batch = LockBatch::new(BatchMode::Execute, session.pid, Arc::clone(&ops), tokens);
            session.phase = SessionPhase::Executing { ops, acks };
            session.phase_start = now;
            self.commands.push(Command::RunBatch { session: id, batch });
        }
    }

    /// A round was answered.
    pub(crate) fn on_batch_result(
        &mut self,
        id: SessionId,
        answer: Result<BatchReply, SessionError>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let reply = match answer {
            Ok(reply) if reply.pid == session.pid => Ok(reply),
            Ok(_) => return self.on_session_lost(id, LockErrorKind::SessionChanged, now),
            Err(error) if error.is_disconnected() => {
                return self.on_session_lost(id, LockErrorKind::Lost, now);
            }
            Err(error) => Err(Failure::of(&error)),
        };
        session.phase_start = now;
        match (
            std::mem::replace(&mut session.phase, SessionPhase::ProcessingReply),
            reply,
        ) {
            (SessionPhase::Executing { ops, acks }, Ok(reply)) => {
                for waiter in acks {
                    self.reply(Some(waiter), Ok(()));
                }
                self.on_batch_reply(id, &ops, reply, now);
            }
            (SessionPhase::Executing { ops, acks }, Err(failure)) => {
                // Some clients do not show whether the server has said so: the next answer tells whether the session lives.
                session.pending_acks.extend(acks);
                self.start_compensation(id, ops, failure, now);
            }
            (SessionPhase::Compensating { ops, error }, Ok(_)) => {
                self.on_compensated(id, &ops, &error, now)
            }
            (SessionPhase::Compensating { .. }, Err(_)) => {
                return self.on_session_lost(id, LockErrorKind::Lost, now);
            }
            // Nothing was asked.
            (
                SessionPhase::Opening
                | SessionPhase::Idle
                | SessionPhase::ProcessingReply
                | SessionPhase::WaitingOnServer { .. },
                _,
            ) => {
                return self.on_session_lost(id, LockErrorKind::Lost, now);
            }
        }
        self.on_idle(id, now);
    }

    /// A session has nothing in flight: it sends what has gathered, or is given back if it was for one key that is gone.
    pub(super) fn on_idle(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if !matches!(session.phase, SessionPhase::ProcessingReply) {
            return;
        }
        session.phase = SessionPhase::Idle;
        let unused = session.dedicated_key.is_some_and(|key| {
            let phase = self.keys.get(&key).map(|key_state| &key_state.phase);
            phase.and_then(KeyPhase::session) != Some(id)
        });
        if unused && session.outbox.is_empty() && session.pending_acks.is_empty() {
            self.close_session(id);
        } else {
            self.flush(id, now);
        }
        self.finish_closing();
    }

    fn on_batch_reply(&mut self, id: SessionId, ops: &[LockOp], reply: BatchReply, now: Instant) {
        let answers = reply.answers.unwrap_or_default();
        if answers.len() != ops.len() {
            return self.on_session_lost(id, LockErrorKind::SessionChanged, now);
        }
        let unfit = reply.token == Some(0);
        for (op, answer) in ops.iter().zip(answers) {
            let key = op.key();
            match (op.kind(), answer) {
                (LockOpKind::Acquire { with_token }, Some(number)) => {
                    let token = with_token.then_some(self.token(number, reply.token));
                    self.on_granted(key, id, op.mode(), token, now);
                }
                (LockOpKind::Acquire { with_token: true }, None) if unfit => {
                    self.on_bad_sequence(key, now)
                }
                (LockOpKind::Acquire { .. }, None) => self.on_contended(key, id, op.mode(), now),
                (LockOpKind::Release, answer) => self.on_released(key, answer.is_some(), now),
                (LockOpKind::IssueToken, Some(number)) => {
                    let token = self.token(number, reply.token);
                    self.on_token(key, Some(token), now);
                }
                (LockOpKind::IssueToken, None) => self.on_bad_sequence(key, now),
            }
        }
    }

    /// The token of a op: the number it answered, from a sequence; else the transaction's id.
    fn token(&self, number: i64, transaction: Option<i64>) -> i64 {
        match self.settings.token_source {
            TokenSource::Sequence(_) => number,
            TokenSource::TransactionId => transaction.unwrap_or(number),
        }
    }

    /// The token is there for the first in the queue who wants one.
    fn on_token(&mut self, key: RawLockKey, token: Option<i64>, now: Instant) {
        if let Some(key_state) = self.keys.get_mut(&key) {
            if let KeyPhase::IssuingToken { session, mode } = key_state.phase {
                key_state.phase = KeyPhase::Held { session, mode };
                self.grant_waiters(key, token, None, now);
            }
        }
    }
}
