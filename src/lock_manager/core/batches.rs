//! Batches: operations that a session executes in one statement, and their replies.
//!
//! # Implementation details
//!
//! Each session has an outbox. After the event that added an operation, or after the reply in
//! flight, the operations of the outbox form the next batch, up to its maximum length. The reply
//! has one answer per operation, in order, and each answer is an event of its key. A reply also
//! acknowledges the releases whose lock was handed off before the batch was sent. Consequence for
//! users: under load a call usually waits for two batches, the one in flight and its own, and one
//! statement serves many keys.

use std::sync::Arc;
use std::time::Instant;

use super::key_state::{KeyEvent, KeyPhase};
use super::session_loss::SessionLoss;
use super::sessions::{Failure, SessionPhase, SessionState};
use super::{Core, SessionCommand, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, SessionError, TokenSource,
};

impl<W> Core<W> {
    /// Adds operations to the outbox of a session; with `alone`, each in a batch of its own.
    pub(super) fn enqueue_ops(&mut self, id: SessionId, ops: &[LockOp], alone: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.outbox.extend(ops.iter().map(|op| (*op, alone)));
        }
    }

    /// Acknowledges a release with the reply to the next batch of the session.
    ///
    /// The lock was handed off and stays on the session. The reply proves that the session was
    /// alive until the hand-off.
    pub(super) fn ack_with_next_batch(&mut self, id: SessionId, releaser: Option<W>) {
        let Some(releaser) = releaser else { return };
        if id == SessionId::IN_PROCESS {
            self.reply(Some(releaser), Ok(()));
        } else if let Some(session) = self.sessions.get_mut(&id) {
            session.pending_acks.push(releaser);
        } else {
            self.reply(Some(releaser), Err(LockErrorKind::Lost));
        }
    }

    /// Sends the next batch of each session that is idle.
    pub(super) fn send_outboxes(&mut self, now: Instant) {
        let has_batch = |session: &SessionState<W>| {
            matches!(session.phase, SessionPhase::Idle) && !session.is_idle()
        };
        // A session is no longer idle after its batch.
        while let Some((id, session)) = self
            .sessions
            .iter_mut()
            .find(|(_, session)| has_batch(session))
        {
            let id = *id;
            let max_len = self.options.max_batch_len;
            let mut candidates = session.outbox.iter().take(max_len);
            let count = match candidates.position(|(_, alone)| *alone) {
                // The first operation is sent alone. Otherwise the batch ends before the first
                // operation that is to be sent alone, because operations keep their order.
                Some(0) => 1,
                Some(position) => position,
                None => session.outbox.len().min(max_len),
            };
            let ops = session.outbox.drain(..count);
            let ops = ops.map(|(op, _)| op).collect();
            let acks = std::mem::take(&mut session.pending_acks);
            self.send_batch(id, ops, acks, now);
        }
    }

    /// Sends an empty batch: the health check.
    pub(super) fn ping(&mut self, id: SessionId, now: Instant) {
        self.send_batch(id, Arc::default(), Vec::new(), now);
    }

    fn send_batch(&mut self, id: SessionId, ops: Arc<[LockOp]>, acks: Vec<W>, now: Instant) {
        // A statement that reads the sequence fails with it, so it is read for tokens only.
        let tokens = if ops.iter().any(LockOp::wants_token) {
            self.options.token_source.clone()
        } else {
            TokenSource::TransactionId
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            let batch = LockBatch::new(BatchMode::Execute, session.pid, Arc::clone(&ops), tokens);
            session.phase = SessionPhase::Executing { ops, acks };
            session.phase_start = now;
            self.counters.batches += 1;
            self.send(id, SessionCommand::RunBatch(batch));
        }
    }

    /// Handles the result of a batch.
    pub(crate) fn on_batch_result(
        &mut self,
        id: SessionId,
        result: Result<BatchReply, SessionError>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let reply = match result {
            Ok(reply) if reply.pid == session.pid => Ok(reply),
            // A pooler sent the batch to another session, which may hold other clients' locks.
            Ok(_) => return self.on_session_lost(id, SessionLoss::Changed, now),
            Err(error) if error.is_disconnected() => {
                return self.on_session_lost(id, SessionLoss::Ended, now);
            }
            Err(error) => Err(Failure::of_batch(&error)),
        };
        session.phase_start = now;
        match (
            std::mem::replace(&mut session.phase, SessionPhase::Idle),
            reply,
        ) {
            (SessionPhase::Executing { ops, acks }, Ok(reply)) => {
                // The reply proves that the session was alive when these locks were handed off.
                for waiter in acks {
                    self.reply(Some(waiter), Ok(()));
                }
                self.on_batch_reply(id, &ops, reply, now);
            }
            (SessionPhase::Executing { ops, acks }, Err(failure)) => {
                // Some client libraries do not show whether the error came from the server. The
                // reply to the compensation shows whether the session lives.
                session.pending_acks.extend(acks);
                self.start_compensation(id, ops, failure, now);
            }
            (SessionPhase::Compensating { ops, failure }, Ok(_)) => {
                self.on_compensated(id, &ops, &failure, now)
            }
            // The compensation failed, or the session had no batch in flight.
            (SessionPhase::Compensating { .. }, Err(_))
            | (
                SessionPhase::Opening | SessionPhase::Idle | SessionPhase::WaitingOnServer { .. },
                _,
            ) => self.on_session_lost(id, SessionLoss::Unreliable, now),
        }
    }

    fn on_batch_reply(&mut self, id: SessionId, ops: &[LockOp], reply: BatchReply, now: Instant) {
        // In another session the statement executes no operation and returns no answers.
        let answers = reply.answers.unwrap_or_default();
        if answers.len() != ops.len() {
            return self.on_session_lost(id, SessionLoss::Changed, now);
        }
        // With a sequence, 0 instead of 1 reports that it may issue numbers out of order.
        let bad_sequence = reply.token == Some(0);
        // In the order of the operations: a release and its reacquire are two answers of one key.
        for (op, answer) in ops.iter().zip(answers) {
            let key = op.key();
            match (op.kind(), answer) {
                (LockOpKind::Acquire { with_token }, Some(number)) => {
                    let token = with_token.then_some(self.token(number, reply.token));
                    self.on_granted(key, id, op.mode(), token, now);
                }
                (LockOpKind::Acquire { with_token: true }, None) if bad_sequence => {
                    self.on_bad_sequence(op, now)
                }
                (LockOpKind::Acquire { .. }, None) => self.on_contended(key, id, op.mode(), now),
                (LockOpKind::Release, answer) => self.on_released(key, answer.is_some(), now),
                (LockOpKind::IssueToken, Some(number)) => {
                    let token = self.token(number, reply.token);
                    self.on_token(key, token, now);
                }
                (LockOpKind::IssueToken, None) => self.on_bad_sequence(op, now),
            }
        }
    }

    /// Returns the fencing token of an operation: its own number from a sequence, else the id of
    /// the transaction.
    fn token(&self, number: i64, transaction: Option<i64>) -> i64 {
        match self.options.token_source {
            TokenSource::Sequence(_) => number,
            TokenSource::TransactionId => transaction.unwrap_or(number),
        }
    }

    /// Handles an issued token for the first waiter that needs one.
    fn on_token(&mut self, key: RawLockKey, token: i64, now: Instant) {
        if let Some(key_state) = self.keys.get_mut(&key) {
            if matches!(key_state.phase(), KeyPhase::IssuingToken { .. }) {
                key_state.apply(KeyEvent::TokenIssued);
                self.grant_waiters(key, Some(token), None, now);
            }
        }
    }
}
