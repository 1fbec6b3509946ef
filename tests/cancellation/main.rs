//! Futures that are dropped half-way, on a real server: nothing may stay held or queued, and no pool may shrink.

#![cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-async-postgres",
    feature = "diesel-async-sqlite",
    feature = "bb8",
    feature = "deadpool",
    feature = "mobc",
    feature = "sea-orm"
))]
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
mod counted;
mod dropping;
mod guards;
mod observer;
mod outside;
mod pending;
mod pools;
#[allow(dead_code, reason = "the tests of round trips need more of it")]
#[path = "../postgres/proxy.rs"]
mod proxy;
mod round_trips;
#[path = "../postgres/rounds.rs"]
mod rounds;
mod sea_orm;
mod sessions;
mod silence;
mod timeouts;
mod upstream;
