//! Every call, with every kind of fault at its first, second, third … request, until there are no more requests.

use advisory_locking::{LockMode, WaitStrategy};

use crate::call::CALLS;
use crate::model::Fault;
use crate::trial::{Others, Trial};

pub(crate) const FAULTS: [Fault; 11] = [
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
];

pub(crate) const OTHERS: [Others; 3] = [Others::Nobody, Others::Sharer, Others::Holder];
pub(crate) const STRATEGIES: [Option<WaitStrategy>; 3] =
    [None, Some(WaitStrategy::Poll), Some(WaitStrategy::Block)];
pub(crate) const MODES: [LockMode; 2] = [LockMode::Exclusive, LockMode::Shared];

fn every_trial(mut act: impl FnMut(Trial)) {
    for call in CALLS {
        for others in OTHERS {
            for strategy in STRATEGIES {
                for mode in MODES {
                    for hides_codes in [false, true] {
                        for nested in [false, true] {
                            act(Trial {
                                call,
                                mode,
                                others,
                                strategy,
                                hides_codes,
                                nested,
                                faults: Vec::new(),
                                others_leave_at: None,
                            });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn without_a_fault_nothing_fails() {
    every_trial(|trial| {
        trial.run();
    });
}

/// The holder leaves between the try and the wait, so that a wait may be granted and reported as failed.
#[test]
fn a_fault_as_the_lock_becomes_free_leaves_nothing() {
    every_trial(|trial| {
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

#[test]
fn a_fault_at_any_request_leaves_nothing() {
    let mut trials = 0;
    every_trial(|trial| {
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
