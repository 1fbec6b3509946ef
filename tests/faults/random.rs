//! Several faults in one call, chosen at random; proptest shrinks what fails.

use proptest::prelude::*;
use proptest::sample::select;

use crate::call::CALLS;
use crate::client::CLIENTS;
use crate::every_request::{FAULTS, MODES, OTHERS, STRATEGIES};
use crate::trial::Trial;

fn trials() -> impl Strategy<Value = Trial> {
    let faults = proptest::collection::vec((0..8_usize, select(FAULTS.to_vec())), 0..4);
    let who = (
        select(CALLS.to_vec()),
        select(OTHERS.to_vec()),
        any::<bool>(),
        any::<bool>(),
    );
    let how = (select(MODES.to_vec()), select(STRATEGIES.to_vec()));
    let leave = proptest::option::of(0..6_usize);
    let client = select(CLIENTS);
    let trials = (who, how, faults, leave, client).prop_map(
        |(
            (call, others, hides_codes, nested),
            (mode, strategy),
            faults,
            others_leave_at,
            client,
        )| Trial {
            call,
            client,
            mode,
            others,
            strategy,
            hides_codes,
            nested,
            faults,
            others_leave_at,
            dropped_at: None,
        },
    );
    trials.prop_filter("a transaction by hand needs a connection", |trial| {
        !trial.client.pools() || !trial.call.needs_a_connection()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_faults_leave_nothing(trial in trials()) {
        trial.run();
    }
}
