//! Tests of the unit-test kit: each case on each adapter, blocking and async.
//!
//! They use no server and no sleeps. A case that needs a waiter watches `contention_count`.

#![cfg(any(feature = "rusqlite", feature = "diesel-sqlite"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

/// Instantiates each case for each blocking adapter.
macro_rules! on_every_adapter {
    ($($case:ident),* $(,)?) => {
        #[cfg(feature = "rusqlite")]
        mod rusqlite {
            fn connect() -> ::rusqlite::Connection {
                ::rusqlite::Connection::open_in_memory().unwrap()
            }
            $(#[test] fn $case() { super::$case(connect); })*
        }
        #[cfg(feature = "diesel-sqlite")]
        mod diesel {
            fn connect() -> diesel::SqliteConnection {
                diesel::Connection::establish(":memory:").unwrap()
            }
            $(#[test] fn $case() { super::$case(connect); })*
        }
    };
}
#[cfg(all(feature = "diesel-async-sqlite", feature = "bb8", feature = "deadpool"))]
mod asynchronous;
mod blocking;
mod clock;
mod exclusion;
mod faults;
mod isolation;
#[cfg(all(feature = "diesel-sqlite", feature = "r2d2", feature = "lock-manager"))]
mod lock_manager;
#[cfg(feature = "sea-orm")]
mod mock;
#[cfg(all(feature = "diesel-sqlite", feature = "r2d2"))]
mod pooled;
mod postgres;

use std::time::{Duration, Instant};

use advisory_locking::testing::TestLocks;
use advisory_locking::{
    LockError, LockErrorKind, LockKey, LockOptions, OnMissingLock, WaitStrategy,
};

/// Options of an application that expects SQLite.
const QUIET: LockOptions = LockOptions::no_wait().on_missing_lock(OnMissingLock::Ignore);

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

const BOTH: [WaitStrategy; 2] = [WaitStrategy::Block, WaitStrategy::Poll];

fn wait(limit: Duration, strategy: WaitStrategy) -> LockOptions {
    LockOptions::wait_up_to(limit)
        .strategy(strategy)
        .on_missing_lock(OnMissingLock::Ignore)
}

/// Waits until sessions of the test found the lock contended this many times.
fn until_contended(locks: &TestLocks, key: impl Into<LockKey>, times: usize) {
    let key = key.into();
    let began = Instant::now();
    while locks.contention_count(key.clone()) < times {
        assert!(began.elapsed() < LONG, "no session requests {key}");
        std::thread::yield_now();
    }
}

/// Body that must not run.
fn unreachable_body<S>(_: &mut S) -> Result<(), LockError> {
    panic!("the body ran without the lock")
}

fn kind<T>(result: Result<T, LockError>) -> LockErrorKind {
    result.err().expect("an error").kind()
}
