//! sqlx: `PgConnection`, `PgTransaction` and `PgPool`, which have advisory locks, and the same
//! types of SQLite, which have none.
//!
//! | sqlx's type | locks |
//! |---|---|
//! | `PgPool` | as [`AsyncPooledAdvisoryLocking`](crate::AsyncPooledAdvisoryLocking) |
//! | `PgConnection`, `PoolConnection<Postgres>` | as [`AsyncAdvisoryLocking`](crate::AsyncAdvisoryLocking) |
//! | `PgTransaction` | the transaction-level ones of [`AsyncAdvisoryLocking`](crate::AsyncAdvisoryLocking) |
//! | `SqlitePool`, `SqliteConnection`, `PoolConnection<Sqlite>`, `SqliteTransaction` | no-op |
//! | `MySqlPool`, `AnyPool` | none: such a program does not compile |
//!
//! ```
//! # #[cfg(feature = "sqlx-sqlite")] {
//! use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions};
//! use sqlx::SqlitePool;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> sqlx::Result<()> {
//! // A PgPool in production.
//! let pool = SqlitePool::connect("sqlite::memory:").await?;
//! pool.with_advisory_lock(("sync", 4), LockOptions::no_wait(), async |conn| {
//!     sqlx::query("CREATE TABLE client (id INTEGER)").execute(&mut *conn).await
//! })
//! .await?;
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```
//!
//! The application enables sqlx's features for the database, the runtime and TLS.
//!
//! # Transactions
//!
//! The transactions of this crate are sqlx's own, so they nest with those of the application. sqlx
//! does not see a `BEGIN` that is sent as plain text:
//!
//! * A session-level lock is granted inside such a transaction. Its release reports
//!   [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen) if the transaction is still
//!   open.
//! * If the body sends the `BEGIN` and has written in that transaction, the release reports the
//!   same. If it has only read, the release succeeds, and a connection of a `PgPool` method is then
//!   closed instead of returned.
//!
//! # Dropped futures
//!
//! sqlx 0.9.0 cannot cancel a statement. A future may be dropped in these states:
//!
//! | in flight | what follows |
//! |---|---|
//! | statement of the body, through a `PgPool` | It runs to its end. Then the lock is released. The connection returns to the pool. |
//! | statement of the body, on another type | The same, but no task reads the reply. If that is larger than the socket's buffers, the lock is held until the next use of the connection. Its drop ends the session. |
//! | body whose transaction is open, under a session-level lock | The transaction is rolled back, then the lock is released. The connection returns to the pool. |
//! | `begin` of the body | sqlx does not count the transaction. Under a session-level lock, a connection of a `PgPool` method is closed. On another type, send `ROLLBACK` as text. If the call is dropped with the `begin`, the session is terminated. |
//! | the same in `with_advisory_xact_lock`, inside a transaction of the caller | sqlx rolls back that transaction, too, and its commit then succeeds without effect. The call returns `NotHeld`, or terminates the session if it is dropped. On SQLite, sqlx does so only if the call is dropped. |
//! | statement whose reply never ends, because the server waits for the client (`COPY … FROM STDIN`) | A pooled connection is closed after some seconds. Another connection waits until it is closed. |
//! | `PgCopyIn` or `PgCopyOut` of the body | sqlx loses count of the replies. The call fails, and a connection of a `PgPool` method is closed. |
//! | body of a transaction-level lock, or a request for one, outside a wait | The transaction of the crate is rolled back. The connection stays usable. |
//! | commit of `with_advisory_xact_lock` | A rollback follows it. Then the session is terminated. |
//! | request for a session-level lock | The session is terminated. |
//! | wait on the server, through a `PgPool` | The session is terminated by its process id, over a new connection. |
//! | wait on the server, on another type | It ends after 1.5 s at most. Each such wait is repeated at that interval, at the end of the server's queue. |
//! | request for a transaction-level lock in a transaction of the caller | The transaction stays open. It may hold the lock or be aborted: roll it back. |
//! | request for a session-level lock in a transaction of the caller, or a statement of its body | The session may hold the lock until its connection is closed. |
//! | the end of the reply to a statement that failed there, when the guard is dropped | The same. [`release`](crate::AsyncAdvisoryLockGuard::release) reads that reply first. |
//!
//! The drop sends its messages at once, and the server runs them after the statement in flight.
//! sqlx sends the rollback of a dropped transaction of the application with the next statement.
//!
//! # Errors
//!
//! [`LockError`](crate::LockError) converts into [`sqlx::Error`], so `?` works in a
//! body that returns sqlx's errors. It becomes [`Encode`](::sqlx::Error::Encode), whose box
//! downcasts to `LockError`. A failed commit becomes sqlx's own error.
//!
//! # Broken connections
//!
//! A pooled connection whose session was terminated does not return to its pool. sqlx's
//! `PgConnection` has no mark for that. Each statement on it fails once its session has ended.

#[cfg(feature = "sqlx-postgres")]
mod connection;
#[cfg(feature = "sqlx-postgres")]
mod detached;
pub(crate) mod error;
#[cfg(feature = "sqlx-postgres")]
mod pool;
#[cfg(feature = "sqlx-sqlite")]
mod sqlite;
#[cfg(feature = "_sqlx-postgres")]
pub(crate) mod stall;
#[cfg(feature = "_sqlx-postgres")]
pub(crate) mod statements;
#[cfg(feature = "_sqlx-postgres")]
pub(crate) mod terminate;
#[cfg(feature = "sqlx-postgres")]
mod transactions;
#[cfg(feature = "_sqlx-postgres")]
pub(crate) mod values;

#[cfg(feature = "sqlx-postgres")]
pub use pool::PooledPgConnection;
