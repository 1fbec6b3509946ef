//! diesel-async: a turn, a skip and a caller who loses patience, on a bb8 pool.
//!
//! ```text
//! scripts/postgres run -- cargo run --example diesel_async --features diesel-async-postgres,bb8
//! ```
#![expect(clippy::print_stdout, reason = "the program shows what happens")]

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

    // One of several replicas writes the report; the others wait for their turn on the server.
    let turn = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(WaitStrategy::Block);
    pool.with_advisory_lock("nightly-report", turn, async |conn| {
        diesel::sql_query("SELECT pg_sleep(0.05)")
            .execute(conn)
            .await
    })
    .await?;
    println!("the report is written");

    // Skip if busy: the guard is held by one task, and another does not wait.
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

    // A caller that loses patience: nothing stays queued, and the pool is whole.
    let _held = pool
        .acquire_advisory_lock("external-api", LockOptions::no_wait())
        .await?;
    let call = pool.acquire_advisory_lock("external-api", turn);
    println!(
        "lost patience: {}",
        tokio::time::timeout(Duration::from_millis(50), call)
            .await
            .is_err()
    );
    Ok(())
}
