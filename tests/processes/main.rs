//! Processes that contend for keys, as the replicas of a service do, while a nemesis disturbs them.
//!
//! The nemesis terminates their sessions, kills, stops and restarts processes, and restarts the
//! server. Async clients drop some of their futures. Every event is recorded, and the history is
//! checked. There are six kinds of processes, and all kinds contend with each other:
//!
//! * Diesel with r2d2
//! * diesel-async with bb8
//! * SeaORM
//! * sqlx
//! * `LockManager` from threads, over Diesel and r2d2
//! * `LockManager` from tasks, over diesel-async and bb8
//!
//! # Model
//!
//! A lock excludes an exclusive holder from all other holders. Shared holders do not exclude each
//! other. A holder records two times: after it knew that the lock was granted, and before it
//! requested the release. Between the two it *certainly* holds the lock if its session lives: the
//! server granted the lock before the first time and released it after the second. Two certain
//! intervals of one key must not overlap, unless both are shared. All times are of the monotonic
//! clock, which the processes of a machine share.
//!
//! A session that ends loses its locks at once, while its holder may continue without knowing. The
//! client cannot prevent that; therefore the release reports the loss, and storage needs a fencing
//! token. So a certain interval ends, at the latest, just before the nemesis begins to end the
//! session, the process or the server. A cancelled statement aborts its transaction, and the server
//! releases a transaction-level lock before the holder reads the error. So that interval ends, at
//! the latest, just before the nemesis begins to cancel the statement. So does the interval of a
//! lock manager's lock that is not released successfully: the lock manager compensates a failed
//! batch, and ends the session if the compensation fails, too. A stopped process (SIGSTOP) keeps
//! its locks. The interval of a dropped future ends at the earliest time at which it may be
//! dropped. The future may read and write until its drop, so for these its session must live until
//! then.
//!
//! Further rules:
//!
//! * A loss has a cause. A release reports a loss, or a body fails, only if the nemesis acted on
//!   that session or on the server.
//! * A cause has a loss. A release whose session was seen dead before must not report success.
//! * The counter in the database is read and written in two statements on the connection of the
//!   lock, so a dead session cannot write. No two acknowledged writes have the same number.
//!   The last number is at least the count of acknowledged writes. It is at most that count plus
//!   the count of writes whose acknowledgement was cut off.
//! * Two reads under one shared lock are equal if the session lived between them.
//! * The counter in a file is independent of the session: a holder that does not know of its loss
//!   could overwrite the write of its successor. So the file rejects a token that is not higher
//!   than its own. The token is the number that the holder has just written to the database. Only
//!   writes whose release reported success are acknowledged; none of these may be lost.
//! * A lock manager hands locks off without the server, so a lock may be lost before it is granted.
//!   While it is held, another connection looks up the session that holds it. Only a lock that was
//!   seen on its session is certainly held. A lock that was not seen there must be reported lost.
//! * The clients of a lock manager work on other connections, which the nemesis does not terminate,
//!   so a write may follow a loss. These clients have a counter that stores the fencing token at
//!   each read and rejects an older one. It must not reject a holder whose session lived.
//! * After all processes have ended, no lock is held, and the server has never received a release
//!   of a lock that was not held.
//!
//! # Options
//!
//! * `ADVISORY_LOCKING_NEMESIS_SECONDS`: the duration, 60 by default.
//! * `ADVISORY_LOCKING_NEMESIS_SEED`: repeats the random choices of the nemesis and the clients,
//!   but not the scheduling.
//!
//! The test needs a private server. It starts one with `scripts/postgres` unless it already runs
//! inside that script.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that fails says so by panicking, and this one prints its figures"
)]

mod check;
mod children;
mod client;
mod history;
mod nemesis;
mod parent;
mod storage;
mod work;

use std::process::{Command, ExitCode};

const NAME: &str = "processes_contend_under_a_nemesis";

/// Runs without libtest, because this program is also the program of its child processes.
///
/// Of the arguments of `cargo test` it supports `--list`, `--skip` and name filters.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == children::CHILD)
    {
        client::run(&arguments[1..]);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{NAME}: test\n\n1 test, 0 benchmarks");
        return ExitCode::SUCCESS;
    }
    if is_filtered_out(&arguments) {
        println!("0 tests run: {NAME} is filtered out");
        return ExitCode::SUCCESS;
    }
    check::test_checker();
    if std::env::var_os("ADVISORY_LOCKING_PGDATA").is_some() {
        parent::run();
        println!("test {NAME} ... ok");
        return ExitCode::SUCCESS;
    }
    // The test restarts the server, so it must not use the one in DATABASE_URL.
    let status = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres"))
        .args(["run", "--"])
        .arg(std::env::current_exe().expect("a program knows where it is"))
        .env_remove("DATABASE_URL")
        .status()
        .expect("scripts/postgres is there");
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Returns whether the filters exclude the test. The value of an option is no filter.
fn is_filtered_out(arguments: &[String]) -> bool {
    let (mut filters, mut skipped) = (Vec::new(), false);
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            "--skip" => skipped |= arguments.next().is_some_and(|part| NAME.contains(part)),
            "--test-threads" | "--format" | "--color" | "--logfile" => {
                arguments.next();
            }
            option if option.starts_with('-') => {}
            filter => filters.push(filter),
        }
    }
    skipped || !(filters.is_empty() || filters.iter().any(|filter| NAME.contains(filter)))
}
