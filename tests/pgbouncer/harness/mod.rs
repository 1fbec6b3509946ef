//! The harnesses of `tests/conformance` that are used here, and [`pooled`].
#![allow(dead_code, reason = "not everything there is used here")]

#[path = "../../conformance/harness/diesel_async.rs"]
pub(crate) mod diesel_async;
#[path = "../../conformance/harness/diesel_postgres.rs"]
pub(crate) mod diesel_postgres;
#[path = "../../conformance/harness/no_locks.rs"]
mod no_locks;
pub(crate) mod pooled;
#[path = "../../conformance/harness/postgres.rs"]
pub(crate) mod postgres;
#[path = "../../conformance/harness/sea_orm.rs"]
pub(crate) mod sea_orm;
#[path = "../../conformance/harness/sqlx.rs"]
pub(crate) mod sqlx;
#[path = "../../conformance/harness/tokio_postgres.rs"]
pub(crate) mod tokio_postgres;
