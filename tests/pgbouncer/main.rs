//! Locks through PgBouncer, which every test starts for itself in front of the server of the tests. `scripts/test` brings both.
//!
//! Where a pooler keeps a session for its client, everything works, and the suite of `tests/conformance` runs through it. Where it
//! pools transactions, transaction-level locks work, for the clients that work there at all; session-level locks do not, and
//! the tests hold what is promised then: it is reported if another session answers, and a probe with two connections tells.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that fails says so by panicking, and some print what they met"
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
mod clients;
#[allow(dead_code, reason = "not every harness is mounted here")]
#[path = "../conformance/fixture.rs"]
mod fixture;
mod harness;
mod pooler;
mod probe;
mod transactions;

// Every case, on a pooler that keeps sessions. One line for each client.
conformance! {
    session_mode_diesel => crate::harness::pooled::session_mode(crate::clients::DIESEL);
    session_mode_diesel_async => crate::harness::pooled::session_mode(crate::clients::DIESEL_ASYNC);
    session_mode_sea_orm => crate::harness::pooled::session_mode(crate::clients::SEA_ORM);
}

// Every case of transaction-level locks, on a pooler that does not. One line for each client that works there.
conformance! {
    @only
    transactions: xact_lock_outside_is_refused, xact_lock_ends_with_the_transaction, rollback_to_a_savepoint_frees,
        xact_timeout_leaves_the_transaction_usable, xact_in_an_aborted_transaction;
    scopes: a_scope_commits_or_rolls_back, scopes_nest, a_panic_in_a_nested_scope, a_scope_refused_begins_nothing,
        a_scope_left_in_a_savepoint, a_scope_ended_by_its_body, a_scope_aborted_under_its_body,
        a_nested_scope_aborted_under_its_body;
    =>
    transaction_mode_diesel => crate::harness::pooled::transaction_mode(crate::clients::DIESEL_UNPREPARED);
}
