//! Taking and releasing a lock, as state machines without I/O.
//!
//! Every decision stands here once: what to send, how long to pause, how to clean up. A [`Machine`] is told what happened and
//! says what to do next; a driver ([`blocking`]) does it. So the same logic serves every adapter, blocking or async, and can be
//! run against a model of the server with a fault at every step and without time passing.

mod acquire;
pub(crate) mod blocking;
mod enter;
mod leave;
mod pauses;
mod probe;
mod release;

use std::time::{Duration, Instant};

pub(crate) use acquire::{Acquire, Acquired};
pub(crate) use enter::Enter;
pub(crate) use leave::{Ending, Leave};
#[cfg(feature = "locker")]
pub(crate) use pauses::Pauses;
pub(crate) use probe::{Probe, Side};
pub(crate) use release::Release;

use crate::key::LockKey;
use crate::options::LockMode;
use crate::session::{Backend, Batch, Row, SessionError, Statement, TransactionState};
use crate::stand_in::{Attempt, Hold, StandIn};

/// What a machine asks its driver to do.
#[derive(Debug)]
pub(crate) enum Step<T> {
    Query(Statement),
    Batch(Batch),
    Begin,
    Commit,
    Rollback,
    Condemn,
    /// Look again what the session is.
    Look,
    Sleep(Duration),
    Done(T),
}

/// What happened since the last step.
#[derive(Debug)]
pub(crate) enum Input {
    /// Nothing yet; or the pause is over, or the connection condemned.
    Ready,
    /// What the session is after a [`Step::Look`].
    Situation(Situation),
    /// The row of a [`Step::Query`].
    Row(Result<Row, SessionError>),
    /// The end of a [`Step::Batch`], [`Step::Begin`], [`Step::Commit`] or [`Step::Rollback`].
    Ran(Result<(), SessionError>),
}

impl Input {
    /// The row that was asked for.
    fn row(self) -> Result<Row, SessionError> {
        match self {
            Self::Row(row) => row,
            Self::Ready | Self::Situation(_) | Self::Ran(_) => Err(SessionError::new(
                "the driver did not bring the row it was asked for",
            )),
        }
    }

    /// Whether what was to be run did run.
    fn ran(self) -> Result<(), SessionError> {
        match self {
            Self::Ran(result) => result,
            Self::Row(row) => row.map(drop),
            Self::Ready | Self::Situation(_) => Err(SessionError::new(
                "the driver did not run what it was asked to",
            )),
        }
    }
}

/// A piece of the protocol: told what happened, says what to do next.
pub(crate) trait Machine {
    type Output;

    /// The next step. First called with [`Input::Ready`]; not called again after [`Step::Done`].
    fn step(&mut self, input: Input, now: Instant) -> Step<Self::Output>;

    /// Whether a session would be left in disorder if the machine went no further, though nothing is in flight.
    #[cfg_attr(
        not(feature = "_async"),
        allow(dead_code, reason = "a blocking call cannot be dropped half-way")
    )]
    fn owes_clean_up(&self) -> bool {
        false
    }

    /// Who answers instead of the session, if somebody does.
    fn attempt(&self) -> Option<&Attempt> {
        None
    }
}

/// Whether the lock belongs to the session or to its transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    Session,
    Transaction,
}

/// What the session is and in which transaction, when a machine begins.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub(crate) backend: Backend,
    pub(crate) transaction: TransactionState,
    /// The longest that a wait may stay on the server at a time; for a session that cannot end one.
    pub(crate) longest_wait: Option<Duration>,
    /// Who answers for the locks of a backend that has none.
    pub(crate) stand_in: Option<StandIn>,
}

#[cfg(test)]
impl Situation {
    /// PostgreSQL, in no transaction.
    pub(crate) const fn idle() -> Self {
        Self {
            backend: Backend::Postgres,
            transaction: TransactionState::none(),
            longest_wait: None,
            stand_in: None,
        }
    }
}

/// Proof that a lock was granted, with what its release needs.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) key: LockKey,
    pub(crate) mode: LockMode,
    /// The session that was granted the lock; `None` where there are no locks.
    pub(crate) pid: Option<i32>,
    /// When the transaction began in which it was granted; `None` if the client knows of that transaction, or has no locks.
    pub(crate) transaction_began: Option<i64>,
    /// How deep in transactions the session was.
    pub(crate) depth: u32,
    /// What a stand-in has given, until it is given back.
    pub(crate) hold: Option<Hold>,
}
