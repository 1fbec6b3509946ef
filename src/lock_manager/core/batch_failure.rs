//! Failure of a batch on a session that lives: compensation and retry.
//!
//! # Implementation details
//!
//! The failed operations stay in the phase of the session, [`SessionPhase::Compensating`], while a
//! second batch releases the locks that the first may have acquired. The keys keep their phases
//! until its reply, so no waiter is woken before the compensation. A compensation that fails is the
//! end of the session. Consequence for users: an error that one key causes fails the waiter of
//! that key only. A full lock table fails every acquire that is on its way.

use std::sync::Arc;
use std::time::Instant;

use super::key_state::{KeyEvent, KeyPhase};
use super::sessions::{Failure, SessionPhase};
use super::{Core, SessionCommand, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::session::{BatchMode, LockBatch, LockOp, LockOpKind, TokenSource};

impl<W> Core<W> {
    /// Handles a sequence that cannot issue fencing tokens: the first waiter fails.
    ///
    /// With a [`CACHE`] greater than 1, sessions may issue numbers out of order.
    ///
    /// [`CACHE`]: https://www.postgresql.org/docs/current/sql-createsequence.html
    pub(super) fn on_bad_sequence(&mut self, op: &LockOp, now: Instant) {
        let failure = Failure {
            kind: LockErrorKind::InvalidOptions,
            message: "fencing tokens need a sequence that counts up, with CACHE 1 and NO CYCLE"
                .to_owned(),
        };
        self.fail_first(op, &failure, now);
    }

    /// Fails the first waiter, for which the operation failed; the key goes on with the next one.
    ///
    /// The waiter that wanted a token may have left the queue since. A failure of the token does
    /// not concern a waiter that wants none.
    fn fail_first(&mut self, op: &LockOp, failure: &Failure, now: Instant) {
        let key = op.key();
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        let first = key_state.queue.front();
        let concerned = first.is_some_and(|first| first.fenced || !op.wants_token());
        let first = concerned.then(|| key_state.queue.pop()).flatten();
        key_state.apply(KeyEvent::NotGranted);
        if let Some(request) = first {
            let error = failure.error(&request.key);
            self.fail_with(request, error);
        }
        match self.keys.get(&key).map(|key_state| key_state.phase()) {
            Some(KeyPhase::Held { .. }) => self.grant_waiters(key, None, None, now),
            Some(KeyPhase::NotHeld) => self.send_acquire(key, now),
            Some(_) | None => {}
        }
    }

    /// Sends a batch that releases what the failed batch may have acquired.
    ///
    /// The error does not say how many operations were executed, and [session-level locks outlive
    /// an error](https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS). A
    /// session acquires a key at most once. So a lock that it shows was acquired by the failed
    /// batch, or was to be released by it.
    pub(super) fn start_compensation(
        &mut self,
        id: SessionId,
        ops: Arc<[LockOp]>,
        failure: Failure,
        now: Instant,
    ) {
        let mut releases: Vec<_> = ops
            .iter()
            .filter(|op| op.kind() != LockOpKind::IssueToken)
            .copied()
            .collect();
        // A release and a reacquire of a key in one mode are adjacent. However far the batch came,
        // the session holds the lock at most once, so one release is enough.
        releases.dedup_by_key(|op| (op.key(), op.mode()));
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        // The sequence may be the cause of the failure, so the compensation does not read it.
        let tokens = TokenSource::TransactionId;
        let batch = LockBatch::new(BatchMode::Compensate, session.pid, releases, tokens);
        session.phase = SessionPhase::Compensating { ops, failure };
        session.phase_start = now;
        self.send(id, SessionCommand::RunBatch(batch));
    }

    /// Handles the end of the compensation.
    ///
    /// If one operation was to acquire or to issue a token, its waiter fails with the error of the
    /// batch. Otherwise each such operation is retried in a batch of its own, to find the one that
    /// fails. After `TooManyLocks` none is retried.
    pub(super) fn on_compensated(
        &mut self,
        id: SessionId,
        ops: &[LockOp],
        failure: &Failure,
        now: Instant,
    ) {
        if failure.kind == LockErrorKind::TooManyLocks {
            return self.on_lock_table_full(ops, failure, now);
        }
        // A release has no waiter that could fail.
        let acquiring = ops.iter().filter(|op| op.kind() != LockOpKind::Release);
        let is_only = acquiring.count() == 1;
        for op in ops {
            let key = op.key();
            match op.kind() {
                // Either the batch or its compensation has released the lock.
                LockOpKind::Release => self.on_released(key, true, now),
                LockOpKind::Acquire { .. } | LockOpKind::IssueToken if is_only => {
                    self.fail_first(op, failure, now);
                }
                LockOpKind::Acquire { .. } => {
                    if let Some(key_state) = self.keys.get_mut(&key) {
                        key_state.apply(KeyEvent::NotGranted);
                        self.send_acquire_with(key, true, now);
                    }
                }
                // The session holds the lock, because `Compensate` releases none that the batch
                // only issued a token for. So the key stays in its phase.
                LockOpKind::IssueToken => self.enqueue_ops(id, &[*op], true),
            }
        }
    }

    /// Handles a full lock table, which all clients of the server share.
    ///
    /// Retries would keep it full, so every operation of the batch fails. So does every acquire
    /// that waits in an outbox: the rest of a call that asks for many keys.
    fn on_lock_table_full(&mut self, ops: &[LockOp], failure: &Failure, now: Instant) {
        let mut unsent = Vec::new();
        for (id, session) in &mut self.sessions {
            session.outbox.retain(|(op, _)| {
                let phase = self.keys.get(&op.key()).map(|key_state| key_state.phase());
                // After a release in the same batch the session acquires no further lock.
                let acquires = phase == Some(KeyPhase::Acquiring { session: *id });
                // Failed below, because each failure needs the whole core.
                unsent.extend(acquires.then_some(op.key()));
                !acquires
            });
        }
        for op in ops {
            match op.kind() {
                LockOpKind::Release => self.on_released(op.key(), true, now),
                LockOpKind::Acquire { .. } => self.fail_all_waiters(op.key(), failure),
                LockOpKind::IssueToken => self.fail_first(op, failure, now),
            }
        }
        for key in unsent {
            self.fail_all_waiters(key, failure);
        }
    }

    /// Fails all waiters of a key whose acquire failed.
    fn fail_all_waiters(&mut self, key: RawLockKey, failure: &Failure) {
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        key_state.apply(KeyEvent::NotGranted);
        for request in key_state.queue.drain() {
            let error = failure.error(&request.key);
            self.fail_with(request, error);
        }
        self.remove_if_unused(key);
    }
}
