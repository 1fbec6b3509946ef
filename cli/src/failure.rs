//! Failures: an exit code with a text for standard error.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use advisory_locking::{LockError, LockErrorKind};
use tokio_postgres::error::SqlState;

use crate::exit_code::Code;
use crate::output::printable;

/// End of the program before its work was done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// Empty if the reader of the output has gone, which needs no text.
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl fmt::Display) -> Self {
        Self {
            code,
            text: text.to_string(),
        }
    }

    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self::new(Code::USAGE, text)
    }
}

/// An error of standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Code::BROKEN_PIPE, "");
        }
        Self::new(
            Code::OUTPUT,
            format_args!("cannot write the output: {error}"),
        )
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::new(code_of_statement(&error), causes(&error))
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let code = match error.kind() {
            LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut => Code::CONFLICT,
            LockErrorKind::InvalidKey | LockErrorKind::InvalidOptions => Code::USAGE,
            LockErrorKind::Lost | LockErrorKind::NotHeld => Code::LOST,
            LockErrorKind::NoMutualExclusion
            | LockErrorKind::SessionChanged
            | LockErrorKind::Standby
            | LockErrorKind::Unsupported => Code::UNFIT,
            LockErrorKind::TooManyLocks => Code::FULL,
            _ => client_error(&error).map_or(Code::DATABASE, code_of_statement),
        };
        Self::new(code, causes(&error))
    }
}

/// Returns the error of the client library among the causes.
fn client_error(error: &LockError) -> Option<&tokio_postgres::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Returns the exit code for an error of a statement.
fn code_of_statement(error: &tokio_postgres::Error) -> Code {
    match error.code() {
        Some(code) => code_of_sqlstate(code),
        // The connection has ended.
        None if error.is_closed() || io_cause(error) => Code::UNAVAILABLE,
        None => Code::DATABASE,
    }
}

/// Returns the exit code for an [SQLSTATE].
///
/// [SQLSTATE]: https://www.postgresql.org/docs/current/errcodes-appendix.html
pub(crate) fn code_of_sqlstate(code: &SqlState) -> Code {
    match code.code() {
        // Invalid authorization, insufficient privilege.
        "28000" | "28P01" | "42501" => Code::REFUSED,
        // No such database, too many connections, shutdown, start.
        "3D000" | "53300" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => Code::UNAVAILABLE,
        code if code.starts_with("08") => Code::UNAVAILABLE,
        "53200" => Code::FULL,
        // No such function, or not in this server.
        "42883" | "0A000" => Code::UNFIT,
        _ => Code::DATABASE,
    }
}

fn io_cause(error: &tokio_postgres::Error) -> bool {
    error
        .source()
        .is_some_and(|source| source.is::<io::Error>())
}

/// Joins an error and its causes on one line, without control characters: parts come from the
/// server.
pub(crate) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors contain the text of their source.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_of_lock_error_selects_the_code() {
        for (kind, code) in [
            (LockErrorKind::TimedOut, 75),
            (LockErrorKind::HeldElsewhere, 75),
            (LockErrorKind::InvalidKey, 64),
            (LockErrorKind::Lost, 79),
            (LockErrorKind::Standby, 78),
            (LockErrorKind::SessionChanged, 78),
            (LockErrorKind::TooManyLocks, 71),
            (LockErrorKind::Deadlock, 76),
        ] {
            assert_eq!(
                Failure::from(LockError::new(kind)).code,
                Code(code),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn sqlstate_selects_the_code() {
        for (state, code) in [
            (SqlState::INVALID_PASSWORD, 77),
            (SqlState::INSUFFICIENT_PRIVILEGE, 77),
            (SqlState::UNDEFINED_DATABASE, 69),
            (SqlState::CONNECTION_FAILURE, 69),
            (SqlState::OUT_OF_MEMORY, 71),
            (SqlState::UNDEFINED_FUNCTION, 78),
            (SqlState::SYNTAX_ERROR, 76),
        ] {
            assert_eq!(code_of_sqlstate(&state), Code(code), "{}", state.code());
        }
    }

    #[test]
    fn closed_reader_needs_no_text() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code, &*failure.text), (Code(141), ""));
    }
}
