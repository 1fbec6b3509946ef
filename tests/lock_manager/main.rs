//! The lock manager on a real server, with every pool and both kinds of callers.
//!
//! Each case is written once; `instantiate.rs` lists the cases and makes tests of them.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[macro_use]
mod instantiate;

mod auto_traits;
mod blocking_calls;
mod cases;
mod competing_session;
mod loss_signal;
mod misbehaving_pools;
mod pool_under_test;
mod r2d2_postgres;
mod runtimes;
mod sqlite;
mod test_manager;

all_cases! {
    bb8 => Bb8, Async;
    deadpool => Deadpool, Async;
    mobc => Mobc, Async;
    sea_orm => SeaOrm, Async;
    sqlx => Sqlx, Async;
    tokio_postgres => TokioPostgres, Async;
    deadpool_postgres => DeadpoolPostgres, Async;
    r2d2 => R2d2, Blocking;
}

most_cases! {
    bb8_from_threads => Bb8, Blocking;
    r2d2_from_tasks => R2d2, Async;
}

closed_connection_cases! {
    bb8_closed => Bb8;
    deadpool_closed => Deadpool;
    mobc_closed => Mobc;
    tokio_postgres_closed => TokioPostgres;
    deadpool_postgres_closed => DeadpoolPostgres;
}

/// It does not check an idle connection at its checkout.
mod unchecked_pool {
    cases!(DeadpoolPostgres, Async, faults: silent_idle_connection_is_replaced;);
}

/// It checks an idle connection without a limit.
mod pool_without_a_limit {
    cases!(Deadpool, Async, faults: silent_idle_connection_is_replaced;);
}

queue_cases! {
    bb8_queue => Bb8;
    deadpool_queue => Deadpool;
    mobc_queue => Mobc;
    sea_orm_queue => SeaOrm;
    sqlx_queue => Sqlx;
    tokio_postgres_queue => TokioPostgres;
    deadpool_postgres_queue => DeadpoolPostgres;
    r2d2_queue => R2d2;
}
