//! Migrations at the start of several replicas, with `CREATE INDEX CONCURRENTLY`.
//! See `docs/migrations.md`.
//!
//! The replicas poll for the lock. `CREATE INDEX CONCURRENTLY` waits for older snapshots, also for
//! that of a session that waits for the lock on the server. That would be a deadlock.
//!
//! ```text
//! cargo run --example migrations --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- cargo run --example migrations --features diesel-postgres,diesel-sqlite
//! ```
#![expect(
    missing_docs,
    clippy::exhaustive_structs,
    reason = "code that Diesel's macros generate"
)]
#![expect(clippy::print_stdout, reason = "the program prints its results")]

mod support;

use std::thread;
use std::time::Duration;

use advisory_locking::{AdvisoryLocking, LockOptions, WaitStrategy};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use support::{AnyConnection, Database, Outcome, check};

const REPLICAS: usize = 3;

diesel::table! {
    applied (version) {
        version -> Integer,
    }
}

/// Runs the missing migrations and returns their number.
///
/// The lock is session-level: `CREATE INDEX CONCURRENTLY` cannot run in a transaction.
fn migrate(conn: &mut AnyConnection, database: &Database) -> Outcome<usize> {
    // Polling is the default; explicit here because the migration depends on it.
    let wait = LockOptions::wait_up_to(Duration::from_secs(60)).strategy(WaitStrategy::Poll);
    conn.with_advisory_lock("migrations", wait, |conn| {
        let done: Vec<i32> = applied::table.select(applied::version).load(conn)?;
        let mut ran = 0;
        for (version, statement) in (1..).zip(migrations(database)) {
            if !done.contains(&version) {
                conn.batch_execute(statement)?;
                diesel::insert_into(applied::table)
                    .values(applied::version.eq(version))
                    .execute(conn)?;
                ran += 1;
            }
        }
        if ran > 0 {
            check_exclusion(database)?;
        }
        Ok(ran)
    })
}

const fn migrations(database: &Database) -> [&'static str; 2] {
    let index = if database.excludes() {
        "CREATE INDEX CONCURRENTLY by_title ON articles (title)"
    } else {
        "CREATE INDEX by_title ON articles (title)"
    };
    // Without `IF NOT EXISTS`, so a second run would fail.
    ["CREATE TABLE articles (title TEXT)", index]
}

/// Checks that the lock is still held after the migrations.
fn check_exclusion(database: &Database) -> Outcome {
    let mut conn = database.connect()?;
    let other = conn.try_acquire_advisory_lock("migrations", LockOptions::no_wait())?;
    check(
        other.is_none() == database.excludes(),
        "the lock excludes other sessions, except on SQLite",
    )
}

fn main() -> Outcome {
    tracing_subscriber::fmt().without_time().init();
    let database = Database::create(
        "migrations",
        "CREATE TABLE applied (version INTEGER NOT NULL)",
    )?;
    let start = || migrate(&mut database.connect()?, &database);
    let ran: Vec<usize> = if database.excludes() {
        thread::scope(|scope| {
            let replicas: Vec<_> = (0..REPLICAS).map(|_| scope.spawn(start)).collect();
            replicas
                .into_iter()
                .map(|replica| replica.join().map_err(|_| "a replica panicked")?)
                .collect::<Outcome<_>>()
        })?
    } else {
        // Without mutual exclusion, start one after the other.
        (0..REPLICAS).map(|_| start()).collect::<Outcome<_>>()?
    };
    println!("migrations that each replica ran: {ran:?}");
    check(ran.iter().sum::<usize>() == 2, "each migration ran once")?;
    check(
        ran.iter().filter(|ran| **ran == 0).count() == REPLICAS - 1,
        "by one replica",
    )
}
