//! Conversions of errors between sqlx and this crate.

use ::sqlx::Error;
#[cfg(feature = "_sqlx-postgres")]
use ::sqlx::postgres::{PgDatabaseError, PgSeverity};

#[cfg(any(feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
use crate::error::LockError;
#[cfg(feature = "sqlx-postgres")]
use crate::session::SessionError;
#[cfg(feature = "_sqlx-postgres")]
use crate::session::SqlState;

/// Returns the SQLSTATE of the server's error.
#[cfg(feature = "_sqlx-postgres")]
pub(crate) fn code(error: &Error) -> Option<SqlState> {
    let error = error.as_database_error()?;
    let reported = SqlState::from_script(error.constraint(), error.message());
    reported.or_else(|| SqlState::new(&error.code()?))
}

/// Returns whether the connection can no longer be used.
#[cfg(feature = "_sqlx-postgres")]
pub(crate) fn is_disconnected(error: &Error) -> bool {
    // After an error of the protocol, the client does not know which reply comes next.
    matches!(error, Error::Io(_) | Error::Protocol(_) | Error::Tls(_))
        || is_fatal(error)
        || code(error).is_some_and(SqlState::ends_session)
}

/// Returns whether the server ended the session with this error. Some SQLSTATEs, such as 40001 for
/// a conflict with recovery, end a session or only a statement; the [severity] says which.
///
/// [severity]: https://www.postgresql.org/docs/current/protocol-error-fields.html
#[cfg(feature = "_sqlx-postgres")]
fn is_fatal(error: &Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// Error of a statement whose predecessor has no reply and never will.
#[cfg(feature = "_sqlx-postgres")]
pub(crate) fn stalled_error() -> Error {
    Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the previous statement on the connection does not end, because the server waits for the client",
    ))
}

/// Converts an error of PostgreSQL.
#[cfg(feature = "sqlx-postgres")]
pub(super) fn postgres_error(error: Error) -> SessionError {
    let (code, disconnected) = (code(&error), is_disconnected(&error));
    SessionError::new(error)
        .with_code(code)
        .with_disconnected(disconnected)
}

/// Converts to `Encode`, whose box downcasts to [`LockError`], or, if the commit failed, to sqlx's
/// own error.
#[cfg(any(feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        error.into_client_error_or(|error| Self::Encode(error.into()))
    }
}
