//! The list of the cases.

/// Makes a test of each case for each harness, for example
/// `diesel_postgres::a_second_session_is_refused`.
macro_rules! conformance {
    // Makes tests of some of the cases.
    (@only $($group:ident: $($case:ident),*;)* => $adapter:ident => $harness:expr;) => {
        mod $adapter {
            conformance!(@cases $harness, $($group: $($case),*;)*);
        }
    };
    ($($adapter:ident => $harness:expr;)*) => {$(
        mod $adapter {
            conformance!(@cases $harness,
                exclusion: a_second_session_is_refused, shared_holders_exclude_only_exclusive_ones,
                    the_same_session_counts, two_keys_are_independent, exclusive_under_own_shared,
                    capabilities_report_mutual_exclusion;
                waiting: a_no_wait_call_does_not_wait, limits_below_a_millisecond_pass, a_limit_passes, a_limit_races_with_the_release,
                    a_waiter_gets_the_lock, waiters_are_served_in_order, a_new_shared_request_queues,
                    a_deadlock_has_one_victim, a_cancelled_wait, a_terminated_wait, settings_survive;
                releasing: a_dropped_guard_releases, a_body_ends, a_panic_releases, the_bodys_error_wins,
                    a_transaction_left_open, an_invisible_transaction_left_open, a_lock_lost_is_reported,
                    a_lock_released_by_hand_is_reported, session_discarded_in_a_body_is_reported, a_try_body_runs_only_with_the_lock;
                transactions: session_lock_in_a_transaction_is_refused, session_lock_in_a_transaction_if_allowed,
                    xact_lock_outside_is_refused, xact_lock_ends_with_the_transaction,
                    rollback_to_a_savepoint_frees, xact_timeout_leaves_the_transaction_usable,
                    xact_in_an_aborted_transaction, session_and_xact_levels_are_independent,
                    in_a_test_transaction;
                scopes: a_scope_commits_or_rolls_back, scopes_nest, a_panic_in_a_nested_scope, a_scope_refused_begins_nothing,
                    a_scope_left_in_a_savepoint, a_scope_ended_by_its_body, a_scope_aborted_under_its_body,
                    a_nested_scope_aborted_under_its_body;
                scope_ends: a_scope_exchanged_by_its_body, a_scope_ended_by_text,
                    a_nested_scope_rolled_back_by_its_body, a_scope_polls_outside_its_transaction,
                    a_poll_in_a_transaction_has_no_snapshot, an_invisible_transaction_begun_under_the_lock,
                    a_scope_in_an_invisible_transaction;
                options: contradictions_are_refused, a_missing_lock_is_an_error_if_required;
                reports: guard_shows_its_session, report_lists_holder_and_waiters, error_names_holder_as_options_say;
                keys: extreme_keys, pairs, key_spaces_are_distinct;
            );
        }
    )*};
    (@cases $harness:expr, $($group:ident: $($case:ident),*;)*) => {$($(
        #[test]
        fn $case() {
            crate::fixture::Fixture::run(Box::new($harness), crate::cases::$group::$case);
        }
    )*)*};
}
