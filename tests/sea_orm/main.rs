//! What is SeaORM's own: the handle a body runs on, its transactions and streams, and what a `DatabaseTransaction` can lock.

#![cfg(all(feature = "diesel-postgres", feature = "sea-orm"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod dropping;
mod entities;
mod errors;
mod handle;
mod in_transaction;
#[allow(dead_code, reason = "the tests of cancellation need more of it")]
#[path = "../cancellation/observer.rs"]
mod observer;
mod open;
mod transactions;
