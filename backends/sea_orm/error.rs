//! Conversions of errors between sqlx, SeaORM and this crate.

use std::error::Error as StdError;
use std::sync::Arc;

use sea_orm::sqlx::Error;
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, TransactionError};

use crate::backends::postgres::classify;
use crate::backends::sqlx::error as client;
use crate::error::{LockError, LockErrorKind, downcast};
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
        error => connection_error(error),
    }
}

/// Error of a statement on a connection that this crate has closed.
pub(super) fn closed_error() -> DbErr {
    connection_error(Error::Io(std::io::Error::new(
        std::io::ErrorKind::NotConnected,
        "the connection that held the lock is closed",
    )))
}

/// Error of a lock statement on SQLite, which has none.
pub(super) fn no_lock_error() -> DbErr {
    DbErr::Exec(RuntimeErr::Internal(
        "SQLite has no lock statements".to_owned(),
    ))
}

/// Error of a statement whose predecessor has no reply and never will.
pub(super) fn stalled_error() -> DbErr {
    connection_error(client::stalled_error())
}

fn connection_error(error: Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
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
    sqlx_error(error).and_then(client::code)
}

/// Returns whether the statement failed because its transaction is aborted.
pub(super) fn is_aborted(error: &DbErr) -> bool {
    classify(code(error)) == LockErrorKind::TransactionAborted
}

/// Returns whether a check of the crate found another transaction than that of the lock.
pub(super) fn is_other_transaction(error: &DbErr) -> bool {
    code(error) == Some(SqlState::OTHER_TRANSACTION)
}

/// Returns whether the connection can no longer be used.
pub(super) fn is_disconnected(error: &DbErr) -> bool {
    sqlx_error(error).is_some_and(client::is_disconnected)
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
    if let Some(error) = downcast::<TransactionError<DbErr>>(error) {
        let (TransactionError::Connection(cause) | TransactionError::Transaction(cause)) = error;
        return Some(cause);
    }
    match downcast::<TransactionError<LockError>>(error)? {
        TransactionError::Connection(cause) => Some(cause),
        TransactionError::Transaction(cause) => Some(cause),
    }
}

/// Converts to `TryIntoErr`, whose source downcasts to [`LockError`], or, if the commit failed, to
/// SeaORM's own error.
impl From<LockError> for DbErr {
    fn from(error: LockError) -> Self {
        error.into_client_error_or(|error| Self::TryIntoErr {
            from: "advisory_locking::LockError",
            into: "DbErr",
            source: Arc::new(error),
        })
    }
}
