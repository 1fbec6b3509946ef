//! Taking and releasing a lock, as state machines without I/O.
//!
//! Every decision stands here once: what to send, how long to pause, how to clean up. A [`Machine`] is told what happened and
//! says what to do next; a driver ([`blocking`]) does it. So the same logic serves every adapter, blocking or async, and can be
//! run against a model of the server with a fault at every step and without time passing.

mod acquire;
mod backoff;
mod begin;
mod finish;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod pooler_check;
mod release;

use std::time::{Duration, Instant};

pub(crate) use acquire::{Acquire, Acquired};
#[cfg(feature = "lock-manager")]
pub(crate) use backoff::Backoff;
pub(crate) use begin::BeginAndAcquire;
pub(crate) use finish::{BodyOutcome, FinishTransaction};
pub(crate) use pooler_check::{PoolerCheck, Side};
pub(crate) use release::Release;

use crate::key::LockKey;
use crate::options::LockMode;
use crate::session::{Backend, LockReply, Script, SessionError, Statement, TransactionState};
use crate::stand_in::{Attempt, Hold, StandIn};

/// What a machine asks its driver to do.
#[derive(Debug)]
pub(crate) enum Action<T> {
    Query(Statement),
    Script(Script),
    Begin,
    Commit,
    Rollback,
    Terminate,
    /// Look again what the session is.
    ReadSessionState,
    Sleep(Duration),
    Done(T),
}

/// What happened since the last step.
#[derive(Debug)]
pub(crate) enum Event {
    /// Nothing yet; or the pause is over, or the connection condemned.
    Ready,
    /// What the session is after a [`Action::ReadSessionState`].
    SessionState(SessionSnapshot),
    /// The row of a [`Action::Query`].
    Row(Result<LockReply, SessionError>),
    /// The end of a [`Action::Script`], [`Action::Begin`], [`Action::Commit`] or [`Action::Rollback`].
    Ran(Result<(), SessionError>),
}

impl Event {
    /// The row that was asked for.
    fn row(self) -> Result<LockReply, SessionError> {
        match self {
            Self::Row(row) => row,
            Self::Ready | Self::SessionState(_) | Self::Ran(_) => Err(SessionError::new(
                "the driver did not bring the row it was asked for",
            )),
        }
    }

    /// Whether what was to be run did run.
    fn ran(self) -> Result<(), SessionError> {
        match self {
            Self::Ran(result) => result,
            Self::Row(row) => row.map(drop),
            Self::Ready | Self::SessionState(_) => Err(SessionError::new(
                "the driver did not run what it was asked to",
            )),
        }
    }
}

/// A piece of the protocol: told what happened, says what to do next.
pub(crate) trait Machine {
    type Output;

    /// The next step. First called with [`Event::Ready`]; not called again after [`Action::Done`].
    fn handle(&mut self, event: Event, now: Instant) -> Action<Self::Output>;

    /// Whether a session would be left in disorder if the machine went no further, though nothing is in flight.
    #[cfg_attr(
        not(feature = "_async"),
        allow(dead_code, reason = "a blocking call cannot be dropped half-way")
    )]
    fn needs_cleanup_if_dropped(&self) -> bool {
        false
    }

    /// Who answers instead of the session, if somebody does.
    fn attempt(&self) -> Option<&Attempt> {
        None
    }
}

/// What the session is and in which transaction, when a machine begins.
#[derive(Clone, Debug)]
pub(crate) struct SessionSnapshot {
    pub(crate) backend: Backend,
    pub(crate) transaction: TransactionState,
    /// The longest that a wait may stay on the server at a time; for a session that cannot end one.
    pub(crate) max_server_wait: Option<Duration>,
    /// Who answers for the locks of a backend that has none.
    pub(crate) stand_in: Option<StandIn>,
}

#[cfg(test)]
impl SessionSnapshot {
    /// PostgreSQL, in no transaction.
    pub(crate) const fn idle() -> Self {
        Self {
            backend: Backend::Postgres,
            transaction: TransactionState::none(),
            max_server_wait: None,
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
