//! Instantiates each case for each client.

macro_rules! lock_batches {
    ($($(#[$attribute:meta])* $name:ident => $connect:path;)*) => {$(
        $(#[$attribute])*
        mod $name {
            lock_batches! { @cases $connect:
                answers: answers_are_in_the_order_of_the_operations,
                answers: operation_affects_the_lock_it_names,
                answers: other_session_runs_no_operation,
                answers: empty_batch_tests_whether_the_session_is_alive,
                answers: prepared_batch_is_one_round_trip,
                tokens: tokens_grow_over_grants_and_sessions,
                tokens: sequence_issues_a_token_per_lock,
                tokens: contended_acquire_issues_no_token,
                tokens: token_is_issued_after_the_grants,
                sequences: invalid_sequence_issues_no_token,
                sequences: sequence_name_is_read_as_regclass,
                failing: failed_batch_is_compensated,
                failing: batch_with_a_missing_sequence_is_compensated,
                single: single_operation_affects_the_lock_it_names,
                single: single_operation_does_nothing_on_another_session,
                single: prepared_single_operation_is_one_round_trip,
                large: ten_thousand_locks,
                large: full_lock_table_is_compensated,
            }
        }
    )*};
    (@cases $connect:path: $($module:ident: $case:ident,)*) => {$(
        #[test]
        fn $case() {
            crate::cases::$module::$case($connect);
        }
    )*};
}
