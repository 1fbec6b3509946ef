//! The databases, and one adapter per client library.
//!
//! A *backend* is a database, an *adapter* a client library. What a backend is asked and what its errors mean stands once, in
//! the backend's module; an adapter runs statements, reports errors, and can end its session.

#[cfg(feature = "_postgres-async")]
mod background;
#[cfg(feature = "bb8")]
pub mod bb8;
#[cfg(any(feature = "bb8", feature = "mobc"))]
mod checked_out;
#[cfg(feature = "deadpool")]
pub mod deadpool;
#[cfg(feature = "_diesel")]
pub mod diesel;
#[cfg(feature = "_diesel-async")]
pub mod diesel_async;
#[cfg(feature = "mobc")]
pub mod mobc;
pub(crate) mod postgres;
#[cfg(feature = "r2d2")]
pub mod r2d2;
#[cfg(feature = "_runtime-bound")]
mod runtime_bound;
#[cfg(feature = "rusqlite")]
pub mod rusqlite;
#[cfg(feature = "sea-orm")]
pub mod sea_orm;
pub(crate) mod sqlite;

#[cfg(any(feature = "bb8", feature = "mobc"))]
pub use checked_out::CheckedOut;
