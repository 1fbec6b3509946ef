//! rusqlite: `Connection`, `Transaction` and `Savepoint`, all the no-op.
//!
//! `LockError` converts into [`rusqlite::Error`], so that `?` works in a body that returns rusqlite's errors: it arrives as
//! `ToSqlConversionFailure`, whose box downcasts to [`LockError`]. A commit that failed arrives as rusqlite's own error.
//!
//! A [`Transaction`] or [`Savepoint`] is a connection inside a transaction, so it takes
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
use crate::session::{Backend, LockSession, SessionError, TransactionState};

/// Inside a transaction, `begin` sets a savepoint of this name. SQLite lets several have one name; the innermost is meant.
const SAVEPOINT: &str = "advisory_locking";

/// SQLite knows whether a transaction is open, but not how many savepoints are in it.
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
        run(conn, &format!("SAVEPOINT {SAVEPOINT}"))
    }
}

/// Ends the innermost savepoint of ours, or the transaction if there is none: in a transaction that a `begin` of ours began,
/// nobody else's savepoint is called so.
fn end(conn: &Connection, of_savepoint: &str, of_transaction: &str) -> Result<(), SessionError> {
    run(conn, of_savepoint).or_else(|_| run(conn, of_transaction))
}

fn commit(conn: &Connection) -> Result<(), SessionError> {
    end(conn, &format!("RELEASE {SAVEPOINT}"), "COMMIT").inspect_err(|_| {
        // A commit that fails leaves the transaction open in SQLite. The commit's error is the one to report.
        let _ = rollback(conn);
    })
}

fn rollback(conn: &Connection) -> Result<(), SessionError> {
    end(
        conn,
        &format!("ROLLBACK TO {SAVEPOINT}; RELEASE {SAVEPOINT}"),
        "ROLLBACK",
    )
}

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

            fn session_commit(&mut self) -> Result<(), SessionError> {
                commit(self)
            }

            fn session_rollback(&mut self) -> Result<(), SessionError> {
                rollback(self)
            }

            fn session_terminate(&mut self) {
                // There is no session to end; what was left open is rolled back. It fails if nothing is open.
                let _ = run(self, "ROLLBACK");
            }
        }
    )*};
}
lock_session!(Connection, Transaction<'_>, Savepoint<'_>);

/// As `ToSqlConversionFailure`, whose box downcasts to [`LockError`]; a failed commit as rusqlite's own error.
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
