//! Conversions of errors between sqlx, SeaORM and this crate.

use std::error::Error as StdError;
use std::sync::Arc;

use sea_orm::sqlx::Error;
use sea_orm::sqlx::postgres::{PgDatabaseError, PgSeverity};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, TransactionError};

use crate::backends::postgres::classify;
use crate::error::{LockError, LockErrorKind};
use crate::session::{SessionError, SqlState};

/// Converts the error of a statement, as SeaORM does.
pub(super) fn exec_error(error: Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}

/// Converts the error of a query, as SeaORM does.
pub(super) fn query_error(error: Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

/// Converts the error of a checkout, as SeaORM does.
pub(super) fn acquire_error(error: Error) -> DbErr {
    match error {
        Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))),
    }
}

/// Error of a statement on a connection that this crate has closed.
pub(super) fn closed_error() -> DbErr {
    io_error(
        std::io::ErrorKind::NotConnected,
        "the connection that held the lock is closed",
    )
}

/// Error of a lock statement on SQLite, which has none.
pub(super) fn no_lock_error() -> DbErr {
    DbErr::Exec(RuntimeErr::Internal(
        "SQLite has no lock statements".to_owned(),
    ))
}

/// Error of a statement whose predecessor has no reply and never will.
pub(super) fn stalled_error() -> DbErr {
    io_error(
        std::io::ErrorKind::TimedOut,
        "the previous statement on the connection does not end, because the server waits for the client",
    )
}

fn io_error(kind: std::io::ErrorKind, text: &str) -> DbErr {
    let error = std::io::Error::new(kind, text);
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(Error::Io(error))))
}

/// Error of a statement in a transaction that has ended with an outer one.
pub(super) fn transaction_ended_error() -> DbErr {
    DbErr::Exec(RuntimeErr::Internal(
        "the transaction has ended, because an outer transaction has ended".to_owned(),
    ))
}

fn sqlx_error(error: &DbErr) -> Option<&Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

/// Returns the SQLSTATE of the server's error.
pub(super) fn code(error: &DbErr) -> Option<SqlState> {
    let error = sqlx_error(error)?.as_database_error()?;
    let reported = error.constraint().and_then(SqlState::from_constraint);
    reported.or_else(|| SqlState::new(&error.code()?))
}

/// Returns whether the check before a commit found another transaction than that of the lock.
pub(super) fn is_other_transaction(error: &DbErr) -> bool {
    code(error) == Some(SqlState::OTHER_TRANSACTION)
}

/// Returns whether the statement failed because its transaction is aborted.
pub(super) fn is_aborted(error: &DbErr) -> bool {
    classify(code(error)) == LockErrorKind::TransactionAborted
}

/// Returns whether the session has no prepared statement of this name: [`DISCARD ALL`] has removed
/// it, and sqlx still has it in its cache.
///
/// [`DISCARD ALL`]: https://www.postgresql.org/docs/current/sql-discard.html
pub(super) fn is_statement_missing(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code.as_str() == "26000")
}

/// Returns whether the connection can no longer be used.
pub(super) fn is_disconnected(error: &DbErr) -> bool {
    // After an error of the protocol, the client does not know which reply comes next.
    let unusable = matches!(
        sqlx_error(error),
        Some(Error::Io(_) | Error::Protocol(_) | Error::Tls(_))
    );
    unusable || ends_session(error) || code(error).is_some_and(SqlState::ends_session)
}

/// Returns whether the server ended the session with this error. Some SQLSTATEs, such as 40001 for
/// a conflict with recovery, end a session or only a statement; the [severity] says which.
///
/// [severity]: https://www.postgresql.org/docs/current/protocol-error-fields.html
fn ends_session(error: &DbErr) -> bool {
    sqlx_error(error)
        .and_then(Error::as_database_error)
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

pub(super) fn session_error(error: DbErr) -> SessionError {
    let (code, disconnected) = (code(&error), is_disconnected(&error));
    SessionError::new(error)
        .with_code(code)
        .with_disconnected(disconnected)
}

/// Returns the error in a `TransactionError`, which has no `source` (seen with SeaORM 2.0.4).
pub(crate) fn hidden_cause<'e>(
    error: &'e (dyn StdError + 'static),
) -> Option<&'e (dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<TransactionError<DbErr>>() {
        let (TransactionError::Connection(cause) | TransactionError::Transaction(cause)) = error;
        return Some(cause);
    }
    match error.downcast_ref::<TransactionError<LockError>>()? {
        TransactionError::Connection(cause) => Some(cause),
        TransactionError::Transaction(cause) => Some(cause),
    }
}

/// Converts to `TryIntoErr`, whose source downcasts to [`LockError`], or, if the commit failed, to
/// SeaORM's own error.
impl From<LockError> for DbErr {
    fn from(error: LockError) -> Self {
        let wrap = |error| Self::TryIntoErr {
            from: "advisory_locking::LockError",
            into: "DbErr",
            source: Arc::new(error),
        };
        if error.kind() != LockErrorKind::CommitFailed {
            return wrap(error);
        }
        error.into_client_error::<Self>().unwrap_or_else(wrap)
    }
}
