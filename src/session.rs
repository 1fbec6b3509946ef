//! The ports that adapters implement: [`LockSession`] and what it speaks of.
//!
//! Most programs never name anything here. It is for those who write an adapter for another client library, or who hide
//! several connection types behind an enum ([`DelegateLockSession`]).

#[cfg(feature = "_async")]
mod asynchronous;
mod error;
mod pool;
mod request;
mod round;
mod transaction;

#[cfg(feature = "_async")]
pub use crate::connection::AsyncBody;
#[cfg(feature = "_async")]
pub use asynchronous::AsyncLockSession;
pub use error::{SessionError, SqlState};
#[cfg(feature = "_async")]
pub use pool::AsyncLockPool;
pub use pool::LockPool;
pub use request::{
    Bind, LockReply, PoolerCheckStep, Script, ScriptKind, Statement, StatementKind,
    TransactionContext,
};
pub use round::{BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, SingleOp, TokenSource};
pub use transaction::TransactionState;

/// Which database answers on a session.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Backend {
    /// PostgreSQL: advisory locks.
    Postgres,
    /// SQLite: no locks; see [`OnMissingLock`](crate::OnMissingLock).
    Sqlite,
}

/// One database connection, as the locking protocol sees it.
///
/// Implemented for the connection types of each client library whose feature is on. It holds no policy: it runs what it is
/// given, says what the client knows of the transaction, and can make its connection unusable.
///
/// # Contract
///
/// For those who implement it:
///
/// * Every method works on the one session behind this connection. Nothing reconnects.
/// * [`query`](Self::session_query) binds the values in order, prepares the text once per connection, and returns the one row.
/// * [`batch`](Self::session_execute) sends the text as one simple-protocol message, without preparing it.
/// * [`begin`](Self::session_begin), [`commit`](Self::session_commit) and [`rollback`](Self::session_rollback) go through the client's own
///   transaction manager, so that it knows of the transaction, and nest as the client's transactions do.
/// * [`condemn`](Self::session_terminate) leaves a connection on which nothing is locked and that no pool hands out again.
/// * An adapter for a backend without locks implements the transaction methods only.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no advisory locks here",
    label = "no lock session",
    note = "enable the feature for its client library in Cargo.toml: see feature-matrix.md",
    note = "for an enum of connections, implement `advisory_locking::session::DelegateLockSession`"
)]
pub trait LockSession {
    /// Which database this is.
    fn session_backend(&mut self) -> Backend;

    /// What the client knows of the transaction the session is in.
    fn session_transaction_state(&mut self) -> TransactionState;

    /// Begins a transaction, or a savepoint inside one.
    ///
    /// # Errors
    ///
    /// As the client reports them.
    fn session_begin(&mut self) -> Result<(), SessionError>;

    /// Commits what the last [`begin`](Self::session_begin) began.
    ///
    /// # Errors
    ///
    /// As the client reports them, and if the transaction was aborted, so that there was nothing to commit. The transaction is over
    /// then too.
    fn session_commit(&mut self) -> Result<(), SessionError>;

    /// Rolls back what the last [`begin`](Self::session_begin) began.
    ///
    /// # Errors
    ///
    /// As the client reports them.
    fn session_rollback(&mut self) -> Result<(), SessionError>;

    /// Runs one prepared statement and returns its row.
    ///
    /// # Errors
    ///
    /// As the client reports them, with the SQLSTATE where the client shows it.
    fn session_query(&mut self, statement: &Statement) -> Result<LockReply, SessionError> {
        Err(SessionError::unsupported(statement))
    }

    /// Runs several statements that return nothing, as one message.
    ///
    /// # Errors
    ///
    /// As the client reports them, with the SQLSTATE where the client shows it, or where the server put it:
    /// [`SqlState::from_constraint`].
    fn session_execute(&mut self, batch: &Script) -> Result<(), SessionError> {
        Err(SessionError::unsupported(batch))
    }

    /// Runs one prepared statement about many locks and returns its row; for a `BlockingLockManager`.
    ///
    /// # Errors
    ///
    /// As the client reports them, with the SQLSTATE where the client shows it.
    fn session_execute_batch(&mut self, round: &LockBatch) -> Result<BatchReply, SessionError> {
        Err(SessionError::unsupported(round))
    }

    /// Runs one prepared statement about one lock and returns its only column; for a `BlockingLockManager`. By default, the [`round`](Self::session_execute_batch) that
    /// does the same.
    ///
    /// # Errors
    ///
    /// As the client reports them, with the SQLSTATE where the client shows it.
    fn session_execute_single(&mut self, step: &SingleOp) -> Result<Option<bool>, SessionError> {
        self.session_execute_batch(&step.to_round())
            .map(SingleOp::answer_of)
    }

    /// Ends the session and marks the connection as broken, so that nothing is locked on it and no pool hands it out.
    ///
    /// Called when the state of the session is unknown. Must not panic; there is nobody to report an error to.
    fn session_terminate(&mut self) {}
}

/// For an enum of connections, such as one made with Diesel's `MultiConnection`: a [`LockSession`] by delegation.
///
/// Needs one `match`. Methods that [`LockSession`] gains later do not break it.
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
    note = "enable the feature for its client library in Cargo.toml: see feature-matrix.md",
    note = "for an enum of connections, implement `advisory_locking::session::DelegateLockSession`"
)]
pub trait DelegateLockSession {
    /// The connection that is there.
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

    fn session_commit(&mut self) -> Result<(), SessionError> {
        self.session().session_commit()
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.session().session_rollback()
    }

    fn session_query(&mut self, statement: &Statement) -> Result<LockReply, SessionError> {
        self.session().session_query(statement)
    }

    fn session_execute(&mut self, batch: &Script) -> Result<(), SessionError> {
        self.session().session_execute(batch)
    }

    fn session_execute_batch(&mut self, round: &LockBatch) -> Result<BatchReply, SessionError> {
        self.session().session_execute_batch(round)
    }

    fn session_execute_single(&mut self, step: &SingleOp) -> Result<Option<bool>, SessionError> {
        self.session().session_execute_single(step)
    }

    fn session_terminate(&mut self) {
        self.session().session_terminate();
    }
}
