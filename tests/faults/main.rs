//! The protocol against the model of the server, with a fault at every request: whatever fails and whenever, an error never leaves
//! a lock behind, and a success is never false.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "../model/mod.rs"]
mod model;

mod call;
mod every_request;
mod random;
mod trial;
