//! SeaORM: `DatabaseConnection`, whose backend is decided at run time, and `DatabaseTransaction`.
//!
//! | SeaORM's connection | what it gets |
//! |---|---|
//! | PostgreSQL through sqlx | the locks |
//! | SQLite, through sqlx or rusqlite; a mock or proxy of SQLite | the no-op |
//! | MySQL; a mock or proxy of another database; `Disconnected` | [`Unsupported`](crate::LockErrorKind::Unsupported), and nothing is sent |
//!
//! A `DatabaseConnection` is a pool, so its methods are those of [`AsyncPooledAdvisoryLocking`](crate::AsyncPooledAdvisoryLocking).
//! A lock belongs to one connection of it, and the body runs on that connection through a [`PinnedConnection`], which SeaORM's
//! entities, relations, paginators, loaders, raw statements, transactions and streams take as they take a `DatabaseConnection`. So a
//! pool of one connection is enough.
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
//! In a transaction that the application has begun, [`AsyncTransactionAdvisoryLocking`] takes transaction-level locks.
//!
//! SeaORM's features for the database, the runtime and TLS are the application's to turn on; this crate turns on `sqlx-postgres` and
//! `stream`. Of a `DatabaseConnection`'s own settings, the metric callback is not called for what runs on a [`PinnedConnection`];
//! sqlx logs it as it logs everything.
//!
//! # Dropped futures
//!
//! sqlx cannot cancel a statement. If a future is dropped while a wait of ours is on the server, its session is terminated by its
//! process id, over a connection made for it (so it works through TLS as well), and its own connection is closed; the pool makes
//! another. If the server has no room for that connection, or the process ends first, the wait lasts to its limit. If a future is
//! dropped while a statement of the body's runs, the lock is released when that has ended, and the connection goes back to the pool.
//!
//! What is dropped on a thread without a runtime is finished in the runtime where the connection was checked out. A runtime of one
//! thread does that when somebody blocks on it again; only what ends a wait does not depend on it.
//!
//! A wait in a `DatabaseTransaction` cannot be ended by us: see
//! [`acquire_advisory_xact_lock`](AsyncTransactionAdvisoryLocking::acquire_advisory_xact_lock).
//!
//! # Transactions
//!
//! What counts is what was begun on the [`PinnedConnection`]. A `BEGIN` sent as plain text is invisible: a session-level lock is granted
//! in it, and its release reports [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen) if that transaction is still open.
//! One that is sent under the lock is not noticed at all, and the connection goes back to the pool in it, as it would without a lock.
//!
//! It is one connection. Two tasks of a body that each begin a transaction at the same time have one inside the other; and while a
//! stream is read, other statements wait until it is dropped.
//!
//! # Errors
//!
//! [`LockError`](crate::LockError) converts into [`DbErr`](::sea_orm::DbErr), so that `?` works in a body that returns SeaORM's
//! errors: it arrives as `TryIntoErr`, whose source downcasts to it. A commit that failed arrives as SeaORM's own error.
//!
//! ```
//! use advisory_locking::{AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockOptions, OnMissingLock};
//! use sea_orm::{ConnectionTrait, Database, DbErr};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), DbErr> {
//! let db = Database::connect("sqlite::memory:").await?;
//! let strict = LockOptions::no_wait().on_missing_lock(OnMissingLock::Error);
//! let refused = db.with_advisory_lock("report", strict, async |db| db.execute_unprepared("SELECT 1").await).await;
//!
//! let Err(DbErr::TryIntoErr { source, .. }) = refused else { panic!("SQLite has no locks") };
//! let error = source.downcast_ref::<LockError>().unwrap();
//! assert_eq!(error.kind(), LockErrorKind::NoMutualExclusion);
//! # Ok(())
//! # }
//! ```

mod error;
mod executor;
mod handle;
mod in_transaction;
mod native;
mod pinned;
mod session;
mod statements;
mod terminate;
mod transactions;
mod values;

pub use handle::{PinnedConnection, PinnedTransaction, RowStream};
pub use in_transaction::AsyncTransactionAdvisoryLocking;
