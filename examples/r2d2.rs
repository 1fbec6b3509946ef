//! Diesel with an r2d2 pool: four workers that exclude each other.
//!
//! ```text
//! scripts/postgres run -- cargo run --example r2d2 --features diesel-postgres,r2d2
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use advisory_locking::{LockOptions, PooledAdvisoryLocking};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};

/// Runs the body on the connection that holds the lock, so a worker needs one connection.
fn work(pool: &Pool<ConnectionManager<PgConnection>>, worker: u32) -> QueryResult<()> {
    let wait = LockOptions::wait_up_to(Duration::from_secs(10));
    pool.with_advisory_lock("nightly-report", wait, |conn| {
        println!("worker {worker} begins");
        diesel::sql_query("SELECT pg_sleep(0.05)").execute(conn)?;
        println!("worker {worker} ends");
        Ok(())
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let manager = ConnectionManager::new(std::env::var("DATABASE_URL")?);
    let pool = Pool::builder().max_size(4).build(manager)?;

    thread::scope(|scope| {
        let workers = [1, 2, 3, 4].map(|worker| {
            let pool = &pool;
            scope.spawn(move || work(pool, worker))
        });
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;

    // The guard owns a connection of the pool. It can be stored or sent to another thread.
    let guard = pool.acquire_advisory_lock("leader", LockOptions::no_wait())?;
    println!(
        "busy connections: {}",
        pool.state().connections - pool.state().idle_connections
    );
    thread::spawn(move || guard.release())
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    println!(
        "the lock can be acquired again: {}",
        pool.try_acquire_advisory_lock("leader", LockOptions::no_wait())?
            .is_some()
    );
    Ok(())
}
