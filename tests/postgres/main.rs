//! Diesel on a real PostgreSQL server: faults, races and bad inputs. `scripts/test` brings a server.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that fails says so by panicking, and the raced ones print what they met"
)]

mod condemned;
mod deadlock;
mod errors;
#[cfg(feature = "schemes")]
mod hashes;
mod index;
mod interrupted;
mod missing;
mod proxy;
mod raced;
mod round_trips;
mod rounds;
mod settings;
mod shadowed;
mod support;
mod throwaway;
mod transactions;
