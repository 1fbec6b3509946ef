//! Tests of SeaORM's handles: the body's connection, its transactions and streams, and locks in a
//! `DatabaseTransaction`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod cancellation;
mod entities;
mod errors;
mod handle;
mod in_transaction;
mod mock;
mod open;
mod prepared;
mod random;
mod replies;
mod sqlite;
mod transactions;
