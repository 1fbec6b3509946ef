//! Locking protocol: acquire, release and transactions as state machines without I/O.
//!
//! # Implementation details
//!
//! A [`Machine`] is a sans-I/O state machine. It handles an [`Event`] and returns the next
//! [`Action`], which a driver performs on a session. The machines contain every decision:
//! statements, pauses and clean-up. So the same logic serves blocking and async adapters. Tests run
//! it against a model of the server, with a fault at each statement and without waiting.
//!
//! | machine | purpose |
//! |---|---|
//! | [`Acquire`] | acquires a session-level or transaction-level lock |
//! | [`Release`] | releases one level of a session-level lock |
//! | [`BeginAndAcquire`] | begins a transaction and acquires a transaction-level lock |
//! | [`FinishTransaction`] | commits or rolls back that transaction |
//! | [`PoolerCheck`] | detects a transaction pooler between two connections |

mod acquire;
mod backoff;
mod begin;
mod finish;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzzer looks for panics"
)]
pub(crate) mod fuzz;
mod pooler_check;
mod release;

use std::time::{Duration, Instant};

pub(crate) use acquire::Acquire;
#[cfg(feature = "lock-manager")]
pub(crate) use backoff::Backoff;
pub(crate) use begin::BeginAndAcquire;
pub(crate) use finish::FinishTransaction;
pub(crate) use pooler_check::{PoolerCheck, Side};
pub(crate) use release::Release;

use crate::events::{GrantRecord, LockSpan};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::session::{Backend, LockReply, Script, SessionError, Statement, TransactionState};

/// Action that a driver performs for a machine.
#[derive(Debug)]
pub(crate) enum Action<T> {
    /// Runs a prepared statement; the event is [`Event::Row`].
    Query(Statement),
    /// Runs a script; the event is [`Event::Ran`].
    Script(Script),
    Begin,
    /// Begins a transaction and runs a prepared statement in it; the event is [`Event::Begun`].
    BeginAndQuery(Statement),
    /// Commits, after a script that fails unless the session holds the lock. `None`: no check.
    Commit(Option<Script>),
    Rollback,
    /// Terminates the session and marks its connection as broken. It has no result: there is no
    /// further clean-up that a machine could try.
    Terminate,
    /// Takes a new [`SessionSnapshot`], because the previous action changed the session.
    ReadSessionState,
    Sleep(Duration),
    Done(T),
}

impl<T> Action<T> {
    /// Returns `true` if the session waits in the server's queue during the action.
    pub(crate) fn waits_on_server(&self) -> bool {
        matches!(self, Self::Script(Script::Wait { .. }))
    }
}

/// Result of the last action.
#[derive(Debug)]
pub(crate) enum Event {
    /// The machine starts, or a [`Sleep`](Action::Sleep) or [`Terminate`](Action::Terminate) is
    /// complete.
    Ready,
    /// Snapshot after [`Action::ReadSessionState`].
    SessionState(SessionSnapshot),
    /// Reply to [`Action::Query`].
    Row(Result<LockReply, SessionError>),
    /// Result of [`Action::BeginAndQuery`]: the error of the begin, or the reply to the query.
    Begun(Result<Result<LockReply, SessionError>, SessionError>),
    /// Result of [`Action::Script`], [`Action::Begin`], [`Action::Commit`] or [`Action::Rollback`].
    Ran(Result<(), SessionError>),
}

impl Event {
    /// Returns the row of a query; an error for any other event.
    fn row(self) -> Result<LockReply, SessionError> {
        match self {
            Self::Row(row) => row,
            _ => Err(SessionError::new(
                "the driver returned no row for the query",
            )),
        }
    }

    /// Returns the result of a command; an error for any other event.
    fn ran(self) -> Result<(), SessionError> {
        match self {
            Self::Ran(result) => result,
            _ => Err(SessionError::new("the driver did not run the command")),
        }
    }

    /// Returns the result of a begin with its query; an error of the begin for any other event.
    fn begun(self) -> Result<Result<LockReply, SessionError>, SessionError> {
        match self {
            Self::Begun(reply) => reply,
            _ => Err(SessionError::new("the driver began no transaction")),
        }
    }
}

/// State machine of the protocol.
pub(crate) trait Machine {
    type Output;

    /// Handles an event and returns the next action.
    ///
    /// The first event is [`Event::Ready`]. A driver does not call it again after
    /// [`Action::Done`]. `now` is the time of the event: machines read no clock, so that tests
    /// need not wait.
    fn handle(&mut self, event: Event, now: Instant) -> Action<Self::Output>;

    /// Returns the process id of the session, once a reply has shown it.
    ///
    /// A termination names it, so that it does nothing on another session of a pooler.
    fn session_pid(&self) -> Option<i32> {
        None
    }

    /// Returns the number of transactions that the caller itself has begun, if the machine begins
    /// or ends another one.
    #[cfg_attr(
        not(feature = "_async"),
        allow(dead_code, reason = "only async calls can be cancelled")
    )]
    fn depth_of_caller(&self) -> Option<u32> {
        None
    }

    /// Returns `true` if the session needs a clean-up when the machine stops here, although no
    /// action is in flight.
    #[cfg_attr(
        not(feature = "_async"),
        allow(dead_code, reason = "only async calls can be cancelled")
    )]
    fn needs_cleanup_if_dropped(&self) -> bool {
        false
    }
}

/// State of a session at the start of a call.
#[derive(Clone, Debug)]
pub(crate) struct SessionSnapshot {
    pub(crate) backend: Backend,
    /// `true` if a granted lock excludes other sessions.
    pub(crate) provides_exclusion: bool,
    pub(crate) transaction: TransactionState,
    /// Longest time of one wait on the server, for a session that cannot cancel a wait.
    pub(crate) max_server_wait: Option<Duration>,
}

#[cfg(test)]
impl SessionSnapshot {
    /// PostgreSQL without an open transaction.
    pub(crate) const fn idle() -> Self {
        Self {
            backend: Backend::Postgres,
            provides_exclusion: true,
            transaction: TransactionState::none(),
            max_server_wait: None,
        }
    }
}

#[cfg(test)]
impl Grant {
    /// A lock that a session was granted in a transaction that began at 1, inside `depth`
    /// transactions of the client. Without a process id, on a backend without locks.
    pub(crate) fn of_session(pid: Option<i32>, depth: u32) -> Self {
        Self {
            key: LockKey::from("key"),
            mode: LockMode::Exclusive,
            pid,
            transaction_began: pid.map(|_| 1),
            depth,
            record: None,
            #[cfg(feature = "testing")]
            attachment: None,
        }
    }
}

/// Record of a grant, with the data that the release needs.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) key: LockKey,
    pub(crate) mode: LockMode,
    /// Process id of the session that was granted the lock; `None` on a backend without locks.
    pub(crate) pid: Option<i32>,
    /// Start time of the transaction in which the lock was granted, as the server's
    /// [`CURRENT_TIMESTAMP`](https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT).
    /// `None` if the backend has no locks, or for a session-level lock that was acquired in a
    /// transaction that the client knows of.
    pub(crate) transaction_began: Option<i64>,
    /// Number of open transactions and savepoints of the client at the time of the grant.
    pub(crate) depth: u32,
    /// Record that the driver attached, for the event of the release. The machines do not use it.
    pub(crate) record: Option<GrantRecord>,
    /// Value that the driver attached. It is dropped with the grant, and the machines do not use
    /// it.
    #[cfg(feature = "testing")]
    pub(crate) attachment: Option<std::sync::Arc<dyn std::any::Any + Send + Sync>>,
}

impl Grant {
    /// Returns the span of a body under the lock.
    pub(crate) fn span(&self) -> LockSpan {
        let record = self.record.as_ref();
        record.map_or_else(LockSpan::default, GrantRecord::span)
    }

    /// Returns the number of transactions that the caller itself has begun, for a lock in a
    /// transaction of the crate.
    pub(crate) const fn depth_of_caller(&self) -> Option<u32> {
        self.depth.checked_sub(1)
    }
}
