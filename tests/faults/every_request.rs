//! Every call, with every kind of fault at its first, second, third … request, until there are no more requests.

use advisory_locking::{LockMode, WaitStrategy};

use crate::call::CALLS;
use crate::client::Client;
use crate::model::Fault;
use crate::trial::{Others, Trial};

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

pub(crate) const OTHERS: [Others; 3] = [Others::Nobody, Others::Sharer, Others::Holder];
pub(crate) const STRATEGIES: [Option<WaitStrategy>; 3] =
    [None, Some(WaitStrategy::Poll), Some(WaitStrategy::Block)];
pub(crate) const MODES: [LockMode; 2] = [LockMode::Exclusive, LockMode::Shared];

fn every_trial(client: Client, mut act: impl FnMut(Trial)) {
    for call in CALLS {
        if client.pools() && call.needs_a_connection() {
            continue;
        }
        for others in OTHERS {
            for strategy in STRATEGIES {
                for mode in MODES {
                    for (hides_codes, nested) in client.conditions() {
                        act(Trial {
                            call,
                            client,
                            mode,
                            others,
                            strategy,
                            hides_codes: *hides_codes,
                            nested: *nested,
                            faults: Vec::new(),
                            others_leave_at: None,
                            dropped_at: None,
                        });
                    }
                }
            }
        }
    }
}

fn without_a_fault(client: Client) {
    every_trial(client, |trial| {
        trial.run();
    });
}

/// The holder leaves between the try and the wait, so that a wait may be granted and reported as failed.
fn as_the_lock_becomes_free(client: Client) {
    every_trial(client, |trial| {
        if trial.others == Others::Nobody || trial.strategy.is_none() {
            return;
        }
        // Later than this, only more polls follow.
        for leave in 1..trial.run().min(4) {
            let trial = Trial {
                others_leave_at: Some(leave),
                ..trial.clone()
            };
            for request in leave..trial.run() {
                for fault in FAULTS {
                    Trial {
                        faults: vec![(request, fault)],
                        ..trial.clone()
                    }
                    .run();
                }
            }
        }
    });
}

fn at_any_request(client: Client) {
    let mut trials = 0;
    every_trial(client, |trial| {
        let requests = trial.run();
        for request in 0..requests {
            for fault in FAULTS {
                Trial {
                    faults: vec![(request, fault)],
                    ..trial.clone()
                }
                .run();
                trials += 1;
            }
        }
    });
    assert!(trials > 5000, "only {trials} trials");
    println!("{trials} trials");
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

/// A request hangs, or its answer does, and the caller waits no longer; after each number of requests, with and without a lock that
/// becomes free meanwhile.
#[cfg(feature = "bb8")]
#[test]
fn a_call_that_hangs_at_any_point_leaves_nothing() {
    let mut trials = 0;
    for client in [Client::AsyncConnection, Client::AsyncPool] {
        every_trial(client, |trial| {
            for others_leave_at in [None, Some(1)] {
                // Each request is pending twice, and some are pauses.
                for point in 0..24 {
                    let trial = Trial {
                        others_leave_at,
                        dropped_at: Some(point),
                        ..trial.clone()
                    };
                    trials += 1;
                    if !trial.run_and_tell_whether_it_hung() {
                        break;
                    }
                }
            }
        });
    }
    assert!(trials > 5000, "only {trials} trials");
    println!("{trials} trials");
}
