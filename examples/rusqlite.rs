//! rusqlite: a lock is a no-op, without mutual exclusion.
//!
//! ```text
//! cargo run --example rusqlite --features rusqlite
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use advisory_locking::{AdvisoryLocking, LockOptions};
use rusqlite::{Connection, Result};

fn create_once(conn: &mut Connection, id: i64) -> Result<bool> {
    conn.with_advisory_xact_lock(("pull-request", id), LockOptions::no_wait(), |conn| {
        let there: bool = conn.query_row(
            "SELECT EXISTS (SELECT 1 FROM pull_requests WHERE id = ?1)",
            [id],
            |row| row.get(0),
        )?;
        if !there {
            conn.execute("INSERT INTO pull_requests VALUES (?1)", [id])?;
        }
        Ok(!there)
    })
}

fn main() -> Result<()> {
    tracing_subscriber::fmt().init();
    let mut conn = Connection::open_in_memory()?;
    conn.execute_batch("CREATE TABLE pull_requests (id INTEGER)")?;
    println!(
        "excludes: {}",
        conn.capabilities().provides_mutual_exclusion()
    );
    println!("created: {}", create_once(&mut conn, 1)?);
    println!("created: {}", create_once(&mut conn, 1)?);

    // A rusqlite `Transaction` acquires transaction-level locks.
    let mut transaction = conn.transaction()?;
    transaction.acquire_advisory_xact_lock(("pull-request", 2), LockOptions::no_wait())?;
    transaction.execute("INSERT INTO pull_requests VALUES (2)", [])?;
    transaction.commit()
}
