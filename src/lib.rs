//! Named locks for applications that use an ORM: "only one of us does this at a time".
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
//! conn.with_advisory_lock("driver_update_1", LockOptions::wait_up_to(Duration::from_secs(10)), |conn| {
//!     diesel::sql_query("SELECT 1").execute(conn)
//! })?;
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```
//!
//! On PostgreSQL these are advisory locks: a session that asks for a key that another session holds waits or is told so, whatever
//! client it uses. SQLite has no such locks; there the body runs unprotected and a warning says so, so that unit tests run on SQLite
//! and production on PostgreSQL from one source.
//!
//! # Map
//!
//! * [`AdvisoryLocking`] on a connection, [`PooledAdvisoryLocking`] on a pool: what you call.
//!   `AsyncAdvisoryLocking` and `AsyncPooledAdvisoryLocking`: their async twins.
//! * [`LockKey`]: what is locked; module `schemes`: keys of programs in other languages. [`LockOptions`]: whether to wait and how.
//!   [`LockError`]: what went wrong, and whether the lock is held.
//! * [`AdvisoryLockGuard`]: a lock that is held, and its connection.
//! * [`session`] and [`LockPool`](session::LockPool): for those who write an adapter, or have an enum of connections.
//! * [`design`]: how it works and why.
#![cfg_attr(
    all(
        feature = "diesel-postgres",
        feature = "diesel-async-postgres",
        feature = "async-lock-manager",
        feature = "bb8",
        feature = "r2d2",
        feature = "rusqlite",
        feature = "sea-orm",
        feature = "testing"
    ),
    doc = "* [`guide`]: recipes, which lock to take and how to wait, pools and poolers, outages, fencing, coming from other libraries."
)]
#![cfg_attr(
    feature = "testing",
    doc = "* [`testing`]: for unit tests on SQLite, somebody who has the lock, faults, and a record."
)]
//!
//! # What it does not do
//!
//! * It guards nothing by itself: PostgreSQL does not look at advisory locks when it reads or writes. Everybody must ask for the lock.
//! * It is no lease: a lock does not expire while its connection lives, and is gone when the connection is, which the holder may learn
//!   only at its release. What must never be done twice needs a constraint or a fencing token besides.
//! * It does not reach across databases, or from a standby to its primary: each has its own locks.
//! * Session-level locks do not work through a pooler that pools transactions (PgBouncer in transaction mode); transaction-level locks
//!   do, if the pooler knows prepared statements.
//!
//! # Events
//!
//! Through [`tracing`], or [`log`](https://docs.rs/log) if no subscriber is set: at level debug when a lock is asked for, granted and
//! released, with its key; a warning when SQLite lets a body run unprotected; an error when a release failed and nobody could be told.
//! A sink that panics has no effect on a lock.
//!
#![doc = include_str!("../feature-matrix.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod capabilities;
mod combine_results;
mod connection;
mod driver;
mod error;
mod events;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzzer looks for panics"
)]
pub mod fuzzing;
#[cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-async-postgres",
    feature = "async-lock-manager",
    feature = "bb8",
    feature = "r2d2",
    feature = "rusqlite",
    feature = "sea-orm",
    feature = "testing"
))]
pub mod guide;
mod key;
#[cfg(feature = "lock-manager")]
pub mod lock_manager;
mod options;
mod pool;
mod pooling_mode;
pub mod prelude;
mod protocol;
#[cfg(feature = "schemes")]
pub mod schemes;
pub mod session;
mod stand_in;
#[cfg(feature = "testing")]
pub mod testing;

// The adapters stand beside `src/`, so that the core is seen to need no client library.
#[path = "../backends/mod.rs"]
pub mod backends;

#[doc = include_str!("../DESIGN.md")]
pub mod design {}

/// The programs of the README, as tests.
#[cfg(all(
    doctest,
    feature = "diesel-postgres",
    feature = "diesel-sqlite",
    feature = "diesel-async-postgres",
    feature = "async-lock-manager",
    feature = "bb8",
    feature = "r2d2",
    feature = "rusqlite",
    feature = "schemes",
    feature = "sea-orm",
    feature = "testing"
))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(feature = "sea-orm")]
pub use backends::sea_orm::AsyncTransactionAdvisoryLocking;
pub use capabilities::Capabilities;
pub use connection::{AdvisoryLockGuard, AdvisoryLocking};
#[cfg(feature = "_async")]
pub use connection::{AsyncAdvisoryLockGuard, AsyncAdvisoryLocking};
pub use error::{LockError, LockErrorKind};
pub use key::{KeyNamespace, KeyPart, KeyText, LockKey, RawLockKey};
pub use options::{LockMode, LockOptions, OnMissingLock, WaitStrategy};
#[cfg(feature = "_async")]
pub use pool::AsyncPooledAdvisoryLocking;
pub use pool::PooledAdvisoryLocking;
pub use pooling_mode::PoolingMode;
