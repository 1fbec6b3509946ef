//! One worker of a fleet at a time, the others wait. See `docs/wait-for-a-turn.md`.
//!
//! Runs both wait strategies, each with a sufficient limit and with one that is too short.
//!
//! ```text
//! cargo run --example one_of_a_fleet --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- \
//!     cargo run --example one_of_a_fleet --features diesel-postgres,diesel-sqlite
//! ```
#![expect(clippy::print_stdout, reason = "the program prints its results")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions, WaitStrategy};

use support::{AnyConnection, Database, Outcome, check};

const WORKERS: usize = 3;

/// Counters of the critical section.
#[derive(Default)]
struct Section {
    /// Number of workers in it now.
    inside: AtomicUsize,
    /// Highest number of workers in it.
    max_inside: AtomicUsize,
    /// Number of workers that have left it.
    completed: AtomicUsize,
}

impl Section {
    fn update_driver(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_inside.fetch_max(inside, Ordering::SeqCst);
        // Stands for a call of a service outside the database.
        thread::sleep(Duration::from_millis(20));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.completed.fetch_add(1, Ordering::SeqCst);
    }
}

fn work(conn: &mut AnyConnection, section: &Section, wait: LockOptions) -> Result<(), LockError> {
    conn.with_advisory_lock("driver_update_1", wait, |_| {
        section.update_driver();
        Ok(())
    })
}

fn main() -> Outcome {
    tracing_subscriber::fmt().without_time().init();
    let database = Database::create("fleet", "CREATE TABLE drivers (id INTEGER)")?;
    for strategy in [WaitStrategy::Poll, WaitStrategy::Block] {
        println!("{strategy:?}");
        if database.excludes() {
            wait_times_out(&database, strategy)?;
        }
        all_workers_complete(&database, strategy)?;
    }
    Ok(())
}

/// Holds the lock for longer than the limit of the worker.
fn wait_times_out(database: &Database, strategy: WaitStrategy) -> Outcome {
    let (mut holder, mut worker) = (database.connect()?, database.connect()?);
    let section = Section::default();
    let held = holder.acquire_advisory_lock("driver_update_1", LockOptions::no_wait())?;
    let limit = Duration::from_millis(200);
    let began = Instant::now();
    let outcome = work(
        &mut worker,
        &section,
        LockOptions::wait_up_to(limit).strategy(strategy),
    );
    let waited = began.elapsed();
    held.release()?;
    check(
        outcome.is_err_and(|error| error.kind() == LockErrorKind::TimedOut),
        "the wait timed out",
    )?;
    check(waited >= limit, "not before its limit")?;
    check(
        section.completed.into_inner() == 0,
        "and the body did not run",
    )
}

fn all_workers_complete(database: &Database, strategy: WaitStrategy) -> Outcome {
    let wait = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(strategy);
    let section = Section::default();
    let connections: Vec<_> = (0..WORKERS)
        .map(|_| database.connect())
        .collect::<Result<_, _>>()?;
    let outcomes: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = connections
            .into_iter()
            .map(|mut conn| {
                let section = &section;
                scope.spawn(move || work(&mut conn, section, wait))
            })
            .collect();
        workers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    for outcome in outcomes {
        outcome.map_err(|_| "a worker panicked")??;
    }
    check(
        section.completed.into_inner() == WORKERS,
        "every worker completed",
    )?;
    // On SQLite workers may overlap.
    let max_inside = section.max_inside.into_inner();
    check(
        !database.excludes() || max_inside == 1,
        &format!("at most {max_inside} at a time"),
    )
}
