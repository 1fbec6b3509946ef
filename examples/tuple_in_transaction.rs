//! A lock on a tuple, failing fast inside the transaction. The guide's page is `docs/fail-fast.md`.
//!
//! With the test of two sessions that one would write for such a function.
//!
//! ```text
//! cargo run --example tuple_in_transaction --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- cargo run --example tuple_in_transaction --features diesel-postgres,diesel-sqlite
//! ```
mod support;

use std::fmt;

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions};
use diesel::prelude::*;
use diesel::sql_types::Text;

use support::{AnyConnection, Database, Outcome, check};

#[derive(Debug)]
enum SignupError {
    /// Somebody is signing up with this address just now.
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
        match self {
            Self::Busy(error) | Self::Lock(error) => error.fmt(formatter),
            Self::Database(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for SignupError {}

/// To be called in a transaction, whose end frees the address for others.
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

/// In a project of yours: a `#[test]` with two connections.
fn two_sessions(database: &Database) -> Outcome {
    let (mut session_1, mut session_2) = (database.connect()?, database.connect()?);
    let address = "a@b.c";

    session_1.transaction(|session_1| {
        lock_address(session_1, address)?;
        // The same session may take it again.
        lock_address(session_1, address)?;

        // Another session is refused, at once, and its transaction goes on.
        let refused = session_2.transaction(|session_2| {
            let refused = lock_address(session_2, address).map_err(SignupError::from);
            lock_address(session_2, "another@b.c")?;
            Ok::<_, SignupError>(refused)
        })?;
        if database.excludes() {
            check(
                matches!(refused, Err(SignupError::Busy(_))),
                "the second session is refused",
            )?;
        } else {
            check(refused.is_ok(), "on SQLite nobody is kept out")?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;

    // Free after the commit.
    session_2.transaction(|session_2| sign_up(session_2, address))?;
    check(
        true,
        "the second session signs up after the commit of the first",
    )
}
