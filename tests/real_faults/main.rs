//! Faults of a real server, each written once for all adapters for PostgreSQL: terminated and
//! cancelled sessions, restarts, a full lock table, silent networks, killed clients. Faults that
//! would break the shared test server happen on a private one.
//!
//! A case is a function of an
//! [`AdapterUnderTest`](adapter_under_test::AdapterUnderTest), whose actors connect where the case
//! requires. The actors are those of the conformance suite. A new adapter is one line in the list
//! below.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a child process prints its outcomes"
)]
#![allow(
    dead_code,
    reason = "the actors are shared with the conformance suite, and neither uses all of them"
)]

#[path = "../conformance/actor.rs"]
mod actor;
#[path = "../conformance/actor_async.rs"]
mod actor_async;
#[path = "../conformance/actor_blocking.rs"]
mod actor_blocking;
#[path = "../conformance/actor_pooled.rs"]
mod actor_pooled;
#[path = "../conformance/fixture.rs"]
mod fixture;
#[path = "../conformance/harness/mod.rs"]
mod harness;

mod adapter_under_test;
mod cases;
mod checkout;
mod client;
mod ended_while_idle;
mod pools;

/// Makes a test of each case for each adapter, for example `bb8_postgres::the_server_restarts`.
macro_rules! real_faults {
    ($($(#[$connecttribute:meta])* $adapter:ident: $kind:ident => $connect:expr;)*) => {$(
        $(#[$connecttribute])*
        mod $adapter {
            use crate::adapter_under_test::{Kind, AdapterUnderTest};

            const ADAPTER: AdapterUnderTest = AdapterUnderTest {
                name: stringify!($adapter),
                kind: Kind::$kind,
                connect_to: |endpoint| Box::new($connect.on(endpoint)),
            };

            real_faults!(@cases
                sessions: ended_while_it_polls, ended_while_it_waits, ended_while_held, ended_in_the_body, cancelled_in_the_body,
                    cancelled_all_the_time, cancelled_at_the_release, idle_for_too_long, leaked_and_closed, notified;
                limits: a_free_key_under_the_shortest_limit, a_limit_shorter_than_the_search_for_deadlocks,
                    a_row_and_a_key_in_one_cycle;
                environments: a_read_only_session, another_database, a_role_that_may_not_lock, a_hot_standby, another_language,
                    other_formats_and_encodings;
                server: the_server_restarts, the_server_restarts_at_once, the_server_crashes, the_lock_table_is_full,
                    the_server_is_gone;
                network: silence_under_a_holder, silence_under_a_waiter, a_cut_under_a_waiter, a_cut_at_the_release, a_lost_grant,
                    a_lost_release, ended_at_the_release;
                transactions: ended_by_any_text, a_lost_answer_to_the_commit, a_lost_commit, ended_before_the_commit,
                    ended_right_after_the_commit, ended_right_after_a_rejected_commit, prepared_for_two_phase_commit,
                    held_by_an_idle_body;
                processes: a_client_killed_while_it_holds, a_client_killed_while_it_waits, a_client_stopped_while_it_holds,
                    a_client_stopped_and_ended;
            );
        }
    )*};
    (@cases $($group:ident: $($case:ident),*;)*) => {$($(
        #[test]
        fn $case() {
            ADAPTER.run_case(stringify!($case), crate::cases::$group::$case);
        }
    )*)*};
}

real_faults! {
    diesel_postgres: Connection => crate::harness::diesel_postgres::DIESEL;
    r2d2_postgres: Pool => crate::harness::r2d2_postgres::R2D2;
    diesel_async_postgres: Connection => crate::harness::diesel_async::DIESEL_ASYNC;
    bb8_postgres: Pool => crate::harness::diesel_async::BB8;
    deadpool_postgres: Pool => crate::harness::diesel_async::DEADPOOL;
    mobc_postgres: Pool => crate::harness::diesel_async::MOBC;
    sea_orm_postgres: Pool => crate::harness::sea_orm::SEA_ORM;
    sqlx_postgres: Connection => crate::harness::sqlx::SQLX;
    sqlx_pool_postgres: Pool => crate::harness::sqlx::SQLX_POOL;
    rust_postgres: Connection => crate::harness::rust_postgres::POSTGRES;
    rust_postgres_r2d2: Pool => crate::harness::rust_postgres::R2D2;
    tokio_postgres: Connection => crate::harness::tokio_postgres::TOKIO_POSTGRES;
    tokio_postgres_bb8: Pool => crate::harness::tokio_postgres::BB8;
    tokio_postgres_deadpool: Pool => crate::harness::tokio_postgres::DEADPOOL;
}
