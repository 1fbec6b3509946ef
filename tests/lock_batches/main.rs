//! Batches of lock operations on a real PostgreSQL server, through every client.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[macro_use]
mod mount;

mod agreement;
mod cases;
mod client;

lock_batches! {
    diesel => crate::client::diesel;
    diesel_async => crate::client::diesel_async;
    tokio_postgres => crate::client::tokio_postgres;
    deadpool_postgres => crate::client::deadpool_postgres;
    rust_postgres => crate::client::rust_postgres;
    sea_orm => crate::client::sea_orm;
    sqlx => crate::client::sqlx;
    sqlx_pool => crate::client::sqlx_pool;
}
