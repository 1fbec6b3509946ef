//! Diesel on PostgreSQL: a sync per client, skipped while another session runs it.
//!
//! ```text
//! scripts/postgres run -- cargo run --example diesel_postgres --features diesel-postgres
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::error::Error;
use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockOptions, WaitStrategy};
use diesel::prelude::*;

/// Syncs a client. Returns `None` if another session is syncing it.
fn sync(conn: &mut PgConnection, client: i32) -> QueryResult<Option<usize>> {
    conn.try_with_advisory_lock(("sync", client), LockOptions::no_wait(), |conn| {
        diesel::sql_query("SELECT 1").execute(conn)
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let url = std::env::var("DATABASE_URL")?;
    let mut ours = PgConnection::establish(&url)?;
    let mut theirs = PgConnection::establish(&url)?;

    // The guard derefs to the connection. It holds the lock until it is released or dropped.
    let guard = theirs.acquire_advisory_lock(("sync", 4), LockOptions::no_wait())?;
    println!(
        "client 4 while another session syncs it: {:?}",
        sync(&mut ours, 4)?
    );
    println!("client 5: {:?}", sync(&mut ours, 5)?);
    guard.release()?;
    println!("client 4 afterwards: {:?}", sync(&mut ours, 4)?);

    // The commit releases a transaction-level lock, so the next holder sees the committed rows.
    let queue = LockOptions::wait_up_to(Duration::from_secs(5)).strategy(WaitStrategy::Block);
    ours.transaction(|conn| {
        conn.acquire_advisory_xact_lock("driver_update_1", queue)?;
        diesel::sql_query("SELECT 1").execute(conn)
    })?;

    // Shared holders do not exclude each other; they exclude an exclusive one.
    let shared = LockOptions::no_wait().shared();
    let _reader = ours.acquire_advisory_lock("report", shared)?;
    let second_reader = theirs.try_acquire_advisory_lock("report", shared)?;
    println!("a second reader: {}", second_reader.is_some());
    drop(second_reader);
    let writer = theirs.acquire_advisory_lock("report", LockOptions::no_wait());
    println!(
        "a writer: {}",
        writer.map_or_else(|error| error.to_string(), |_| "alone".into())
    );
    Ok(())
}
