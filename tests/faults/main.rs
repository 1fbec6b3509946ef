//! The protocol against the model of the server, with a fault at each request in turn. After an
//! error no lock is held, and a success means that the lock was held.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]
#![cfg_attr(
    not(feature = "bb8"),
    allow(dead_code, reason = "only a future can be dropped")
)]

// The async traits come with any async feature; this one needs no client.
#[cfg(feature = "bb8")]
mod asynchronous;
mod call;
mod client;
mod every_request;
mod fault_case;
mod pool;
mod random;
