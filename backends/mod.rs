//! Databases, client libraries and connection pools.
//!
//! A *backend* is a database, an *adapter* a client library or a pool. A backend's module holds the
//! SQL that is sent to it and the meaning of its error codes. An adapter runs statements, reports
//! errors and terminates sessions: it implements the ports in [`session`](crate::session).
//!
//! | module | contents |
//! |---|---|
//! | `postgres` | backend: statements, scripts, the terminate sequence, SQLSTATEs |
//! | `sqlite` | backend: the no-op, and its warning, which is logged once for each of the first keys |
//! | `diesel` | adapter: `PgConnection`, `SqliteConnection` and enums of both |
//! | `diesel_async` | adapter: `AsyncPgConnection`, `SyncConnectionWrapper<SqliteConnection>` |
//! | `sea_orm` | adapter: `DatabaseConnection` and `DatabaseTransaction` |
//! | `sqlx` | adapter: connections, transactions and pools of PostgreSQL and SQLite |
//! | `tokio_postgres` | adapter: `Client` and `Transaction` |
//! | `rust_postgres` | adapter: `Client` and `Transaction` of the blocking crate postgres |
//! | `deadpool_postgres` | adapter: the connections of deadpool-postgres |
//! | `rusqlite` | adapter: `Connection`, `Transaction` and `Savepoint` |
//! | `r2d2` | pool of a blocking adapter's connections |
//! | `bb8`, `deadpool`, `mobc` | pools of an async adapter's connections |
//! | `background` | jobs that a dropped future leaves to a runtime or a thread |
//! | `open_transactions` | the depth of transactions that a client does not count |
//! | `runtime_bound` | values that are dropped and polled in the tokio runtime they came from |
//!
//! The page of each pool says how that pool discards a broken connection.

#[cfg(feature = "_postgres-async")]
mod background;
#[cfg(feature = "bb8")]
pub mod bb8;
#[cfg(feature = "deadpool")]
pub mod deadpool;
#[cfg(feature = "deadpool-postgres")]
pub mod deadpool_postgres;
#[cfg(feature = "_diesel")]
pub mod diesel;
#[cfg(feature = "_diesel-async")]
pub mod diesel_async;
#[cfg(feature = "mobc")]
pub mod mobc;
#[cfg(any(feature = "_rust-postgres", feature = "rusqlite"))]
pub(crate) mod open_transactions;
pub(crate) mod postgres;
#[cfg(feature = "r2d2")]
pub mod r2d2;
#[cfg(feature = "_runtime-bound")]
mod runtime_bound;
#[cfg(feature = "rusqlite")]
pub mod rusqlite;
#[cfg(feature = "postgres")]
pub mod rust_postgres;
#[cfg(feature = "sea-orm")]
pub mod sea_orm;
pub(crate) mod sqlite;
#[cfg(any(feature = "_sqlx-postgres", feature = "sqlx-sqlite"))]
pub mod sqlx;
#[cfg(any(feature = "diesel-async-postgres", feature = "tokio-postgres"))]
pub mod tokio_postgres;
// The blocking crate uses parts of it.
#[cfg(all(
    feature = "postgres",
    not(any(feature = "diesel-async-postgres", feature = "tokio-postgres"))
))]
mod tokio_postgres;

#[cfg(feature = "_runtime-bound")]
pub use runtime_bound::RuntimeBound;
