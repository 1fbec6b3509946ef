//! Diesel: `PgConnection` with the locks of PostgreSQL, `SqliteConnection` with the no-op.
//!
//! An enum of both (`#[derive(MultiConnection)]`) works through
//! [`DelegateLockSession`](crate::session::DelegateLockSession).
//!
//! # Transactions
//!
//! What counts is what Diesel's transaction manager knows. The transaction of
//! [`begin_test_transaction`](diesel::Connection::begin_test_transaction) does not count, so that code that takes session-level
//! locks can be tested in one; the application's own transactions inside it do. A `BEGIN` sent as plain text is invisible: a
//! session-level lock is granted in it, and its release reports
//! [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen) if that transaction is still open.
//!
//! # Errors
//!
//! `LockError` converts into [`diesel::result::Error`], so that `?` works in a body that returns Diesel's errors: it arrives as
//! `QueryBuilderError`, whose box downcasts to [`LockError`]. A commit that failed arrives as Diesel's own error, so that code that
//! retries after a serialization failure still sees one.
//!
//! ```
//! # #[cfg(feature = "diesel-sqlite")] {
//! use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions, OnMissingLock};
//! use diesel::prelude::*;
//!
//! let mut conn = SqliteConnection::establish(":memory:").unwrap();
//! let strict = LockOptions::no_wait().on_missing_lock(OnMissingLock::Error);
//! let refused = conn.with_advisory_lock("report", strict, |conn| diesel::sql_query("SELECT 1").execute(conn));
//!
//! let Err(diesel::result::Error::QueryBuilderError(error)) = refused else { panic!("SQLite has no locks") };
//! let error = error.downcast::<LockError>().unwrap();
//! assert_eq!(error.kind(), LockErrorKind::NoMutualExclusion);
//! # }
//! ```

#[cfg(feature = "diesel-postgres")]
mod postgres;
#[cfg(feature = "diesel-sqlite")]
mod sqlite;

use ::diesel::Connection;
use ::diesel::connection::{TransactionManager, TransactionManagerStatus};
use ::diesel::result::{DatabaseErrorKind, Error};

use crate::error::{LockError, LockErrorKind};
use crate::session::{SessionError, SqlState, TransactionState};

/// What Diesel's transaction manager knows.
fn transaction_state<C: Connection>(conn: &mut C) -> TransactionState {
    let depth = match manager_status(conn).transaction_depth() {
        Ok(depth) => depth.map_or(0, u32::from),
        Err(_) => return TransactionState::broken(),
    };
    // Diesel calls a manager broken that is in a transaction, unless it is a test's: the only way to see that flag.
    if depth > 0 && !C::TransactionManager::is_broken_transaction_manager(conn) {
        TransactionState::in_test(depth - 1)
    } else {
        TransactionState::open(depth)
    }
}

fn manager_status<C: Connection>(conn: &mut C) -> &mut TransactionManagerStatus {
    C::TransactionManager::transaction_manager_status_mut(conn)
}

fn begin<C: Connection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::begin_transaction(conn).map_err(session_error)
}

fn commit<C: Connection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::commit_transaction(conn).map_err(session_error)
}

fn rollback<C: Connection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::rollback_transaction(conn).map_err(session_error)
}

/// Diesel shows the code of a few errors as a kind, and of ours in the constraint name.
fn session_error(error: Error) -> SessionError {
    let (code, disconnected) = match &error {
        Error::DatabaseError(kind, information) => {
            let code = information
                .constraint_name()
                .and_then(SqlState::from_constraint)
                .or(match kind {
                    DatabaseErrorKind::SerializationFailure => SqlState::new("40001"),
                    DatabaseErrorKind::ReadOnlyTransaction => SqlState::new("25006"),
                    _ => None,
                });
            let gone = matches!(
                kind,
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand
            );
            (code, gone)
        }
        Error::BrokenTransactionManager => (None, true),
        _ => (None, false),
    };
    SessionError::new(error)
        .with_code(code)
        .with_disconnected(disconnected)
}

/// As `QueryBuilderError`, whose box downcasts to [`LockError`]; a failed commit as Diesel's own error.
impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        if error.kind() != LockErrorKind::CommitFailed {
            return Self::QueryBuilderError(error.into());
        }
        match error.into_client_error::<Self>() {
            Ok(error) => error,
            Err(error) => Self::QueryBuilderError(error.into()),
        }
    }
}
