//! Diesel on a PostgreSQL server: faults, races and bad inputs. `scripts/test` starts a server.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and the races print their counters"
)]

mod concurrent_index;
mod deadlock;
mod errors;
mod hashes;
mod instrumentation;
mod interrupted;
mod permissions;
mod reports;
mod round_trips;
mod search_path;
mod settings;
mod terminated_sessions;
mod timeout_race;
mod timeouts;
mod transactions;
mod two_modes;
mod unread_replies;
