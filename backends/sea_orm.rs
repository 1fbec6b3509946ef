//! SeaORM: `DatabaseConnection`, whose backend is known at run time only, and
//! `DatabaseTransaction`.
//!
//! | SeaORM's connection | locks |
//! |---|---|
//! | PostgreSQL through sqlx | advisory locks |
//! | SQLite through sqlx | no-op; the body keeps a connection of the pool |
//! | a mock or proxy of SQLite | no-op; the body uses the `DatabaseConnection` |
//! | a mock or proxy of PostgreSQL, in a test scope of the module `testing` | the same |
//! | MySQL; any other mock or proxy; `Disconnected` | none: [`Unsupported`](crate::LockErrorKind::Unsupported), before anything is sent |
//!
//! A `DatabaseConnection` is a pool, so it has the methods of
//! [`AsyncPooledAdvisoryLocking`](crate::AsyncPooledAdvisoryLocking). One connection of the pool
//! holds the lock. The body runs on it through a [`PinnedConnection`], so a pool of one connection
//! is enough. Entities, relations, paginators, loaders, raw statements, transactions and streams
//! take a `PinnedConnection` in place of a `DatabaseConnection`.
//!
//! ```
//! use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions};
//! use sea_orm::{ConnectionTrait, Database};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), sea_orm::DbErr> {
//! let db = Database::connect("sqlite::memory:").await?; // postgres://… in production
//! db.with_advisory_lock(("sync", 4), LockOptions::no_wait(), async |db| {
//!     db.execute_unprepared("CREATE TABLE client (id INTEGER)").await
//! })
//! .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Inside a transaction of the application, [`AsyncTransactionAdvisoryLocking`] acquires
//! transaction-level locks.
//!
//! The application enables SeaORM's features for the database, the runtime and TLS. This crate
//! enables `sqlx-postgres` and `stream`. On a [`PinnedConnection`], SeaORM's metric callback is not
//! called, while sqlx logs as usual.
//!
//! # Dropped futures
//!
//! sqlx 0.9.0 cannot cancel a statement. A future may be dropped in these states:
//!
//! | in flight | what follows |
//! |---|---|
//! | statement of the body | It runs to its end. Then the lock is released, and the connection returns to the pool. |
//! | statement whose reply never ends, because the server waits for the client (`COPY … FROM STDIN`) | The connection is closed at the next use, after some seconds. So is that of a future that was leaked. |
//! | wait for the lock | The session is terminated by its process id, over a new connection, which also works through TLS. Its own connection is closed. |
//! | wait for the lock, and the server accepts no further connection, or the process ends | The wait ends within a second after its connection is closed, or within the interval that is set for such checks: see [`WaitStrategy::Block`](crate::WaitStrategy::Block). That needs PostgreSQL 14 or later on Linux, 15 or later on macOS and BSD. Elsewhere it lasts to its limit. |
//! | wait for the lock in a `DatabaseTransaction` | See [`acquire_advisory_xact_lock`](AsyncTransactionAdvisoryLocking::acquire_advisory_xact_lock). |
//!
//! After a drop on a thread without a runtime, the clean-up runs in the runtime of the checkout. A
//! current-thread runtime makes progress only inside `block_on`, so there the clean-up waits for
//! the next `block_on`. The termination of a wait does not depend on that: it has a thread of its
//! own.
//!
//! # Transactions
//!
//! This crate knows the transactions that were begun with the methods of [`PinnedConnection`] and
//! [`PinnedTransaction`]. It does not see a `BEGIN` that is sent as plain text:
//!
//! * A session-level lock is granted inside such a transaction. Its release reports
//!   [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen) if the transaction is still
//!   open.
//! * If the body sends the `BEGIN` and has written in that transaction, the release reports the
//!   same. If it has only read, the connection returns to the pool inside the transaction, as it
//!   would without a lock.
//!
//! On SQLite, such a transaction is rolled back when the connection returns to the pool.
//!
//! All handles of a body share one connection. If two tasks of a body each begin a transaction, one
//! is nested in the other.
//!
//! # Streams, `COPY` and `DISCARD`
//!
//! A stream reads its rows as the body polls it. A statement that runs meanwhile first moves the
//! remaining rows into memory. For a large result, read the stream to its end before the next
//! statement, or drop it.
//!
//! sqlx has functions of its own for [`COPY`][copy] from and to the client. Sent as a statement, it
//! is an error, and the connection is closed, because sqlx 0.9.0 cannot read its reply. The lock is
//! then [lost](crate::LockError::is_lost).
//!
//! `DISCARD ALL` releases the lock, and removes the prepared statements that sqlx has in its cache.
//! The release reports [`NotHeld`](crate::LockErrorKind::NotHeld).
//!
//! [copy]: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
//!
//! # Errors
//!
//! [`LockError`](crate::LockError) converts into [`DbErr`](::sea_orm::DbErr), so `?` works in a
//! body that returns SeaORM's errors. The error is a `TryIntoErr` whose source downcasts to
//! `LockError`. A failed commit converts to SeaORM's own error.
//!
//! ```
//! use advisory_locking::{
//!     AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockOptions, OnMissingLock,
//! };
//! use sea_orm::{ConnectionTrait, Database, DbErr};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), DbErr> {
//! let db = Database::connect("sqlite::memory:").await?;
//! let strict = LockOptions::no_wait().on_missing_lock(OnMissingLock::Error);
//! let rejected = db
//!     .with_advisory_lock("report", strict, async |db| db.execute_unprepared("SELECT 1").await)
//!     .await;
//!
//! let Err(DbErr::TryIntoErr { source, .. }) = rejected else { panic!("SQLite has no locks") };
//! let error = source.downcast_ref::<LockError>().unwrap();
//! assert_eq!(error.kind(), LockErrorKind::NoMutualExclusion);
//! # Ok(())
//! # }
//! ```

mod error;
mod handle;
mod in_transaction;
mod native;
mod open_stream;
mod pinned;
mod session;
mod sqlite_connection;
mod state;
mod statements;
mod transaction_log;
mod transactions;

pub(crate) use error::hidden_cause;
pub use handle::{PinnedConnection, PinnedTransaction, RowStream};
pub use in_transaction::AsyncTransactionAdvisoryLocking;
