//! The adapters, each as a [`Harness`](crate::fixture::Harness).

#[cfg(feature = "_all")]
pub(crate) mod diesel_async;
#[cfg(feature = "_all")]
pub(crate) mod diesel_postgres;
#[cfg(feature = "_all")]
pub(crate) mod diesel_sqlite;
pub(crate) mod model;
#[cfg(feature = "_all")]
pub(crate) mod multi_connection;
#[cfg(feature = "_all")]
mod no_locks;
#[cfg(feature = "_all")]
pub(crate) mod postgres;
#[cfg(feature = "_all")]
pub(crate) mod r2d2_postgres;
#[cfg(feature = "_all")]
pub(crate) mod r2d2_sqlite;
#[cfg(feature = "_all")]
pub(crate) mod rusqlite;
#[cfg(feature = "_all")]
pub(crate) mod rust_postgres;
#[cfg(feature = "_all")]
pub(crate) mod sea_orm;
#[cfg(feature = "_all")]
pub(crate) mod sqlx;
#[cfg(feature = "_all")]
pub(crate) mod tokio_postgres;
