//! Processes that contend for keys, as the replicas of a service do, while a nemesis ends their sessions, kills, stops and restarts them, drops
//! their futures, and restarts the server. NemesisAction they did is recorded and checked. They are of five kinds, which contend with each other: Diesel with
//! r2d2, diesel-async with bb8, SeaORM, and the two lockers, each over a pool of one of the first two.
//!
//! # The model
//!
//! A lock is a mutex for its exclusive holders, and for shared ones against exclusive ones. A holder writes down two moments: when it knew that the
//! lock was granted, and when it was about to give it back. Between the two it *certainly* holds the lock, if its session lives: the server granted it before the
//! first, and cannot have freed it before the second. No two certain intervals of one key may overlap, unless both are shared. All times are of the machine's
//! monotonic clock, which processes share.
//!
//! A session that is ended loses its locks at once, while its holder may go on for a while without knowing. That is no fault of a lock, and nothing on the client's
//! side can prevent it; it is why the loss is reported, and why storage wants a fencing token. So the certain interval of a holder ends, at the latest, just before the
//! nemesis began to end its session, its process or the server. Being stopped (SIGSTOP) ends nothing. A future that is dropped ends its interval at the
//! moment from which on it may be dropped.
//!
//! Besides:
//!
//! * A loss must have a cause: a release reports one, or a body fails, only if the nemesis did something to that session or to the server.
//! * A cause must have its loss: a release whose session was seen dead before it was asked for must not report success.
//! * The counter in the database is read and written back in two statements on the lock's own connection, so a session that is gone cannot write. No two acknowledged
//!   writes of a key may have written the same number, and the last one is at least the number of those acknowledged, and at most that and those in
//!   doubt, whose acknowledgement was cut off.
//! * Two readings under one shared lock are the same, if the session lived between them.
//! * The counter in a file is no part of the session: a holder that does not know yet that its session is gone could overwrite what its successor wrote. So the file
//!   refuses a token lower than the last it has seen; the token is the number just written to the database. Only writes whose
//!   release reported success are acknowledged; of these none may be lost.
//! * A locker hands a lock on without asking the server, so a lock may be gone when it is granted. While it is held, another connection asks which
//!   session of the process has it: only a lock that was seen on its session is certainly held, and one that was not must be reported lost.
//! * Who has a lock through a locker works on other connections, which the nemesis leaves alone, so a write may come after a loss. These have a counter
//!   of their own that is told the fencing token at each reading and refuses an older one. A holder whose session lived is not refused.
//! * When all processes have ended, nothing is locked, and the server has never been asked to release what was not held.
//!
//! # Options
//!
//! `ADVISORY_LOCKING_NEMESIS_SECONDS` is how long it runs, 60 if not set; `ADVISORY_LOCKING_NEMESIS_SEED` repeats the nemesis's choices and the
//! clients', though not the scheduler's. It runs on a private server, which it starts with `scripts/postgres` if it is not in one already.
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

/// Without libtest, for the program is also that of its own children. NemesisAction `cargo test` passes is understood as far as it is about which tests to run.
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
    let mut filters = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    if filters.peek().is_some() && !filters.any(|filter| NAME.contains(filter.as_str())) {
        println!("0 tests run: {NAME} is filtered out");
        return ExitCode::SUCCESS;
    }
    check::checks_itself();
    if std::env::var_os("ADVISORY_LOCKING_PGDATA").is_some() {
        parent::run();
        println!("test {NAME} ... ok");
        return ExitCode::SUCCESS;
    }
    // The server of DATABASE_URL is not ours to restart.
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
