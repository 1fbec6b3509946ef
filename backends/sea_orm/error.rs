//! SeaORM's errors, and sqlx's in them.

use std::sync::Arc;

use sea_orm::sqlx::Error;
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

use crate::error::{LockError, LockErrorKind};
use crate::session::{SessionError, SqlState};

/// As SeaORM reports a statement that failed.
pub(super) fn exec_error(error: Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}

/// As SeaORM reports a query that failed.
pub(super) fn query_error(error: Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

/// As SeaORM reports a pool that gave no connection.
pub(super) fn acquire_error(error: Error) -> DbErr {
    match error {
        Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))),
    }
}

/// A connection that was given up.
pub(super) fn closed_error() -> DbErr {
    let error = std::io::Error::new(
        std::io::ErrorKind::NotConnected,
        "the connection under the lock was given up",
    );
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(Error::Io(error))))
}

fn sqlx_error(error: &DbErr) -> Option<&Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

/// The server's code.
pub(super) fn code(error: &DbErr) -> Option<SqlState> {
    SqlState::new(&sqlx_error(error)?.as_database_error()?.code()?)
}

/// Whether the transaction is aborted.
pub(super) fn is_aborted(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code.as_str() == "25P02")
}

/// Whether the connection can no longer be used.
pub(super) fn is_disconnected(error: &DbErr) -> bool {
    let unusable = matches!(
        sqlx_error(error),
        Some(Error::Io(_) | Error::Protocol(_) | Error::Tls(_))
    );
    unusable || code(error).is_some_and(SqlState::ends_session)
}

pub(super) fn session_error(error: DbErr) -> SessionError {
    let (code, gone) = (code(&error), is_disconnected(&error));
    SessionError::new(error)
        .with_code(code)
        .with_disconnected(gone)
}

/// As `TryIntoErr`, whose source downcasts to [`LockError`]; a failed commit as SeaORM's own error.
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
