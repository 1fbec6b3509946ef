//! A round of one step, as a statement of its own.

use super::{BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, TokenSource};
use crate::backends::postgres;
use crate::session::Bind;

/// One [`LockOp`] that draws no token, in a prepared statement of its own: what a `BlockingLockManager` asks where nobody else asks anything.
///
/// It does what a [`LockBatch`] of the same step does, for less than half of the server's work.
///
/// # Shape
///
/// Two or three parameters: an `int4`, the [`pid`](Self::pid), and the lock's `int8` or its two `int4`. It returns one row of one column, a
/// nullable `bool`. True: granted, or given back. False: not. Null: another session answered than the one that was meant, and nothing was
/// done.
///
/// # Examples
///
/// ```
/// use advisory_locking::session::{Bind, LockBatch, BatchMode, LockOp, LockOpKind, TokenSource};
/// use advisory_locking::{LockKey, LockMode};
///
/// let take = LockOpKind::Acquire { with_token: false };
/// let step = LockOp::new(take, LockKey::from(42).raw(), LockMode::Exclusive);
/// let round = LockBatch::new(BatchMode::Execute, 7, vec![step], TokenSource::default());
/// let single = round.single().expect("one step, of one session, without a token");
/// assert!(single.binds().eq([Bind::Int4(7), Bind::Int8(42)]));
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SingleOp {
    pid: i32,
    step: LockOp,
}

impl LockBatch {
    /// Its only step, if it draws no token and one session is meant.
    #[must_use]
    pub fn single(&self) -> Option<SingleOp> {
        let (BatchMode::Execute, [step]) = (self.kind, &*self.steps) else {
            return None;
        };
        let draws = matches!(
            step.kind,
            LockOpKind::Acquire { with_token: true } | LockOpKind::IssueToken
        );
        let (pid, step) = (self.pid, *step);
        (pid != 0 && !draws).then_some(SingleOp { pid, step })
    }
}

impl SingleOp {
    /// The session that is meant: any other does nothing.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// What is done, to which lock, in which mode.
    #[must_use]
    pub const fn step(&self) -> LockOp {
        self.step
    }

    /// The text for PostgreSQL. One of a few, so it can be prepared.
    #[must_use]
    pub const fn sql(&self) -> &'static str {
        postgres::single_step(&self.step)
    }

    /// The values, in order.
    pub fn binds(&self) -> impl Iterator<Item = Bind> + use<> {
        postgres::single_step_binds(self.pid, self.step.key)
    }

    /// The round that does the same, for a session that knows no single steps.
    pub(crate) fn to_round(self) -> LockBatch {
        LockBatch::new(
            BatchMode::Execute,
            self.pid,
            [self.step],
            TokenSource::TransactionId,
        )
    }

    /// The answer of that round as this one's.
    pub(crate) fn answer_of(row: BatchReply) -> Option<bool> {
        let answer = row.answers.and_then(|answers| answers.into_iter().next());
        answer.map(|number| number.is_some())
    }

    /// This one's answer as that of the round. Which other session has answered is not known; none has this number.
    #[cfg_attr(
        not(feature = "lock-manager"),
        allow(dead_code, reason = "for a BlockingLockManager")
    )]
    pub(crate) fn row_of(&self, answer: Option<bool>) -> BatchReply {
        BatchReply {
            answers: answer.map(|yes| vec![yes.then_some(1)]),
            token: None,
            pid: answer.map_or(0, |_| self.pid),
        }
    }
}
