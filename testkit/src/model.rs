//! PostgreSQL's advisory locks in memory, for tests without a server and for faults that no server
//! produces on demand.
//!
//! [`server`] is a state machine without threads or time. Its driver decides when a limit has
//! passed and when the server looks for deadlocks. [`session`] is a blocking client. The agreement
//! scripts of the conformance suite compare the model with a real server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a model that is used wrongly fails its test"
)]

pub mod batches;
pub mod deadlock;
pub mod fault;
pub mod queue;
pub mod server;
pub mod session;
pub mod statements;
pub mod transactions;

pub use fault::{ClientPanic, Fault};
pub use server::{Code, Held, Lock, Pid, Requested, Server, Ticket};
pub use session::{Model, ModelSession};
