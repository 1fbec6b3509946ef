//! Servers that are not PostgreSQL or not the primary, and poolers with more abilities than
//! PgBouncer. `testkit` makes them from the test server.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod client;
mod errors;
mod identify;
mod lock_manager;
mod poolers;
mod signs;
