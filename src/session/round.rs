//! Many locks at once, for a `BlockingLockManager`: what it asks of a session in one statement.

mod single;

use std::sync::Arc;

use crate::backends::postgres;
use crate::key::RawLockKey;
use crate::options::LockMode;

pub use single::SingleOp;

/// What a [`LockBatch`] does about one lock.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LockOpKind {
    /// Takes the session-level lock if it is free.
    Acquire {
        /// Draws a fencing token if it is granted.
        with_token: bool,
    },
    /// Gives back one level of the session-level lock.
    Release,
    /// Draws a fencing token; the lock is held.
    IssueToken,
}

/// One step of a [`LockBatch`]: what is done, to which lock, in which mode.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LockOp {
    kind: LockOpKind,
    key: RawLockKey,
    mode: LockMode,
}

impl LockOp {
    /// A step. Rounds are made by a `BlockingLockManager`; this is for the tests of an adapter.
    #[must_use]
    pub const fn new(kind: LockOpKind, key: RawLockKey, mode: LockMode) -> Self {
        Self { kind, key, mode }
    }

    /// What is done.
    #[must_use]
    pub const fn kind(&self) -> LockOpKind {
        self.kind
    }

    /// The lock it is about.
    #[must_use]
    pub const fn key(&self) -> RawLockKey {
        self.key
    }

    /// The mode it is about.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }
}

/// Where fencing tokens come from.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum TokenSource {
    /// `pg_current_xact_id()`: needs no DDL; costs a transaction id per round that grants one; not on a standby.
    #[default]
    TransactionId,
    /// A sequence, by its name as `regclass` reads it (`fencing`, `app.fencing`, `"Fencing"`). It must count up without a cache and without
    /// a cycle.
    Sequence(Arc<str>),
}

/// What a [`LockBatch`] is for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BatchMode {
    /// Does its steps in their order. Without steps, it asks whether the session is alive.
    Execute,
    /// Undoes a round that failed and of which nobody knows how far it got: gives back one level of every lock it names that this session
    /// shows, without a warning for the others. Each lock is to be named once.
    Compensate,
}

/// Many locks asked for and given back in one prepared statement.
///
/// # Shape
///
/// Four parameters: an `int4`, the [`pid`](Self::pid); two `int8[]` of the same length, the [`codes`](Self::codes) and the
/// [`numbers`](Self::numbers); and, if the tokens come from a sequence, a `text`, its [name](Self::sequence). It returns one row, a
/// [`BatchReply`].
///
/// # Examples
///
/// ```
/// use advisory_locking::session::{LockBatch, BatchMode, LockOp, LockOpKind, TokenSource};
/// use advisory_locking::{LockKey, LockMode};
///
/// let key = LockKey::from(42).raw();
/// let take = LockOp::new(LockOpKind::Acquire { with_token: false }, key, LockMode::Exclusive);
/// let give_back = LockOp::new(LockOpKind::Release, key, LockMode::Exclusive);
///
/// let round = LockBatch::new(BatchMode::Execute, 0, vec![take, give_back], TokenSource::default());
/// assert_eq!(round.numbers(), [42, 42]);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LockBatch {
    kind: BatchMode,
    pid: i32,
    steps: Arc<[LockOp]>,
    tokens: TokenSource,
}

impl LockBatch {
    /// A round. They are made by a `BlockingLockManager`; this is for the tests of an adapter.
    #[must_use]
    pub fn new(
        kind: BatchMode,
        pid: i32,
        steps: impl Into<Arc<[LockOp]>>,
        tokens: TokenSource,
    ) -> Self {
        Self {
            kind,
            pid,
            steps: steps.into(),
            tokens,
        }
    }

    /// What it is for.
    #[must_use]
    pub const fn mode(&self) -> BatchMode {
        self.kind
    }

    /// The session that is meant: any other does nothing. 0 is whichever answers.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// What it does, in order.
    #[must_use]
    pub fn ops(&self) -> &[LockOp] {
        &self.steps
    }

    /// Where its tokens come from.
    #[must_use]
    pub const fn tokens(&self) -> &TokenSource {
        &self.tokens
    }

    /// The text for PostgreSQL. One of a few, so it can be prepared.
    #[must_use]
    pub fn sql(&self) -> &'static str {
        postgres::round(self.kind, &self.tokens)
    }

    /// The second parameter: what each step does, as the text reads it.
    #[must_use]
    pub fn codes(&self) -> Vec<i64> {
        self.steps.iter().map(postgres::step_code).collect()
    }

    /// The third parameter: the lock of each step.
    #[must_use]
    pub fn numbers(&self) -> Vec<i64> {
        self.steps.iter().map(postgres::step_number).collect()
    }

    /// The fourth parameter, if there is one: the sequence that tokens are drawn from.
    #[must_use]
    pub fn sequence(&self) -> Option<&str> {
        postgres::round_sequence(self.kind, &self.tokens)
    }
}

/// What a [`LockBatch`] answers.
#[expect(
    clippy::exhaustive_structs,
    reason = "adapters build it from the three columns"
)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BatchReply {
    /// An answer for each step, in order. `None` as a whole: another session answered than the one that was meant, and nothing was done; or
    /// there was no step.
    ///
    /// Of a step, `None` is no: not granted, not given back. A number is yes; it is the fencing token if that comes from a sequence.
    pub answers: Option<Vec<Option<i64>>>,
    /// The fencing token of every step that draws one, if it is the transaction's id. If they come from a sequence: 1 if it is one that only
    /// grows; otherwise 0, and no lock was taken that wanted a token.
    pub token: Option<i64>,
    /// The process id of the session that answered.
    pub pid: i32,
}

#[cfg(test)]
mod tests;
