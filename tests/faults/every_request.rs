//! Every call with every kind of fault, at each of its requests in turn.

use advisory_locking::{LockMode, WaitStrategy};

use crate::call::CALLS;
use crate::client::Client;
use crate::fault_case::{Contention, FaultCase};
use testkit::model::Fault;

pub(crate) const FAULTS: [Fault; 14] = [
    Fault::Refuse("25P02"),
    Fault::Refuse("40P01"),
    Fault::Refuse("42883"),
    Fault::Refuse("53200"),
    Fault::Refuse("55P03"),
    Fault::Refuse("57014"),
    Fault::DoneButReported("40P01"),
    Fault::DoneButReported("55P03"),
    Fault::DoneButReported("57014"),
    Fault::LostReply,
    Fault::Terminated,
    Fault::Null,
    Fault::Panics,
    Fault::DoneButPanics,
];

pub(crate) const CONTENTIONS: [Contention; 3] =
    [Contention::None, Contention::Shared, Contention::Exclusive];
pub(crate) const STRATEGIES: [Option<WaitStrategy>; 3] =
    [None, Some(WaitStrategy::Poll), Some(WaitStrategy::Block)];
pub(crate) const MODES: [LockMode; 2] = [LockMode::Exclusive, LockMode::Shared];

fn every_case(client: Client, mut check: impl FnMut(FaultCase)) {
    for call in CALLS {
        if client.pools() && call.needs_a_connection() {
            continue;
        }
        for contention in CONTENTIONS {
            for strategy in STRATEGIES {
                for mode in MODES {
                    for (hides_codes, nested) in client.conditions() {
                        check(FaultCase {
                            call,
                            client,
                            mode,
                            contention,
                            strategy,
                            hides_codes: *hides_codes,
                            nested: *nested,
                            faults: Vec::new(),
                            release_others_at: None,
                            dropped_at: None,
                        });
                    }
                }
            }
        }
    }
}

fn without_a_fault(client: Client) {
    every_case(client, |case| {
        case.run();
    });
}

/// The holder releases between the try and the wait, so a wait can be granted and report a failure.
fn as_the_lock_becomes_free(client: Client) {
    let mut cases = 0;
    every_case(client, |case| {
        if case.contention == Contention::None || case.strategy.is_none() {
            return;
        }
        // Only further polls follow the fourth request.
        for leave in 1..case.run().min(4) {
            let case = FaultCase {
                release_others_at: Some(leave),
                ..case.clone()
            };
            for request in leave..case.run() {
                for fault in FAULTS {
                    FaultCase {
                        faults: vec![(request, fault)],
                        ..case.clone()
                    }
                    .run();
                    cases += 1;
                }
            }
        }
    });
    assert!(cases > 1000, "only {cases} cases");
}

fn at_any_request(client: Client) {
    let mut cases = 0;
    every_case(client, |case| {
        let requests = case.run();
        for request in 0..requests {
            for fault in FAULTS {
                FaultCase {
                    faults: vec![(request, fault)],
                    ..case.clone()
                }
                .run();
                cases += 1;
            }
        }
    });
    assert!(cases > 5000, "only {cases} cases");
    println!("{cases} cases");
}

macro_rules! clients {
    ($($(#[$attribute:meta])* $name:ident: $client:expr;)*) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            #[test]
            fn without_a_fault_nothing_fails() {
                without_a_fault($client);
            }

            #[test]
            fn a_fault_as_the_lock_becomes_free_leaves_nothing() {
                as_the_lock_becomes_free($client);
            }

            #[test]
            fn a_fault_at_any_request_leaves_nothing() {
                at_any_request($client);
            }
        }
    )*};
}
clients! {
    connection: Client::Connection;
    pool: Client::Pool;
    #[cfg(feature = "bb8")]
    async_connection: Client::AsyncConnection;
    #[cfg(feature = "bb8")]
    async_pool: Client::AsyncPool;
}

/// The caller drops the future at each pending point, with and without a lock that becomes free
/// meanwhile.
#[cfg(feature = "bb8")]
#[test]
fn a_call_dropped_at_any_point_leaves_nothing() {
    let mut cases = 0;
    for client in [Client::AsyncConnection, Client::AsyncPool] {
        every_case(client, |case| {
            for release_others_at in [None, Some(1)] {
                // Each request is pending twice, and pauses are pending too.
                for point in 0..24 {
                    let case = FaultCase {
                        release_others_at,
                        dropped_at: Some(point),
                        ..case.clone()
                    };
                    cases += 1;
                    if !case.run_until_dropped() {
                        break;
                    }
                }
            }
        });
    }
    assert!(cases > 5000, "only {cases} cases");
    println!("{cases} cases");
}
