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
use crate::session::{Backend, LockSession, Script, SessionError, SqlState, TransactionState};

/// The savepoint that begins a transaction. Its release commits, and fails in another transaction.
///
/// A [savepoint] outside a transaction begins one, as `BEGIN` does.
///
/// [savepoint]: https://www.sqlite.org/lang_savepoint.html
const OUTERMOST: &str = "advisory_locking_outermost";

/// The savepoint that `begin` sets inside a transaction.
///
/// Several savepoints may have one name, which then denotes the innermost one.
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
    let savepoint = if conn.is_autocommit() {
        OUTERMOST
    } else {
        SAVEPOINT
    };
    run(conn, &format!("SAVEPOINT {savepoint}"))
}

fn commit(conn: &Connection) -> Result<(), SessionError> {
    let release = |savepoint| run(conn, &format!("RELEASE {savepoint}"));
    release(SAVEPOINT)
        .or_else(|_| release(OUTERMOST))
        .map_err(|error| {
            // Without a savepoint, the body has exchanged the transaction.
            let code = run(conn, &format!("ROLLBACK TO {OUTERMOST}"))
                .is_err()
                .then_some(SqlState::OTHER_TRANSACTION);
            // A commit that fails leaves the transaction open in SQLite. The caller gets the error
            // of the commit.
            let _ = rollback(conn);
            error.with_code(code)
        })
}

fn rollback(conn: &Connection) -> Result<(), SessionError> {
    // `ROLLBACK TO` leaves the savepoint open, so it is released as well. That of a transaction
    // would be a commit, which may have to wait for other connections.
    let of_savepoint = format!("ROLLBACK TO {SAVEPOINT}; RELEASE {SAVEPOINT}");
    run(conn, &of_savepoint).or_else(|_| run(conn, "ROLLBACK"))
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
