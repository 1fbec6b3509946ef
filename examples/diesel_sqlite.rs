//! Diesel on SQLite: production code in a unit test, without mutual exclusion.
//!
//! ```text
//! cargo run --example diesel_sqlite --features diesel-sqlite
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::error::Error;

use advisory_locking::{AdvisoryLocking, LockOptions, OnMissingLock};
use diesel::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let mut conn = SqliteConnection::establish(":memory:")?;

    // Capabilities are known without a query.
    let capabilities = conn.capabilities();
    println!(
        "{:?} excludes: {}",
        capabilities.backend(),
        capabilities.provides_mutual_exclusion()
    );

    // By default the body runs, and the crate logs a warning once per key.
    for _ in 0..2 {
        conn.with_advisory_lock("driver_update_1", LockOptions::no_wait(), |conn| {
            diesel::sql_query("SELECT 1").execute(conn)
        })?;
    }

    // `Ignore`: no warning.
    let quiet = LockOptions::no_wait().on_missing_lock(OnMissingLock::Ignore);
    conn.with_advisory_xact_lock(("signup", "a@b.c"), quiet, |conn| {
        diesel::sql_query("CREATE TABLE users (email TEXT)").execute(conn)
    })?;

    // `Error`: the call fails, and the body does not run.
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
