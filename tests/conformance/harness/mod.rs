//! The adapters, each as a [`Harness`](crate::fixture::Harness).

#[cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-sqlite",
    feature = "diesel-async-postgres",
    feature = "diesel-async-sqlite",
    feature = "bb8",
    feature = "deadpool",
    feature = "mobc"
))]
pub(crate) mod diesel_async;
#[cfg(feature = "diesel-postgres")]
pub(crate) mod diesel_postgres;
#[cfg(feature = "diesel-sqlite")]
pub(crate) mod diesel_sqlite;
pub(crate) mod model;
#[cfg(all(feature = "diesel-postgres", feature = "diesel-sqlite"))]
pub(crate) mod multi_connection;
#[cfg(any(feature = "diesel-sqlite", feature = "rusqlite"))]
mod no_locks;
#[cfg(feature = "diesel-postgres")]
pub(crate) mod postgres;
#[cfg(all(feature = "diesel-postgres", feature = "r2d2"))]
pub(crate) mod r2d2_postgres;
#[cfg(all(feature = "diesel-sqlite", feature = "r2d2"))]
pub(crate) mod r2d2_sqlite;
#[cfg(feature = "rusqlite")]
pub(crate) mod rusqlite;
#[cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-sqlite",
    feature = "sea-orm"
))]
pub(crate) mod sea_orm;
