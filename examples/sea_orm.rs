//! SeaORM: a lock over several transactions, a lock in a transaction that is there already, and a caller who loses patience.
//!
//! ```text
//! scripts/postgres run -- cargo run --example sea_orm --features sea-orm
//! ```
#![expect(clippy::print_stdout, reason = "the program shows what happens")]

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

    // One of several replicas writes the report; the others wait for their turn on the server. `db` in the body is the
    // connection that holds the lock, and takes queries and transactions as the other does.
    let turn = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(WaitStrategy::Block);
    db.with_advisory_lock("nightly-report", turn, async |db| {
        let tx = db.begin().await?;
        tx.execute_unprepared("CREATE TEMPORARY TABLE report (line TEXT)")
            .await?;
        tx.commit().await?;
        db.execute_unprepared("INSERT INTO report VALUES ('all is well')")
            .await
    })
    .await?;
    println!("the report is written");

    // In a transaction of the application's own: held until that ends.
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

    // A caller that loses patience: nothing stays queued, and the pool is whole.
    let guard = db
        .acquire_advisory_lock("external-api", LockOptions::no_wait())
        .await?;
    let call = db.with_advisory_lock("external-api", turn, async |_| Ok::<_, DbErr>(()));
    let patience = tokio::time::timeout(Duration::from_millis(50), call);
    println!("lost patience: {}", patience.await.is_err());
    guard.release().await?;
    Ok(())
}
