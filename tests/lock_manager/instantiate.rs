//! The lists of cases, and the macros that make tests of them for each pool.

use crate::pool_under_test::{PoolKind, PoolUnderTest};
use crate::test_manager::Caller;

/// Makes tests of all cases but those of the queue.
macro_rules! all_cases {
    ($($module:ident => $kind:ident, $caller:ident;)*) => {$(
        mod $module {
            shared_server_cases!($kind, $caller);
            private_server_cases!($kind, $caller);
        }
    )*};
}

/// Makes tests of the cases that need no server of their own.
macro_rules! most_cases {
    ($($module:ident => $kind:ident, $caller:ident;)*) => {$(
        mod $module {
            shared_server_cases!($kind, $caller);
        }
    )*};
}

macro_rules! shared_server_cases {
    ($kind:ident, $caller:ident) => {
        cases!($kind, $caller,
            exclusion: second_manager_is_excluded, plain_lock_and_manager_exclude_each_other,
                manager_excludes_plain_sql, callers_of_one_manager_exclude_each_other,
                contending_holders_never_overlap;
            waiting: elapsed_limit_leaves_nothing, waiter_is_granted_when_the_key_is_free,
                blocking_waiter_waits_on_the_server,
                blocking_waiter_polls_without_waiting_sessions,
                blocking_waiter_polls_without_a_connection, waiters_share_the_free_connections,
                invalid_options_are_rejected;
            all: acquires_each_key_once_in_order, acquires_none_if_one_is_contended, acquires_none_if_the_limit_elapses,
                limit_applies_to_the_whole_call, opposite_orders_do_not_deadlock,
                thousand_keys_take_one_round_trip;
            bodies: body_runs_under_the_lock, body_error_has_precedence,
                panic_in_a_body_releases_the_lock, guard_dropped_anywhere_releases_the_lock;
            loss: holder_learns_of_its_loss, release_reports_a_loss,
                idle_session_is_replaced, call_for_several_keys_survives_losses, polling_waiters_survive_session_loss, blocking_waiters_survive_session_loss,
                session_loss_affects_its_own_locks_only;
            faults: silence_under_a_holder, silence_under_a_waiter, silence_under_a_poller,
                close_does_not_await_a_silent_server, a_lost_release, a_lost_grant;
            closing: close_rejects_waiters_and_awaits_holders, close_does_not_await_server_waiters,
                last_clone_releases_all_locks, pool_closes_before_its_lock_manager,
                connections_return_to_the_pool;
            limits: exhausted_pool_is_reported, limit_covers_the_checkout;
            fencing: tokens_grow, unsuitable_sequence_is_rejected, stale_writer_is_rejected;
        );
    };
}

macro_rules! private_server_cases {
    ($kind:ident, $caller:ident) => {
        cases!($kind, $caller,
            faults: the_server_restarts, the_server_crashes;
            limits: ten_thousand_keys_fit_on_one_session, full_lock_table_rejects_further_keys,
                full_lock_table_ends_a_call_for_many_keys;
        );
    };
}

/// Makes tests of the cases for clients that find a closed connection without I/O of a call.
macro_rules! closed_connection_cases {
    ($($module:ident => $kind:ident;)*) => {$(
        mod $module {
            cases!($kind, Async,
                loss: holder_learns_of_a_closed_connection;
            );
        }
    )*};
}

/// Makes tests of the cases of the in-process queue. They poll a call once, so they need async
/// callers.
macro_rules! queue_cases {
    ($($module:ident => $kind:ident;)*) => {$(
        mod $module {
            cases!($kind, Async,
                queue: waiters_are_served_in_order, sharers_do_not_overtake_a_waiting_writer, cancelled_waiter_leaves_the_queue,
                    handed_off_lock_stays_held_on_the_server, hand_off_count_is_bounded, hand_off_time_is_bounded,
                    poller_of_another_manager_is_served,
                    snapshot_shows_holder_and_waiters;
            );
        }
    )*};
}

macro_rules! cases {
    ($kind:ident, $caller:ident, $($group:ident: $($case:ident),*;)*) => {$($(
        #[test]
        fn $case() {
            crate::instantiate::run_case(
                crate::pool_under_test::PoolKind::$kind,
                crate::test_manager::Caller::$caller,
                crate::cases::$group::$case,
            );
        }
    )*)*};
}

/// Runs a case on one kind of pool. A case may block its own thread; sessions and tasks have two
/// others.
pub(crate) fn run_case<F: Future<Output = ()>>(
    kind: PoolKind,
    caller: Caller,
    case: impl FnOnce(PoolUnderTest) -> F,
) {
    in_runtime(case(PoolUnderTest::new(kind, caller)));
}

pub(crate) fn in_runtime(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(case);
}
