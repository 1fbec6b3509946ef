//! Futures that are dropped before they are ready, on a PostgreSQL server: no lock stays held or
//! queued, and no pool loses a connection.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod adapters;
mod blocking;
mod dropping;
mod guards;
mod instrumentation;
mod late_waits;
mod no_runtime;
mod pools;
mod round_trips;
mod sea_orm;
mod server_log;
mod sessions;
mod settings;
mod sqlx;
mod timeouts;
mod tls;
mod tokio_postgres;
mod upstream_bugs;
