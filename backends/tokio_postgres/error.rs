//! Conversion of tokio-postgres's errors.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::Severity;

use crate::session::{SessionError, SqlState};

/// Converts an error, with its SQLSTATE and the state of the connection.
pub(crate) fn session_error(error: Error) -> SessionError {
    let (code, disconnected) = (code(&error), is_disconnected(&error));
    SessionError::new(error)
        .with_code(code)
        .with_disconnected(disconnected)
}

/// Returns the SQLSTATE. That of a failed check is in the message.
fn code(error: &Error) -> Option<SqlState> {
    let error = error.as_db_error()?;
    let reported = SqlState::from_script(error.constraint(), error.message());
    reported.or_else(|| SqlState::new(error.code().code()))
}

/// Returns whether the connection can no longer be used.
///
/// Some SQLSTATEs, such as 40001 for a conflict with recovery, end a session or only a statement.
/// The [severity] says which.
///
/// [severity]: https://www.postgresql.org/docs/current/protocol-error-fields.html
fn is_disconnected(error: &Error) -> bool {
    let ends_session = error.as_db_error().is_some_and(|error| {
        matches!(
            error.parsed_severity(),
            Some(Severity::Fatal | Severity::Panic)
        )
    });
    let is_io = error
        .source()
        .is_some_and(|source| source.is::<io::Error>());
    error.is_closed() || ends_session || is_io
}
