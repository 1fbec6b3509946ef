//! The protocol against the model of the server, with a fault at every request: whatever fails and whenever, an error never leaves
//! a lock behind, and a success is never false.

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

#[path = "../model/mod.rs"]
mod model;

// The async traits come with any async feature; this one needs no client.
#[cfg(feature = "bb8")]
mod asynchronous;
mod call;
mod client;
mod every_request;
mod pool;
mod random;
mod trial;
