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
            exclusion: a_second_locker_is_refused, a_plain_lock_and_a_locker_exclude_each_other,
                a_locker_excludes_plain_sql, users_of_one_locker_exclude_each_other,
                contention_never_overlaps;
            waiting: a_limit_passes_and_nothing_is_left, a_waiter_is_granted_when_the_key_is_free,
                whoever_blocks_waits_in_the_servers_queue,
                without_waiting_sessions_whoever_blocks_polls,
                options_that_make_no_sense_are_refused;
            all: each_key_once_and_in_order, none_if_one_is_refused, none_if_the_time_is_out,
                opposite_orders_do_not_deadlock, a_thousand_keys_in_one_round_trip;
            bodies: a_body_runs_under_the_lock, the_bodys_error_wins,
                a_panic_in_a_body_gives_the_lock_back, a_guard_may_be_dropped_anywhere;
            loss: a_holder_learns_of_its_loss, a_release_reports_a_loss,
                an_idle_session_is_replaced, those_who_poll_go_on, those_who_block_go_on,
                sessions_lose_only_their_own;
            faults: silence_under_a_holder, silence_under_a_waiter, silence_under_a_poller,
                closing_in_silence, a_lost_release, a_lost_grant;
            closing: closing_drains, closing_does_not_wait_for_others,
                the_last_clone_frees_everything, the_pool_gets_its_connections_back;
            limits: a_pool_without_connections_is_told_of;
            fencing: tokens_grow, an_unfit_sequence_is_refused, a_stale_writer_is_refused;
        );
    };
}

macro_rules! private_server_cases {
    ($kind:ident, $caller:ident) => {
        cases!($kind, $caller,
            faults: the_server_restarts, the_server_crashes;
            limits: ten_thousand_keys_on_one_session, a_full_lock_table_refuses_what_does_not_fit;
        );
    };
}

/// Makes tests of the cases of the in-process queue. They poll a call once, so they need async
/// callers.
macro_rules! queue_cases {
    ($($module:ident => $kind:ident;)*) => {$(
        mod $module {
            cases!($kind, Async,
                queue: waiters_are_served_in_order, later_sharers_do_not_pass_a_waiting_writer, whoever_gives_up_leaves_the_queue,
                    a_lock_that_is_handed_on_stays_on_the_server, turns_are_bounded, so_is_the_time,
                    another_lockers_poller_gets_its_turn;
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
