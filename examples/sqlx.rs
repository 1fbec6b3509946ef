//! sqlx: a lock over several transactions, a lock in an existing transaction, a cancelled wait.
//!
//! ```text
//! scripts/postgres run -- cargo run --example sqlx --features sqlx-postgres
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::time::Duration;

use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockOptions, WaitStrategy,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, Executor, PgConnection};

/// Takes any connection of sqlx: that of a body, of a transaction, or one of its own.
async fn write_report(conn: &mut PgConnection) -> sqlx::Result<()> {
    let mut tx = conn.begin().await?;
    tx.execute("CREATE TEMPORARY TABLE report (line TEXT)")
        .await?;
    tx.execute("INSERT INTO report VALUES ('all is well')")
        .await?;
    tx.commit().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect(&url)
        .await?;

    // One of several replicas writes the report; the others wait on the server. The body's
    // connection is the one that holds the lock.
    let wait = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(WaitStrategy::Block);
    pool.with_advisory_lock("nightly-report", wait, async |conn| {
        write_report(conn).await
    })
    .await?;
    println!("the report is written");

    // A lock in a transaction of the application is held until the transaction ends.
    let mut tx = pool.begin().await?;
    tx.acquire_advisory_xact_lock(("order", 17), LockOptions::no_wait())
        .await?;
    let mut other = pool.begin().await?;
    let free = other
        .try_acquire_advisory_xact_lock(("order", 17), LockOptions::no_wait())
        .await?;
    println!("the order is free for another transaction: {free}");
    other.rollback().await?;
    tx.commit().await?;

    // A caller drops its future: the wait ends on the server, and the pool stays usable.
    let guard = pool
        .acquire_advisory_lock("external-api", LockOptions::no_wait())
        .await?;
    let call = pool.with_advisory_lock("external-api", wait, async |_| Ok::<_, sqlx::Error>(()));
    let call = tokio::time::timeout(Duration::from_millis(50), call);
    println!("the wait was cancelled: {}", call.await.is_err());
    guard.release().await?;
    Ok(())
}
