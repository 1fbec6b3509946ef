//! A tuple as key of a transaction-level lock that fails fast. See `docs/fail-fast.md`.
//!
//! Includes a test with two sessions.
//!
//! ```text
//! cargo run --example tuple_in_transaction --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- \
//!     cargo run --example tuple_in_transaction --features diesel-postgres,diesel-sqlite
//! ```
mod support;

use std::error::Error;
use std::fmt;

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions};
use diesel::prelude::*;
use diesel::sql_types::Text;

use support::{AnyConnection, Database, Outcome, check};

#[derive(Debug)]
enum SignupError {
    /// Another session is signing up with this address.
    Busy(LockError),
    Lock(LockError),
    Database(diesel::result::Error),
}

impl From<LockError> for SignupError {
    fn from(error: LockError) -> Self {
        match error.kind() {
            LockErrorKind::HeldElsewhere => Self::Busy(error),
            _ => Self::Lock(error),
        }
    }
}

impl From<diesel::result::Error> for SignupError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

impl fmt::Display for SignupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Busy(_) => "another session signs up with this address",
            Self::Lock(_) => "the address was not locked",
            Self::Database(_) => "the database failed",
        })
    }
}

/// With a source, so that a log shows the client's error, and `LockError::find` finds the lock's.
impl Error for SignupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Busy(error) | Self::Lock(error) => Some(error),
            Self::Database(error) => Some(error),
        }
    }
}

/// Locks the address. Must be called in a transaction, whose end releases the lock.
fn lock_address(conn: &mut AnyConnection, email: &str) -> Result<(), LockError> {
    conn.acquire_advisory_xact_lock(("SIGNUP-EMAIL", email), LockOptions::no_wait())
}

fn sign_up(conn: &mut AnyConnection, email: &str) -> Result<(), SignupError> {
    lock_address(conn, email)?;
    diesel::sql_query("INSERT INTO accounts VALUES ($1)")
        .bind::<Text, _>(email)
        .execute(conn)?;
    Ok(())
}

fn main() -> Outcome {
    tracing_subscriber::fmt().without_time().init();
    let database = Database::create("tuple", "CREATE TABLE accounts (email TEXT NOT NULL)")?;
    two_sessions(&database)
}

/// Tests the exclusion with two connections. An application makes this a `#[test]`.
fn two_sessions(database: &Database) -> Outcome {
    let (mut session_1, mut session_2) = (database.connect()?, database.connect()?);
    let address = "a@b.c";

    session_1.transaction(|session_1| {
        lock_address(session_1, address)?;
        // The same session may acquire the lock again.
        lock_address(session_1, address)?;

        // Another session fails at once, and its transaction stays usable.
        let second = session_2.transaction(|session_2| {
            let result = lock_address(session_2, address).map_err(SignupError::from);
            lock_address(session_2, "another@b.c")?;
            Ok::<_, SignupError>(result)
        })?;
        if database.excludes() {
            check(
                matches!(second, Err(SignupError::Busy(_))),
                "the second session fails at once",
            )?;
        } else {
            check(second.is_ok(), "SQLite does not exclude other sessions")?;
        }
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    })?;

    // The commit has released the lock.
    session_2.transaction(|session_2| sign_up(session_2, address))?;
    check(
        true,
        "the second session signs up after the commit of the first",
    )
}
