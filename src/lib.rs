//! Named PostgreSQL advisory locks for Diesel, diesel-async, SeaORM, sqlx, tokio-postgres and
//! rusqlite applications: only one session at a time runs the code under a key.
//!
//! ```
//! # #[cfg(feature = "diesel-sqlite")] {
//! use std::time::Duration;
//! use advisory_locking::{AdvisoryLocking, LockOptions};
//! use diesel::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A PgConnection in production, a SqliteConnection in unit tests: the same source.
//! let mut conn = SqliteConnection::establish(":memory:")?;
//!
//! let wait = LockOptions::wait_up_to(Duration::from_secs(10));
//! conn.with_advisory_lock("driver_update_1", wait, |conn| {
//!     diesel::sql_query("SELECT 1").execute(conn)
//! })?;
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```
//!
//! On PostgreSQL these are the server's [advisory locks]. While a session holds a key, other
//! sessions wait for it or are refused, whichever client they use. SQLite has no such locks.
//! There the body runs unprotected, and the crate logs a warning. So unit tests run on SQLite and
//! production on PostgreSQL from one source.
//!
//! # Map
//!
//! | to | use |
//! |---|---|
//! | acquire a lock on a connection | [`AdvisoryLocking`]; async: [`AsyncAdvisoryLocking`] |
//! | acquire a lock through a pool | [`PooledAdvisoryLocking`]; async: [`AsyncPooledAdvisoryLocking`] |
//! | acquire many locks on few connections | [`lock_manager`] |
//! | name a lock | [`LockKey`]; keys of programs in other languages: [`schemes`] |
//! | wait, share, or decide what a missing lock means | [`LockOptions`] |
//! | tell errors apart | [`LockError`], whose kind says whether the lock is held |
//! | keep a lock in a variable | [`AdvisoryLockGuard`], which dereferences to the connection |
//! | keep a lock of a pool in a struct | [`PooledAdvisoryLockGuard`]; async: [`AsyncPooledAdvisoryLockGuard`] |
//! | count and time locks for a dashboard | [`observer`] |
//! | simulate contention and faults in unit tests on SQLite | [`testing`] |
//! | write an adapter, a function over any pool, or an enum of connections | [`session`] |
//! | find a recipe | [`guide`] |
//! | see which session holds a lock | [`advisory_lock_holders`](AdvisoryLocking::advisory_lock_holders) |
//! | know how it works and why | [`design`] |
//!
//! # What it does not do
//!
//! * It protects nothing by itself: PostgreSQL ignores advisory locks when it reads or writes. All
//!   participants must lock the same key.
//! * It is no lease: a lock does not expire while its session lives, and ends with it. The holder
//!   may learn of the loss only at its release. Work that must never happen twice needs a
//!   constraint or a fencing token as well.
//! * It does not reach across databases, or from a standby to its primary: each has its own locks.
//! * Session-level locks do not work through a transaction pooler (PgBouncer in transaction mode).
//!   Transaction-level locks do. With most clients the pooler must then support prepared
//!   statements.
//!
//! # Events
//!
//! The crate logs through [`tracing`], or through [`log`](https://docs.rs/log) if no subscriber is
//! set. A sink that panics has no effect on a lock. The page [`guide::events`] lists all events and
//! their fields.
//!
//! | level | event |
//! |---|---|
//! | debug | each request and its outcome, each release, each lost lock, with key, times and process id |
//! | warning | SQLite runs a body unprotected; a lock is held for longer than [`LockOptions::warn_after`] |
//! | error | a release failed and no caller receives the error |
//!
//! [advisory locks]: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
#![cfg_attr(not(feature = "_all"), doc = include_str!("guide/docs_rs.md"))]
#![doc = ""]
#![doc = include_str!("../feature-matrix.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod capabilities;
mod combine_results;
mod connection;
mod driver;
mod error;
mod events;
mod find_error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzzer looks for panics"
)]
pub mod fuzzing;
#[cfg(any(not(doctest), feature = "_all"))]
pub mod guide;
mod key;
#[cfg(feature = "lock-manager")]
pub mod lock_manager;
mod lock_mode;
mod lock_report;
pub mod observer;
mod options;
mod pool;
mod pooling_mode;
pub mod prelude;
mod protocol;
#[cfg(feature = "schemes")]
pub mod schemes;
mod server_report;
mod server_signs;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;

// Outside `src/`: a build without features, which compiles `src/` and none of the adapters, shows
// that the core needs no client library.
#[path = "../backends/mod.rs"]
pub mod backends;

#[doc = include_str!("../DESIGN.md")]
pub mod design {}

/// Programs of the README, as doc tests.
#[cfg(all(doctest, feature = "_all"))]
#[doc = include_str!("../README.md")]
mod readme {}

// Public features, which the compiler names if none of them is on.
#[cfg(any(
    feature = "async-lock-manager",
    feature = "bb8",
    feature = "deadpool",
    feature = "diesel-async-postgres",
    feature = "diesel-async-sqlite",
    feature = "lock-manager",
    feature = "mobc",
    feature = "sea-orm",
    feature = "sqlx-postgres",
    feature = "sqlx-sqlite",
    feature = "tokio-postgres"
))]
pub use self::{
    connection::{AsyncAdvisoryLockGuard, AsyncAdvisoryLocking},
    pool::{AsyncPooledAdvisoryLockGuard, AsyncPooledAdvisoryLocking},
};
#[cfg(feature = "sea-orm")]
pub use backends::sea_orm::AsyncTransactionAdvisoryLocking;
pub use capabilities::Capabilities;
pub use connection::{AdvisoryLockGuard, AdvisoryLocking};
pub use error::{LockError, LockErrorKind};
pub use key::{
    KeyNamespace, KeyPart, KeyText, LockKey, ParseLockKeyError, PgLocksColumns, RawLockKey,
};
pub use lock_mode::LockMode;
pub use lock_report::{LockHolder, LockReport, LockWaiter, SessionDetails, SessionInfo};
pub use options::{LockOptions, LockScope, OnMissingLock, WaitStrategy};
pub use pool::{PooledAdvisoryLockGuard, PooledAdvisoryLocking};
pub use pooling_mode::PoolingMode;
pub use server_report::{LockSupport, ServerKind, ServerReport};
