//! Locks through PgBouncer. Each test starts its own in front of the test server.
//!
//! * Session mode: everything works, and the suite of `tests/conformance` runs through it.
//! * Transaction mode: transaction-level locks work, for the clients that support this mode.
//!   Session-level locks do not. A reply of another session is reported, and `detect_pooler`
//!   recognizes the mode.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and some print their counts"
)]

#[macro_use]
#[path = "../conformance/suite.rs"]
mod suite;

#[path = "../conformance/actor.rs"]
mod actor;
#[path = "../conformance/actor_async.rs"]
mod actor_async;
#[path = "../conformance/actor_blocking.rs"]
mod actor_blocking;
#[path = "../conformance/cases/mod.rs"]
mod cases;
mod detection;
mod dropped_waits;
#[allow(dead_code, reason = "not every harness is used here")]
#[path = "../conformance/fixture.rs"]
mod fixture;
mod harness;
mod pooler;
mod transactions;
mod unprepared;

// Every case in session mode. One line for each client.
conformance! {
    session_mode_diesel => crate::harness::pooled::session_mode(crate::harness::diesel_postgres::DIESEL);
    session_mode_diesel_async => crate::harness::pooled::session_mode(crate::harness::diesel_async::DIESEL_ASYNC);
    session_mode_sqlx => crate::harness::pooled::session_mode(crate::harness::sqlx::SQLX).survives_lost_statements();
    session_mode_sqlx_pool => crate::harness::pooled::session_mode(crate::harness::sqlx::SQLX_POOL).survives_lost_statements().ends_raw_transactions();
    session_mode_sea_orm => crate::harness::pooled::session_mode(crate::harness::sea_orm::SEA_ORM).survives_lost_statements();
    session_mode_tokio_postgres => crate::harness::pooled::session_mode(crate::harness::tokio_postgres::TOKIO_POSTGRES).survives_lost_statements();
}

// Every case of transaction-level locks in transaction mode. One line for each client that
// supports it.
conformance! {
    @only
    transactions: xact_lock_outside_is_refused, xact_lock_ends_with_the_transaction, rollback_to_a_savepoint_frees,
        xact_timeout_leaves_the_transaction_usable, xact_in_an_aborted_transaction;
    scopes: a_scope_commits_or_rolls_back, scopes_nest, a_panic_in_a_nested_scope, a_scope_refused_begins_nothing,
        a_scope_left_in_a_savepoint, a_scope_ended_by_its_body, a_scope_aborted_under_its_body,
        a_nested_scope_aborted_under_its_body;
    =>
    transaction_mode_diesel => crate::harness::pooled::transaction_mode(crate::unprepared::DIESEL_UNPREPARED);
}
