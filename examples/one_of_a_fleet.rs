//! One worker of a fleet at a time, each waiting for its turn. The guide's page is `docs/wait-for-a-turn.md`.
//!
//! Both ways to wait, each with a limit that is long enough and one that is not.
//!
//! ```text
//! cargo run --example one_of_a_fleet --features diesel-postgres,diesel-sqlite
//! scripts/postgres run -- cargo run --example one_of_a_fleet --features diesel-postgres,diesel-sqlite
//! ```
#![expect(clippy::print_stdout, reason = "the program shows what happens")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions, WaitStrategy};

use support::{AnyConnection, Database, Outcome, check};

const WORKERS: usize = 3;

/// How many are in the critical section, now and at most, and how many have been.
#[derive(Default)]
struct Section {
    inside: AtomicUsize,
    at_most: AtomicUsize,
    been: AtomicUsize,
}

impl Section {
    fn update_driver(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_most.fetch_max(inside, Ordering::SeqCst);
        // As if something outside the database were asked.
        thread::sleep(Duration::from_millis(20));
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.been.fetch_add(1, Ordering::SeqCst);
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
            a_limit_that_passes(&database, strategy)?;
        }
        everybody_in_turn(&database, strategy)?;
    }
    Ok(())
}

/// The lock is held for longer than the worker wants to wait.
fn a_limit_that_passes(database: &Database, strategy: WaitStrategy) -> Outcome {
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
        "the worker gave up",
    )?;
    check(waited >= limit, "not before its limit")?;
    check(section.been.into_inner() == 0, "and did nothing")
}

fn everybody_in_turn(database: &Database, strategy: WaitStrategy) -> Outcome {
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
        section.been.into_inner() == WORKERS,
        "every worker had its turn",
    )?;
    // On SQLite they may or may not have met.
    let at_most = section.at_most.into_inner();
    check(
        !database.excludes() || at_most == 1,
        &format!("at most {at_most} at a time"),
    )
}
