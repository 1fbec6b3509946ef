//! SeaORM: a lock over several transactions, a lock in an existing transaction, a cancelled wait.
//!
//! ```text
//! scripts/postgres run -- cargo run --example sea_orm --features sea-orm
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::time::Duration;

use advisory_locking::{
    AsyncPooledAdvisoryLocking, AsyncTransactionAdvisoryLocking, LockOptions, WaitStrategy,
};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbErr, TransactionTrait};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = ConnectOptions::new(std::env::var("DATABASE_URL")?);
    options.max_connections(2).sqlx_logging(false);
    let db = Database::connect(options).await?;

    // One of several replicas writes the report; the others wait on the server. The `db` of the
    // body is the connection that holds the lock. It accepts queries and transactions.
    let wait = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(WaitStrategy::Block);
    db.with_advisory_lock("nightly-report", wait, async |db| {
        let tx = db.begin().await?;
        tx.execute_unprepared("CREATE TEMPORARY TABLE report (line TEXT)")
            .await?;
        tx.commit().await?;
        db.execute_unprepared("INSERT INTO report VALUES ('all is well')")
            .await
    })
    .await?;
    println!("the report is written");

    // A lock in a transaction of the application is held until the transaction ends.
    let tx = db.begin().await?;
    tx.acquire_advisory_xact_lock(("order", 17), LockOptions::no_wait())
        .await?;
    let other = db.begin().await?;
    let free = other
        .try_acquire_advisory_xact_lock(("order", 17), LockOptions::no_wait())
        .await?;
    println!("the order is free for another transaction: {free}");
    other.rollback().await?;
    tx.commit().await?;

    // A caller drops its future: the wait ends on the server, and the pool stays usable.
    let guard = db
        .acquire_advisory_lock("external-api", LockOptions::no_wait())
        .await?;
    let call = db.with_advisory_lock("external-api", wait, async |_| Ok::<_, DbErr>(()));
    let call = tokio::time::timeout(Duration::from_millis(50), call);
    println!("the wait was cancelled: {}", call.await.is_err());
    guard.release().await?;
    Ok(())
}
