//! tokio-postgres: `Client` and `Transaction`, without another client library.
//!
//! | connection | locks |
//! |---|---|
//! | [`Client`](::tokio_postgres::Client), also in a pool of bb8 | session-level; transaction-level with a body |
//! | [`Transaction`](::tokio_postgres::Transaction) | transaction-level |
//! | deadpool-postgres: see the feature `deadpool-postgres` | as `Client` |
//!
//! Bring [`AsyncAdvisoryLocking`](crate::AsyncAdvisoryLocking) into scope. Its methods take `&mut`,
//! because statements of several tasks on one `Client` share one session. The body of a lock
//! receives the `Client` again.
#![cfg_attr(feature = "tokio-postgres", doc = "```no_run")]
#![cfg_attr(not(feature = "tokio-postgres"), doc = "```ignore")]
//! use advisory_locking::{AsyncAdvisoryLocking, LockError, LockOptions};
//! use tokio_postgres::{Client, NoTls};
//!
//! #[derive(Debug)]
//! enum JobError {
//!     Lock(LockError),
//!     Database(tokio_postgres::Error),
//! }
//! # impl From<LockError> for JobError {
//! #     fn from(error: LockError) -> Self {
//! #         Self::Lock(error)
//! #     }
//! # }
//! # impl From<tokio_postgres::Error> for JobError {
//! #     fn from(error: tokio_postgres::Error) -> Self {
//! #         Self::Database(error)
//! #     }
//! # }
//! // with `From<LockError>` and `From<tokio_postgres::Error>`
//!
//! async fn sync(client: &mut Client) -> Result<u64, JobError> {
//!     client
//!         .with_advisory_lock(("sync", 4), LockOptions::no_wait(), async |client| {
//!             Ok(client.execute("DELETE FROM stale", &[]).await?)
//!         })
//!         .await
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<(), JobError> {
//! let (mut client, connection) = tokio_postgres::connect("host=localhost", NoTls).await?;
//! tokio::spawn(connection);
//! sync(&mut client).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Transactions
//!
//! A `Client` does not know whether a transaction is open. This crate knows the transactions that
//! its own methods have begun on it, and it counts savepoints in them.
//!
//! | transaction | session-level lock | [`acquire_advisory_xact_lock`] | [`with_advisory_xact_lock`] |
//! |---|---|---|---|
//! | [`Transaction`](::tokio_postgres::Transaction) | refused, or allowed by the options | granted | in a savepoint |
//! | of a body of [`with_advisory_xact_lock`] | refused, or allowed by the options | granted | in a savepoint |
//! | `BEGIN` as plain text | granted; the release fails until the transaction ends | `NotInTransaction` | fails, and terminates the session |
//!
//! In a body of [`with_advisory_xact_lock`], do not call [`Client::transaction`], which sends a
//! second `BEGIN`: its commit would end the transaction of the lock. The call then returns
//! [`NotHeld`](crate::LockErrorKind::NotHeld). Nest [`with_advisory_xact_lock`] there, or send
//! savepoints as text.
//!
//! # Statements
//!
//! A `Client` has no cache of prepared statements, and no place for one. So each lock statement is
//! sent unprepared, in one round trip, and needs no pooler that supports prepared statements. A
//! connection of deadpool-postgres has a cache, and its lock statements are prepared once.
//!
//! # Streams
//!
//! A stream does not borrow its `Client`, so a body could return one. End each stream in the body:
//!
//! | stream that outlives the body | what follows |
//! |---|---|
//! | [`RowStream`](::tokio_postgres::RowStream), [`CopyOutStream`](::tokio_postgres::CopyOutStream) | The reply to the release arrives after the last row is read, or the stream is dropped. A call that returns a long stream never ends. |
//! | [`CopyInSink`](::tokio_postgres::CopyInSink) | The release is sent after the sink is finished or dropped. The lock is held until then, also if the call is dropped. |
//!
//! # Broken connections
//!
//! This crate terminates a session of which it does not know whether it holds the lock, and closes
//! its `Client`: [`is_closed`](::tokio_postgres::Client::is_closed) returns `true`. The managers of
//! bb8-postgres and deadpool-postgres read that, and open another connection.
//!
//! A `Transaction` only borrows its `Client`. After a termination in it, the `Client` is closed
//! once the server has ended the session. A pool may hand it out before that, unless it checks each
//! connection by a statement. bb8 does so by default, and deadpool-postgres with
//! `RecyclingMethod::Verified`.
//!
//! A role without `EXECUTE` on [`pg_terminate_backend`] cannot end its session. The transaction is
//! then rolled back, and all locks of the session are released. Each further statement of the
//! `Transaction` fails, and its commit succeeds without effect.
//!
//! # Dropped futures
//!
//! tokio-postgres does not stop a statement whose future was dropped. If the future of a lock
//! statement is dropped in flight, this crate terminates the session without waiting:
//!
//! * It queues the statements that terminate the session, more than once. A cancel request may hit
//!   one.
//! * It closes the `Client`.
//! * It cancels a wait for a lock: from a task in a multi-thread runtime, else from a thread.
//!
//! A cancel request uses a connection of its own, by default without encryption. PostgreSQL accepts
//! it also if it accepts sessions with TLS only. With `sslmode=require` the client sends no request
//! without a TLS connector: see [`set_cancel_tls`]. A proxy that accepts TLS only needs one, too.
//!
//! A wait that is not cancelled stays in the server's queue until its turn, or to its limit. Then
//! its session ends at once, and with it the lock. The wait ends within a second if the task of its
//! `Connection` is aborted, which closes the connection. That needs PostgreSQL 14 or later on
//! Linux, 15 or later on macOS and BSD. An interval that is set for such checks replaces the
//! second, see [`WaitStrategy::Block`](crate::WaitStrategy::Block).
//!
//! The drop of a `Client` alone does not close it before the reply. deadpool-postgres aborts that
//! task when it discards the connection: at once in the methods of the pool, otherwise at its next
//! checkout.
//!
//! PgBouncer 1.18 drops a cancel request whose connection is closed at once, as tokio-postgres
//! does. So behind it, every dropped wait counts as not cancelled.
//!
//! # Errors
//!
//! [`tokio_postgres::Error`] cannot contain other errors. So a body
//! returns an error of the application that converts from both, or a
//! `Box<dyn std::error::Error + Send + Sync>`. [`LockError::find`](crate::LockError::find) finds
//! the lock error in it. The client's error is the [source](std::error::Error::source) of the lock
//! error.
//!
//! [`Client::transaction`]: ::tokio_postgres::Client::transaction
//! [`pg_terminate_backend`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
//! [`acquire_advisory_xact_lock`]: crate::AsyncAdvisoryLocking::acquire_advisory_xact_lock
//! [`with_advisory_xact_lock`]: crate::AsyncAdvisoryLocking::with_advisory_xact_lock

#[cfg(any(feature = "diesel-async-postgres", feature = "tokio-postgres"))]
mod cancel;
#[cfg(feature = "tokio-postgres")]
pub(crate) mod client;
#[cfg(feature = "_rust-postgres")]
pub(crate) mod error;
#[cfg(feature = "_rust-postgres")]
pub(crate) mod values;

#[cfg(any(feature = "diesel-async-postgres", feature = "tokio-postgres"))]
pub(crate) use cancel::cancel;
#[cfg(any(feature = "diesel-async-postgres", feature = "tokio-postgres"))]
pub use cancel::set_cancel_tls;
