//! The harnesses of `tests/conformance` that are mounted here, and [`pooled`].
#![allow(dead_code, reason = "not everything there is mounted here")]

#[path = "../../conformance/harness/diesel_async.rs"]
mod diesel_async;
#[path = "../../conformance/harness/diesel_postgres.rs"]
mod diesel_postgres;
#[path = "../../conformance/harness/no_locks.rs"]
mod no_locks;
pub(crate) mod pooled;
#[path = "../../conformance/harness/postgres.rs"]
pub(crate) mod postgres;
#[path = "../../conformance/harness/sea_orm.rs"]
mod sea_orm;
