//! tokio-postgres with a pool of deadpool-postgres: wait for a lock, lock inside a transaction,
//! cancel a wait.
//!
//! ```text
//! scripts/postgres run -- cargo run --example tokio_postgres --features deadpool-postgres
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::time::Duration;

use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockOptions, WaitStrategy,
};
use deadpool_postgres::{Manager, Pool};
use tokio_postgres::{Config, NoTls};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    let pool = Pool::builder(Manager::new(config, NoTls))
        .max_size(4)
        .build()?;

    // One of several replicas writes the report; the others wait on the server.
    let wait = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(WaitStrategy::Block);
    pool.with_advisory_lock("monthly-report", wait, async |client| {
        client.execute("SELECT pg_sleep(0.05)", &[]).await?;
        Ok::<_, Error>(())
    })
    .await?;
    println!("the report is written");

    // In a transaction of the application: the lock is held until the commit.
    let mut client = pool.get().await?;
    let mut tx = client.transaction().await?;
    tx.acquire_advisory_xact_lock(("shipment", 17), wait)
        .await?;
    let rows = tx.query("SELECT 1", &[]).await?.len();
    tx.commit().await?;
    println!("rows found under the lock: {rows}");

    // A caller drops its future: the wait ends on the server, and the pool stays usable.
    let held = pool
        .acquire_advisory_lock("geocoding-api", LockOptions::no_wait())
        .await?;
    let call = pool.acquire_advisory_lock("geocoding-api", wait);
    let cancelled = tokio::time::timeout(Duration::from_millis(50), call).await;
    println!("the wait was cancelled: {}", cancelled.is_err());

    // The error of the lock, in an error of the application.
    let refused = pool
        .with_advisory_lock("geocoding-api", LockOptions::no_wait(), async |_| {
            Ok::<_, Error>(())
        })
        .await;
    if let Err(error) = refused {
        println!(
            "refused: {:?}",
            LockError::find(&*error).map(LockError::kind)
        );
    }
    held.release().await?;
    Ok(())
}
