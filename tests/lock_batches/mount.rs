//! Names each case once and each client once.

macro_rules! rounds {
    ($($(#[$attribute:meta])* $name:ident => $connect:path;)*) => {$(
        $(#[$attribute])*
        mod $name {
            rounds! { @cases $connect:
                answers: answers_come_in_the_order_of_the_steps,
                answers: every_step_is_about_the_lock_that_it_names,
                answers: another_session_does_nothing,
                answers: without_steps_it_asks_whether_the_session_lives,
                answers: a_warm_round_is_one_round_trip,
                tokens: tokens_grow_over_grants_and_sessions,
                tokens: a_sequence_gives_each_lock_its_own_token,
                tokens: who_is_not_granted_draws_nothing,
                tokens: a_token_is_drawn_after_the_grants,
                sequences: a_sequence_that_does_not_only_grow_is_refused,
                sequences: a_sequence_is_named_as_in_a_statement,
                failing: a_round_that_failed_half_way_is_undone,
                failing: a_round_with_a_missing_sequence_is_undone,
                single: a_single_step_is_about_the_lock_that_it_names,
                single: a_single_step_of_another_session_does_nothing,
                single: a_warm_single_step_is_one_round_trip,
                large: ten_thousand_locks,
                large: a_lock_table_that_is_full,
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
