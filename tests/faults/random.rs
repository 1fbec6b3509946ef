//! Several random faults in one call; proptest shrinks a case that fails.

use proptest::prelude::*;
use proptest::sample::select;

use crate::call::CALLS;
use crate::client::CLIENTS;
use crate::every_request::{CONTENTIONS, FAULTS, MODES, STRATEGIES};
use crate::fault_case::FaultCase;

fn cases() -> impl Strategy<Value = FaultCase> {
    let faults = proptest::collection::vec((0..8_usize, select(FAULTS.to_vec())), 0..4);
    let call = (
        select(CALLS.to_vec()),
        select(CONTENTIONS.to_vec()),
        any::<bool>(),
        any::<bool>(),
    );
    let wait = (select(MODES.to_vec()), select(STRATEGIES.to_vec()));
    let leave = proptest::option::of(0..6_usize);
    let client = select(CLIENTS);
    let cases = (call, wait, faults, leave, client).prop_map(
        |(
            (call, contention, hides_codes, nested),
            (mode, strategy),
            faults,
            release_others_at,
            client,
        )| FaultCase {
            call,
            client,
            mode,
            contention,
            strategy,
            hides_codes,
            nested,
            faults,
            release_others_at,
            dropped_at: None,
        },
    );
    cases.prop_filter("a call in a transaction needs a connection", |case| {
        !case.client.pools() || !case.call.needs_a_connection()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_faults_leave_nothing(case in cases()) {
        case.run();
    }
}
