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

use crate::error::{LockError, LockErrorKind};
use crate::session::{Backend, LockSession, Script, SessionError, TransactionState};

/// The savepoint that `begin` sets inside a transaction.
///
/// Several [savepoints] may have one name, which then denotes the innermost one.
///
/// [savepoints]: https://www.sqlite.org/lang_savepoint.html
const SAVEPOINT: &str = "advisory_locking";

/// Returns the state of the transaction, with a depth of 0 or 1.
///
/// SQLite does not tell the number of savepoints. It does show a transaction that was begun as
/// plain text.
fn transaction_state(conn: &Connection) -> TransactionState {
    TransactionState::open(u32::from(!conn.is_autocommit()))
}

fn run(conn: &Connection, sql: &str) -> Result<(), SessionError> {
    conn.execute_batch(sql).map_err(SessionError::new)
}

fn begin(conn: &Connection) -> Result<(), SessionError> {
    if conn.is_autocommit() {
        run(conn, "BEGIN")
    } else {
        // A `BEGIN` inside a transaction is an error: https://www.sqlite.org/lang_transaction.html
        run(conn, &format!("SAVEPOINT {SAVEPOINT}"))
    }
}

/// Ends the innermost savepoint of the crate, or the transaction if there is no such savepoint.
///
/// No other savepoint has that name in a transaction that the crate began.
fn end(conn: &Connection, of_savepoint: &str, of_transaction: &str) -> Result<(), SessionError> {
    run(conn, of_savepoint).or_else(|_| run(conn, of_transaction))
}

fn commit(conn: &Connection) -> Result<(), SessionError> {
    end(conn, &format!("RELEASE {SAVEPOINT}"), "COMMIT").inspect_err(|_| {
        // A commit that fails leaves the transaction open in SQLite. The caller gets the error of
        // the commit.
        let _ = rollback(conn);
    })
}

fn rollback(conn: &Connection) -> Result<(), SessionError> {
    // `ROLLBACK TO` leaves the savepoint open, so it is released as well.
    end(
        conn,
        &format!("ROLLBACK TO {SAVEPOINT}; RELEASE {SAVEPOINT}"),
        "ROLLBACK",
    )
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
        if error.kind() != LockErrorKind::CommitFailed {
            return Self::ToSqlConversionFailure(error.into());
        }
        match error.into_client_error::<Self>() {
            Ok(error) => error,
            Err(error) => Self::ToSqlConversionFailure(error.into()),
        }
    }
}
