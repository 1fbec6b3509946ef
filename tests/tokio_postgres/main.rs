//! Tests of tokio-postgres's own types: `Client`, `Transaction`, and the pools.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod blocking;
mod errors;
mod in_transaction;
mod open;
mod raw_begin;
