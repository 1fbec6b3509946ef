//! rusqlite: `Connection`, `Transaction` and `Savepoint`, which have no locks.
//!
//! `LockError` converts into [`rusqlite::Error`], so that `?` works in a body that returns
//! rusqlite's errors. It becomes a `ToSqlConversionFailure`, whose box downcasts to [`LockError`].
//! A failed commit becomes rusqlite's own error.
//!
//! A [`Transaction`] or [`Savepoint`] is a connection inside a transaction, so it acquires
//! transaction-level locks:
//!
//! ```
//! use advisory_locking::{AdvisoryLocking, LockOptions};
//!
//! # fn main() -> rusqlite::Result<()> {
//! let mut conn = rusqlite::Connection::open_in_memory()?;
//! let mut transaction = conn.transaction()?;
//! transaction.acquire_advisory_xact_lock(("signup", "a@b.c"), LockOptions::no_wait())?;
//! transaction.commit()?;
//! # Ok(())
//! # }
//! ```

use ::rusqlite::{Connection, Error, Savepoint, Transaction};

use super::open_transactions;
use crate::error::LockError;
use crate::session::{Backend, LockSession, Script, SessionError, SqlState, TransactionState};

/// The savepoint that begins a transaction. Its release commits, and fails in another transaction.
///
/// A [savepoint] outside a transaction begins one, as `BEGIN` does.
///
/// [savepoint]: https://www.sqlite.org/lang_savepoint.html
const OUTERMOST: &str = "advisory_locking_outermost";

/// Returns the state of the transaction. Its depth counts the savepoints of the crate, too.
///
/// SQLite does not tell the number of savepoints. It does show a transaction that was begun as
/// plain text.
fn transaction_state(conn: &Connection) -> TransactionState {
    if conn.is_autocommit() {
        // A body may have ended a transaction whose savepoints are still counted.
        open_transactions::clear(conn);
        return TransactionState::none();
    }
    TransactionState::open(open_transactions::depth(conn).saturating_add(1))
}

/// Returns the name of the savepoint that the crate set last in the transaction.
///
/// Each depth has a name of its own. So the end of a savepoint that the body has rolled back does
/// not end the one around it.
fn innermost_savepoint(conn: &Connection) -> Option<String> {
    open_transactions::innermost_savepoint(conn, 1)
}

fn run(conn: &Connection, sql: &str) -> Result<(), SessionError> {
    conn.execute_batch(sql).map_err(SessionError::new)
}

fn begin(conn: &Connection) -> Result<(), SessionError> {
    let outer = transaction_state(conn).depth();
    let savepoint = open_transactions::savepoint(outer);
    let name = savepoint.as_deref().unwrap_or(OUTERMOST);
    run(conn, &format!("SAVEPOINT {name}"))?;
    if savepoint.is_some() {
        open_transactions::push(conn);
    }
    Ok(())
}

fn commit(conn: &Connection) -> Result<(), SessionError> {
    let savepoint = innermost_savepoint(conn);
    let name = savepoint.as_deref().unwrap_or(OUTERMOST);
    match run(conn, &format!("RELEASE {name}")) {
        Ok(()) => {
            open_transactions::pop(conn);
            Ok(())
        }
        Err(error) => {
            // Without its savepoint, the body has exchanged the transaction, or has rolled back to
            // a savepoint around it.
            let code = run(conn, &format!("ROLLBACK TO {name}"))
                .is_err()
                .then_some(SqlState::OTHER_TRANSACTION);
            // A commit that fails leaves the transaction open in SQLite. The caller gets the error
            // of the commit.
            let _ = rollback(conn);
            Err(error.with_code(code))
        }
    }
}

/// Rolls back the savepoint that the crate set last. Without one, rolls back the transaction.
fn rollback(conn: &Connection) -> Result<(), SessionError> {
    if let Some(savepoint) = innermost_savepoint(conn) {
        // `ROLLBACK TO` leaves the savepoint open, so it is released as well.
        let of_savepoint = format!("ROLLBACK TO {savepoint}; RELEASE {savepoint}");
        if run(conn, &of_savepoint).is_ok() {
            open_transactions::pop(conn);
            return Ok(());
        }
        open_transactions::clear(conn);
    }
    // Not the release of the outermost savepoint, which would be a commit. That may have to wait
    // for other connections.
    run(conn, "ROLLBACK")
}

/// Implements the port for types that dereference to [`Connection`].
macro_rules! lock_session {
    ($($type:ty),*) => {$(
        impl LockSession for $type {
            fn session_backend(&mut self) -> Backend {
                Backend::Sqlite
            }

            fn session_transaction_state(&mut self) -> TransactionState {
                transaction_state(self)
            }

            fn session_begin(&mut self) -> Result<(), SessionError> {
                begin(self)
            }

            fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
                commit(self)
            }

            fn session_rollback(&mut self) -> Result<(), SessionError> {
                rollback(self)
            }

            // SQLite holds no lock that a connection could keep.
            fn session_mark_broken(&mut self) {}
        }
    )*};
}
lock_session!(Connection, Transaction<'_>, Savepoint<'_>);

/// Converts into `ToSqlConversionFailure`, whose box downcasts to [`LockError`], or a failed commit
/// into rusqlite's own error.
impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        error.into_client_error_or(|error| Self::ToSqlConversionFailure(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::AdvisoryLocking;
    use crate::options::{LockOptions, OnMissingLock};

    /// Otherwise a `Client` of tokio-postgres at the same address would be in a transaction.
    #[test]
    fn transaction_that_its_body_ended_is_not_counted() {
        let mut conn = Connection::open_in_memory().unwrap();
        let quiet = LockOptions::no_wait().on_missing_lock(OnMissingLock::Ignore);
        for end in ["COMMIT", "ROLLBACK"] {
            let ended = conn.with_advisory_xact_lock("outer", quiet, |conn| {
                conn.with_advisory_xact_lock("inner", quiet, |conn| conn.execute_batch(end))
            });
            ended.unwrap_err();
            assert_eq!(open_transactions::depth(&conn), 0, "{end}");
        }
    }
}
