//! PostgreSQL's advisory locks in memory, for tests without a server and for faults that no server
//! produces on demand.
//!
//! [`server`] is a state machine without threads or time. Its driver decides when a limit has
//! passed and when the server looks for deadlocks. [`session`] is a blocking client. The agreement
//! scripts of the conformance suite compare the model with a real server.
#![allow(
    dead_code,
    unused_imports,
    reason = "several test targets share this module, and none uses all of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a model that is used wrongly fails its test"
)]

pub(crate) mod batches;
pub(crate) mod deadlock;
pub(crate) mod fault;
pub(crate) mod queue;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod statements;
pub(crate) mod transactions;

pub(crate) use fault::{ClientPanic, Fault};
pub(crate) use server::{Code, Held, Level, Lock, Pid, Requested, Server, Ticket};
pub(crate) use session::{Model, ModelSession};
