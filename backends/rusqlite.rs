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

/// Returns the name of the savepoint that the crate sets at this depth of its transactions.
///
/// Each depth has a name of its own. So the end of a savepoint that the body has rolled back does
/// not end the one around it.
fn savepoint(depth: u32) -> String {
    format!("advisory_locking_{depth}")
}

/// Returns the state of the transaction, with a depth of 0 or 1.
///
/// SQLite does not tell the number of savepoints. It does show a transaction that was begun as
/// plain text.
fn transaction_state(conn: &Connection) -> TransactionState {
    let is_open = !conn.is_autocommit();
    if !is_open {
        // A body may have ended transactions that are still counted.
        open_transactions::clear(conn);
    }
    TransactionState::open(u32::from(is_open))
}

fn run(conn: &Connection, sql: &str) -> Result<(), SessionError> {
    conn.execute_batch(sql).map_err(SessionError::new)
}

fn begin(conn: &Connection) -> Result<(), SessionError> {
    let savepoint = if conn.is_autocommit() {
        OUTERMOST.to_owned()
    } else {
        savepoint(open_transactions::depth(conn).saturating_add(1))
    };
    run(conn, &format!("SAVEPOINT {savepoint}"))?;
    open_transactions::push(conn);
    Ok(())
}

fn commit(conn: &Connection) -> Result<(), SessionError> {
    let release = |savepoint: &str| run(conn, &format!("RELEASE {savepoint}"));
    let depth = open_transactions::depth(conn);
    let (savepoint, released) = if depth > 1 {
        let savepoint = savepoint(depth);
        let released = release(&savepoint);
        (savepoint, released)
    } else {
        // A savepoint in a transaction of the caller, or a transaction.
        let released = release(&savepoint(1)).or_else(|_| release(OUTERMOST));
        (OUTERMOST.to_owned(), released)
    };
    match released {
        Ok(()) => {
            open_transactions::pop(conn);
            Ok(())
        }
        Err(error) => {
            // Without its savepoint, the body has exchanged the transaction, or has rolled back to
            // a savepoint around it.
            let code = run(conn, &format!("ROLLBACK TO {savepoint}"))
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
    let savepoint = savepoint(open_transactions::depth(conn).max(1));
    // `ROLLBACK TO` leaves the savepoint open, so it is released as well. That of a transaction
    // would be a commit, which may have to wait for other connections.
    let of_savepoint = format!("ROLLBACK TO {savepoint}; RELEASE {savepoint}");
    if run(conn, &of_savepoint).is_ok() {
        open_transactions::pop(conn);
        return Ok(());
    }
    open_transactions::clear(conn);
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
            let ended = conn.with_advisory_xact_lock("key", quiet, |conn| conn.execute_batch(end));
            ended.unwrap_err();
            assert_eq!(open_transactions::depth(&conn), 0, "{end}");
        }
    }
}
