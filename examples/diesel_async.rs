//! diesel-async with a bb8 pool: wait for a lock, skip if it is held, cancel a wait.
//!
//! ```text
//! scripts/postgres run -- cargo run --example diesel_async --features diesel-async-postgres,bb8
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::time::Duration;

use advisory_locking::{AsyncPooledAdvisoryLocking, LockError, LockOptions, WaitStrategy};
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::bb8::Pool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager =
        AsyncDieselConnectionManager::<AsyncPgConnection>::new(std::env::var("DATABASE_URL")?);
    let pool = Pool::builder().max_size(4).build(manager).await?;

    // One of several replicas writes the report; the others wait on the server.
    let wait = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(WaitStrategy::Block);
    pool.with_advisory_lock("nightly-report", wait, async |conn| {
        diesel::sql_query("SELECT pg_sleep(0.05)")
            .execute(conn)
            .await
    })
    .await?;
    println!("the report is written");

    // Skip if busy: one task holds the guard, and another task does not wait.
    let guard = pool
        .acquire_advisory_lock(("sync", 4), LockOptions::no_wait())
        .await?;
    let busy = pool.clone();
    let other = tokio::spawn(async move {
        busy.try_with_advisory_lock(("sync", 4), LockOptions::no_wait(), async |_| {
            Ok::<_, LockError>(())
        })
        .await
    });
    println!(
        "a second sync of client 4 runs: {}",
        other.await??.is_some()
    );
    guard.release().await?;

    // A caller drops its future: the wait ends on the server, and the pool stays usable.
    let _held = pool
        .acquire_advisory_lock("external-api", LockOptions::no_wait())
        .await?;
    let call = pool.acquire_advisory_lock("external-api", wait);
    println!(
        "the wait was cancelled: {}",
        tokio::time::timeout(Duration::from_millis(50), call)
            .await
            .is_err()
    );
    Ok(())
}
