//! Migrations when several replicas start, one of them `CREATE INDEX CONCURRENTLY`. The guide's page is `docs/migrations.md`.
//!
//! The replicas poll for the lock. One that queued on the server would be waited for by the index, and ended as a deadlock.
//!
//! ```text
//! cargo run --example migrations --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- cargo run --example migrations --features diesel-postgres,diesel-sqlite
//! ```
#![expect(
    missing_docs,
    clippy::exhaustive_structs,
    reason = "of what Diesel's macros write"
)]
#![expect(clippy::print_stdout, reason = "the program shows what happens")]

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

/// How many migrations this replica ran. A session-level lock: an index cannot be built concurrently inside a transaction.
fn migrate(conn: &mut AnyConnection, database: &Database) -> Outcome<usize> {
    // Polling is the default; said here because it matters here.
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
            others_are_kept_out(database)?;
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
    // Without `IF NOT EXISTS`: a second run would fail.
    ["CREATE TABLE articles (title TEXT)", index]
}

/// For this program: that the lock is held all the time.
fn others_are_kept_out(database: &Database) -> Outcome {
    let mut conn = database.connect()?;
    let other = conn.try_acquire_advisory_lock("migrations", LockOptions::no_wait())?;
    check(
        other.is_none() == database.excludes(),
        "others are kept out, unless it is SQLite",
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
        // Nobody would be kept out, so they start one after the other.
        (0..REPLICAS).map(|_| start()).collect::<Outcome<_>>()?
    };
    println!("migrations that each replica ran: {ran:?}");
    check(ran.iter().sum::<usize>() == 2, "each migration ran once")?;
    check(
        ran.iter().filter(|ran| **ran == 0).count() == REPLICAS - 1,
        "by one replica",
    )
}
