//! The ports that adapters implement: [`LockSession`], [`LockPool`] and the types in their methods.
//!
//! Most programs do not use this module. Authors of an adapter for another client library implement
//! its traits. So do programs that hide several connection types behind an enum
//! ([`DelegateLockSession`]), or a pool in a type of their own. A function over any pool has the
//! bounds [`LockPool`], or `AsyncLockPool` and `AsyncLockBody`.
//!
//! # Stability
//!
//! An adapter runs the statements that it receives and returns their rows. It must not depend on
//! their texts, their columns or [`Statement::COUNT`], which change in minor releases.

#[cfg(feature = "_async")]
mod async_body;
#[cfg(feature = "_async")]
mod asynchronous;
mod pool;
#[cfg(feature = "_async")]
mod queued_release;
mod transaction;

use std::thread;
use std::time::{Duration, Instant};

pub use crate::backend::Backend;
pub use crate::backends::postgres::{
    BatchMode, BatchReply, Bind, Cell, LockBatch, LockOp, LockOpKind, LockReply, Row, Script,
    SessionError, SqlState, Statement, StatementKind, TerminateStep, TokenSource,
};
pub use crate::server_signs::ServerSigns;
#[cfg(feature = "_async")]
pub use async_body::{AsyncBody, AsyncLockBody};
#[cfg(feature = "_async")]
pub use asynchronous::AsyncLockSession;
#[cfg(all(feature = "_async", any(feature = "lock-manager", feature = "testing")))]
pub(crate) use asynchronous::yield_now;
#[cfg(feature = "_async")]
pub use pool::AsyncLockPool;
pub use pool::LockPool;
#[cfg(feature = "_async")]
pub use queued_release::QueuedRelease;
pub use transaction::TransactionState;

/// A database connection, as the locking protocol uses it.
///
/// Implemented for the connection types of each client library whose feature is enabled. An
/// implementation makes no decisions. It runs statements, reports the client's view of the
/// transaction, and can mark its connection as broken.
///
/// # Contract
///
/// For an implementation:
///
/// * Every method works on the one session behind this connection. Nothing reconnects.
/// * [`session_query`](Self::session_query) binds the values in order and returns the columns of
///   the one row. It prepares each [cacheable](Statement::is_cacheable) text once per connection.
/// * [`session_execute`](Self::session_execute) sends the text as one simple-query message, without
///   preparing it.
/// * [`session_begin`](Self::session_begin), [`session_commit`](Self::session_commit) and
///   [`session_rollback`](Self::session_rollback) use the client's transaction manager, so that it
///   tracks the transaction, and nest as the client's transactions do.
/// * After [`session_mark_broken`](Self::session_mark_broken) no pool hands the connection out.
/// * An adapter for a backend without locks needs neither [`session_query`](Self::session_query)
///   nor [`session_execute`](Self::session_execute).
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no advisory locks here",
    label = "no lock session",
    note = "for an enum of connections, implement `advisory_locking::session::DelegateLockSession`"
)]
#[cfg_attr(
    not(feature = "diesel-postgres"),
    diagnostic::on_unimplemented(
        note = "Diesel's `PgConnection` needs the feature `diesel-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "diesel-sqlite"),
    diagnostic::on_unimplemented(
        note = "Diesel's `SqliteConnection` needs the feature `diesel-sqlite`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "postgres"),
    diagnostic::on_unimplemented(
        note = "the `Client` of the crate postgres needs the feature `postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "rusqlite"),
    diagnostic::on_unimplemented(
        note = "rusqlite's `Connection` needs the feature `rusqlite`, which is off"
    )
)]
pub trait LockSession {
    /// Returns the database.
    fn session_backend(&mut self) -> Backend;

    /// Returns the client's view of the session's transaction.
    fn session_transaction_state(&mut self) -> TransactionState;

    /// Begins a transaction, or a savepoint inside one.
    ///
    /// # Errors
    ///
    /// As the client reports them.
    fn session_begin(&mut self) -> Result<(), SessionError>;

    /// Begins a transaction as [`session_begin`](Self::session_begin) does, and runs a prepared
    /// statement in it.
    ///
    /// A client that can send both in one round trip overrides the default, which sends one after
    /// the other.
    ///
    /// # Errors
    ///
    /// The outer error: the transaction did not begin, whatever the statement returned. The inner
    /// error: that of the statement. The transaction is open then, and perhaps aborted.
    fn session_begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> Result<Result<Row, SessionError>, SessionError> {
        self.session_begin()?;
        Ok(self.session_query(statement))
    }

    /// Commits the innermost transaction or savepoint that
    /// [`session_begin`](Self::session_begin) began.
    ///
    /// `check` is a script to send before the commit, in the same message. If it fails, nothing may
    /// be committed.
    ///
    /// # Errors
    ///
    /// As the client reports them, and if the transaction was aborted. The error of the check is
    /// recognized by its message: [`SqlState::from_script`]. The transaction has ended in any case.
    /// After an error that is not [disconnected](SessionError::with_disconnected), it was rolled
    /// back.
    fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError>;

    /// Rolls back the innermost transaction or savepoint that
    /// [`session_begin`](Self::session_begin) began.
    ///
    /// # Errors
    ///
    /// As the client reports them.
    fn session_rollback(&mut self) -> Result<(), SessionError>;

    /// Runs a prepared statement and returns its row.
    ///
    /// # Errors
    ///
    /// As the client reports them, with the SQLSTATE if the client shows it.
    fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        Err(SessionError::unsupported(statement))
    }

    /// Runs statements that return nothing, as one message.
    ///
    /// # Errors
    ///
    /// As the client reports them, with the SQLSTATE if the client shows it or if
    /// [`SqlState::from_script`] finds it.
    fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        Err(SessionError::unsupported(script))
    }

    /// Marks the connection as broken, so that no pool hands it out.
    ///
    /// The driver calls it when the state of the session is unknown, after it has sent the scripts
    /// that [terminate](Script::Terminate) the session. It must not panic, because the driver
    /// also calls it during a panic.
    fn session_mark_broken(&mut self);

    /// Returns the current time, by the clock of [`session_sleep`](Self::session_sleep). It
    /// measures the limits of waits. Only tests replace the clock of the operating system.
    fn session_now(&mut self) -> Instant {
        Instant::now()
    }

    /// Pauses the thread between two polls.
    fn session_sleep(&mut self, pause: Duration) {
        thread::sleep(pause);
    }
}

/// An enum of connections, such as one made with Diesel's `MultiConnection`, that is a
/// [`LockSession`] by delegation.
///
/// It needs one `match`. Methods that [`LockSession`] gains later do not break it.
///
/// # Examples
///
/// With Diesel's `MultiConnection`, in `examples/multi_connection.rs`:
///
/// ```
/// # #[cfg(all(feature = "diesel-postgres", feature = "diesel-sqlite"))]
/// # mod example {
/// use advisory_locking::session::{DelegateLockSession, LockSession};
/// use diesel::{pg::PgConnection, sqlite::SqliteConnection};
///
/// #[derive(diesel::MultiConnection)]
/// enum AnyConnection {
///     Postgres(PgConnection),
///     Sqlite(SqliteConnection),
/// }
///
/// impl DelegateLockSession for AnyConnection {
///     fn session(&mut self) -> &mut dyn LockSession {
///         match self {
///             Self::Postgres(conn) => conn,
///             Self::Sqlite(conn) => conn,
///         }
///     }
/// }
/// # }
/// # fn main() {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no advisory locks here",
    label = "no lock session",
    note = "for an enum of connections, implement `advisory_locking::session::DelegateLockSession`"
)]
#[cfg_attr(
    not(feature = "diesel-postgres"),
    diagnostic::on_unimplemented(
        note = "Diesel's `PgConnection` needs the feature `diesel-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "diesel-sqlite"),
    diagnostic::on_unimplemented(
        note = "Diesel's `SqliteConnection` needs the feature `diesel-sqlite`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "postgres"),
    diagnostic::on_unimplemented(
        note = "the `Client` of the crate postgres needs the feature `postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "rusqlite"),
    diagnostic::on_unimplemented(
        note = "rusqlite's `Connection` needs the feature `rusqlite`, which is off"
    )
)]
pub trait DelegateLockSession {
    /// Returns the connection of the current variant.
    fn session(&mut self) -> &mut dyn LockSession;
}

impl<D: DelegateLockSession> LockSession for D {
    fn session_backend(&mut self) -> Backend {
        self.session().session_backend()
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.session().session_transaction_state()
    }

    fn session_begin(&mut self) -> Result<(), SessionError> {
        self.session().session_begin()
    }

    fn session_begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> Result<Result<Row, SessionError>, SessionError> {
        self.session().session_begin_and_query(statement)
    }

    fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        self.session().session_commit(check)
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.session().session_rollback()
    }

    fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.session().session_query(statement)
    }

    fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.session().session_execute(script)
    }

    fn session_mark_broken(&mut self) {
        self.session().session_mark_broken();
    }

    // `session_now` and `session_sleep` have their defaults: only the unit-test kit has a clock of
    // its own, and it wraps this session.
}
