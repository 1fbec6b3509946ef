//! Diesel: `PgConnection`, which has advisory locks, and `SqliteConnection`, which has none.
//!
//! An enum of both (`#[derive(MultiConnection)]`) works through
//! [`DelegateLockSession`](crate::session::DelegateLockSession).
//!
//! # Transactions
//!
//! The crate sees the transactions that Diesel's transaction manager tracks. The transaction of
//! [`begin_test_transaction`](diesel::Connection::begin_test_transaction) does not count, so code
//! that acquires session-level locks can be tested in one. Transactions inside it count.
//!
//! A `BEGIN` sent as plain text is invisible. A session-level lock is granted in it, and its
//! release reports [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen) if that
//! transaction is still open. So does the release after a `BEGIN` under the lock, if its
//! transaction is still open and has written. `with_advisory_xact_lock` fails in such a
//! transaction, and terminates the session.
//!
//! # Instrumentation
//!
//! The lock statements are events of the connection's
//! [instrumentation](diesel::connection::Instrumentation). Before the crate terminates a session,
//! it removes that of the connection. An instrumentation that panics would keep the lock otherwise.
//!
//! # Errors
//!
//! `LockError` converts into [`diesel::result::Error`], so that `?` works in a body that returns
//! Diesel's errors. It becomes a `QueryBuilderError`, whose box downcasts to [`LockError`]. A
//! failed commit becomes Diesel's own error, so code that retries after a serialization failure
//! sees that failure.
//!
//! ```
//! # #[cfg(feature = "diesel-sqlite")] {
//! use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions, OnMissingLock};
//! use diesel::prelude::*;
//!
//! let mut conn = SqliteConnection::establish(":memory:").unwrap();
//! let strict = LockOptions::no_wait().on_missing_lock(OnMissingLock::Error);
//! let rejected = conn.with_advisory_lock("report", strict, |conn| {
//!     diesel::sql_query("SELECT 1").execute(conn)
//! });
//!
//! let Err(diesel::result::Error::QueryBuilderError(error)) = rejected else {
//!     panic!("SQLite has no locks")
//! };
//! let error = error.downcast::<LockError>().unwrap();
//! assert_eq!(error.kind(), LockErrorKind::NoMutualExclusion);
//! # }
//! ```

#[cfg(any(feature = "diesel-postgres", feature = "diesel-sqlite"))]
mod blocking;
#[cfg(feature = "diesel-postgres")]
mod postgres;
#[cfg(any(feature = "diesel-postgres", feature = "diesel-async-postgres"))]
pub(crate) mod prepared;
#[cfg(feature = "diesel-sqlite")]
mod sqlite;

use std::error::Error as StdError;
use std::num::NonZeroU32;

use ::diesel::QueryResult;
#[cfg(any(feature = "diesel-postgres", feature = "diesel-async-postgres"))]
use ::diesel::connection::{Instrumentation, TransactionDepthChange, TransactionManagerStatus};
use ::diesel::result::{DatabaseErrorKind, Error};

use crate::error::{LockError, downcast};
use crate::session::{SessionError, SqlState, TransactionState};

/// Instrumentation of a connection whose session is to be terminated.
///
/// The instrumentation of the application may panic, and the session must end even so.
#[cfg(any(feature = "diesel-postgres", feature = "diesel-async-postgres"))]
pub(crate) const NO_INSTRUMENTATION: Option<Box<dyn Instrumentation>> = None;

/// Derives the state from a transaction manager's depth and from its answer whether it is broken.
///
/// | transaction | the manager calls itself broken |
/// |---|---|
/// | open | unless it is a test's transaction; Diesel shows that flag in no other way |
/// | none | if its `BEGIN` was dropped in flight (diesel-async) |
pub(crate) fn transaction_state_of(
    depth: QueryResult<Option<NonZeroU32>>,
    broken: bool,
) -> TransactionState {
    match (depth.map(|depth| depth.map_or(0, u32::from)), broken) {
        (Err(_), _) => TransactionState::broken(),
        (Ok(0), true) => TransactionState::unknown(),
        (Ok(0), false) => TransactionState::none(),
        (Ok(depth), true) => TransactionState::open(depth),
        // The transaction of the test does not count, only those inside it.
        (Ok(depth), false) => TransactionState::in_test(depth - 1),
    }
}

/// Returns Diesel's name of the innermost savepoint at this depth of its transaction manager.
#[cfg(any(feature = "diesel-postgres", feature = "diesel-async-postgres"))]
pub(crate) fn savepoint_name(depth: NonZeroU32) -> String {
    format!("diesel_savepoint_{}", depth.get() - 1)
}

/// Changes the depth of a transaction manager whose `BEGIN` or `RELEASE` this crate has sent.
#[cfg(any(feature = "diesel-postgres", feature = "diesel-async-postgres"))]
pub(crate) fn change_depth(status: &mut TransactionManagerStatus, change: TransactionDepthChange) {
    let changed = match status {
        TransactionManagerStatus::Valid(valid) => valid.change_transaction_depth(change),
        TransactionManagerStatus::InError => return,
    };
    // Only a decrease from zero fails.
    if changed.is_err() {
        status.set_in_error();
    }
}

/// Converts an error of Diesel, with the SQLSTATE if it can be derived.
///
/// Diesel hides the SQLSTATE: it shows a few as a kind. The crate's scripts put theirs into the
/// constraint name.
pub(crate) fn session_error(error: Error) -> SessionError {
    let (code, disconnected) = match &error {
        Error::DatabaseError(kind, information) => {
            let code = SqlState::from_script(information.constraint_name(), information.message())
                .or(match kind {
                    DatabaseErrorKind::SerializationFailure => SqlState::new("40001"),
                    DatabaseErrorKind::ReadOnlyTransaction => SqlState::new("25006"),
                    _ => None,
                });
            // Diesel reports a lost connection as one or the other, depending on when libpq notices
            // it.
            let gone = matches!(
                kind,
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand
            );
            (code, gone)
        }
        // Diesel begins no further transaction on such a connection.
        Error::BrokenTransactionManager => (None, true),
        _ => (None, false),
    };
    SessionError::new(error)
        .with_code(code)
        .with_disconnected(disconnected)
}

/// Returns the error in a box of Diesel's, whose own `source` leaves it out (seen with Diesel
/// 2.3.14).
pub(crate) fn hidden_cause<'e>(
    error: &'e (dyn StdError + 'static),
) -> Option<&'e (dyn StdError + 'static)> {
    match downcast(error)? {
        Error::QueryBuilderError(cause)
        | Error::DeserializationError(cause)
        | Error::SerializationError(cause) => Some(&**cause),
        _ => None,
    }
}

/// Converts into `QueryBuilderError`, whose box downcasts to [`LockError`], or a failed commit into
/// Diesel's own error.
impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        error.into_client_error_or(|error| Self::QueryBuilderError(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstate_is_that_of_the_kind_or_of_a_script() {
        for (kind, message, code) in [
            (DatabaseErrorKind::SerializationFailure, "x", Some("40001")),
            (DatabaseErrorKind::ReadOnlyTransaction, "x", Some("25006")),
            (DatabaseErrorKind::Unknown, "x", None),
            (
                DatabaseErrorKind::Unknown,
                SqlState::MISSING_SETTING,
                Some("ZAL02"),
            ),
        ] {
            let information = Box::new(message.to_owned());
            let error = session_error(Error::DatabaseError(kind, information));
            assert_eq!(error.code(), code.and_then(SqlState::new), "{message}");
            assert!(!error.is_disconnected());
        }
    }
}
