//! Diesel on SQLite: the source of production in a unit test, with nothing excluded.
//!
//! ```text
//! cargo run --example diesel_sqlite --features diesel-sqlite
//! ```
#![expect(clippy::print_stdout, reason = "the program shows what happens")]

use std::error::Error;

use advisory_locking::{AdvisoryLocking, LockOptions, OnMissingLock};
use diesel::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let mut conn = SqliteConnection::establish(":memory:")?;

    // What a connection can do is known without asking a server.
    let capabilities = conn.capabilities();
    println!(
        "{:?} excludes: {}",
        capabilities.backend(),
        capabilities.provides_mutual_exclusion()
    );

    // The default: the body runs, and the log has a warning, once per key.
    for _ in 0..2 {
        conn.with_advisory_lock("driver_update_1", LockOptions::no_wait(), |conn| {
            diesel::sql_query("SELECT 1").execute(conn)
        })?;
    }

    // In tests that know it: without a warning.
    let quiet = LockOptions::no_wait().on_missing_lock(OnMissingLock::Ignore);
    conn.with_advisory_xact_lock(("signup", "a@b.c"), quiet, |conn| {
        diesel::sql_query("CREATE TABLE users (email TEXT)").execute(conn)
    })?;

    // Where running unprotected would be wrong: an error, and the body does not run.
    let strict = LockOptions::no_wait().on_missing_lock(OnMissingLock::Error);
    let refused = conn.with_advisory_lock("payout", strict, |conn| {
        diesel::sql_query("DROP TABLE users").execute(conn)
    });
    println!(
        "strict: {}",
        refused.map_or_else(|error| error.to_string(), |_| "ran".into())
    );
    Ok(())
}
