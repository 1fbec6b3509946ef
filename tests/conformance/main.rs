//! Every case on every adapter.
//!
//! A case is written once, in [`cases`], and sends commands to actors. An adapter is one
//! [`Harness`](fixture::Harness). On a backend without locks, a case asserts the behaviour that
//! the backend documents; no case is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[macro_use]
mod suite;

mod actor;
#[cfg(feature = "_all")]
mod actor_async;
mod actor_blocking;
#[cfg(feature = "_all")]
mod actor_pooled;
mod cases;
#[cfg(feature = "_all")]
mod cross_adapter;
#[cfg(feature = "_all")]
mod failed_commits;
mod faulty_adapters;
mod fixture;
mod harness;
#[cfg(feature = "_all")]
mod model_vs_server;

conformance! {
    model => crate::harness::model::showing_codes();
    model_hiding_codes => crate::harness::model::hiding_codes();
}

#[cfg(feature = "_all")]
conformance! {
    diesel_postgres => crate::harness::diesel_postgres::DIESEL.on_test_server();
    r2d2_postgres => crate::harness::r2d2_postgres::R2D2.on_test_server();
    multi_connection => crate::harness::multi_connection::MULTI_CONNECTION.on_test_server();
    diesel_async_postgres => crate::harness::diesel_async::DIESEL_ASYNC.on_test_server();
    bb8_postgres => crate::harness::diesel_async::BB8.on_test_server();
    deadpool_postgres => crate::harness::diesel_async::DEADPOOL.on_test_server();
    mobc_postgres => crate::harness::diesel_async::MOBC.on_test_server();
    sea_orm_postgres => crate::harness::sea_orm::SEA_ORM.on_test_server().survives_lost_statements();
    sqlx_postgres => crate::harness::sqlx::SQLX.on_test_server().survives_lost_statements();
    sqlx_pool_postgres => crate::harness::sqlx::SQLX_POOL.on_test_server().survives_lost_statements().ends_raw_transactions();
    tokio_postgres => crate::harness::tokio_postgres::TOKIO_POSTGRES.on_test_server().survives_lost_statements();
    tokio_postgres_bb8 => crate::harness::tokio_postgres::BB8.on_test_server().survives_lost_statements();
    tokio_postgres_deadpool => crate::harness::tokio_postgres::DEADPOOL.on_test_server().survives_lost_statements();
    rust_postgres => crate::harness::rust_postgres::POSTGRES.on_test_server().survives_lost_statements();
    rust_postgres_r2d2 => crate::harness::rust_postgres::R2D2.on_test_server().survives_lost_statements();
    diesel_sqlite => crate::harness::diesel_sqlite::DIESEL;
    r2d2_sqlite => crate::harness::r2d2_sqlite::R2D2;
    rusqlite => crate::harness::rusqlite::RUSQLITE;
    diesel_async_sqlite => crate::harness::diesel_async::SQLITE;
    bb8_sqlite => crate::harness::diesel_async::SQLITE_BB8;
    deadpool_sqlite => crate::harness::diesel_async::SQLITE_DEADPOOL;
    mobc_sqlite => crate::harness::diesel_async::SQLITE_MOBC;
    sea_orm_sqlite => crate::harness::sea_orm::SQLITE;
    sqlx_sqlite => crate::harness::sqlx::SQLITE;
    sqlx_pool_sqlite => crate::harness::sqlx::SQLITE_POOL;
}
