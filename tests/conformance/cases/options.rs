//! Options that are refused: the same on every backend, so that a mistake does not wait for production.

use std::time::Duration;

use advisory_locking::LockErrorKind::{InvalidOptions, NoMutualExclusion};
use advisory_locking::{LockOptions, OnMissingLock, WaitStrategy};

use super::{block, no_wait, poll};
use crate::actor::Outcome::{self, Done, Entered, Failed, Granted, Ran};
use crate::actor::{Actor, BODY_VALUE, Ending, Level};
use crate::stage::Stage;
use advisory_locking::LockKey;

const LEVELS: [Level; 2] = [Level::Session, Level::Transaction];

pub(crate) fn contradictions_are_refused(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    let limit = Duration::from_secs(1);
    let contradictions = [
        poll(limit).interval(Duration::ZERO),
        no_wait().strategy(WaitStrategy::Block),
        no_wait().interval(limit),
        block(limit).interval(limit),
    ];
    for options in contradictions {
        for outcome in every_method(&actor, &key, options) {
            assert_eq!(outcome, Failed(InvalidOptions), "{options:?}");
        }
    }
    // A transaction-level lock is always in a transaction.
    let allowed = no_wait().allow_in_transaction();
    assert_eq!(
        actor.with(Level::Transaction, &key, allowed),
        Failed(InvalidOptions)
    );
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&key, allowed), Failed(InvalidOptions));
    assert_eq!(actor.try_xact(&key, allowed), Failed(InvalidOptions));
    assert_eq!(actor.commit(), Done);
}

pub(crate) fn strictness_where_there_are_no_locks(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    let strict = no_wait().on_missing_lock(OnMissingLock::Error);
    if !stage.excludes() {
        for outcome in every_method(&actor, &key, strict) {
            assert_eq!(outcome, Failed(NoMutualExclusion));
        }
        let quiet = no_wait().on_missing_lock(OnMissingLock::Ignore);
        assert_eq!(actor.acquire(&key, quiet), Granted);
        assert_eq!(actor.release(), Done);
        return;
    }
    assert_eq!(actor.acquire(&key, strict), Granted);
    assert_eq!(actor.release(), Done);
    for level in LEVELS {
        assert_eq!(actor.with(level, &key, strict), Entered);
        assert_eq!(actor.leave(Ending::Ok), Ran(BODY_VALUE));
    }
}

/// What each method answers that takes options; the body must not run.
fn every_method(actor: &Actor, key: &LockKey, options: LockOptions) -> Vec<Outcome> {
    let mut outcomes = vec![actor.acquire(key, options), actor.try_acquire(key, options)];
    for level in LEVELS {
        outcomes.push(actor.with(level, key, options));
        outcomes.push(actor.try_with(level, key, options));
    }
    assert_eq!(actor.begin(), Done);
    outcomes.push(actor.xact(key, options));
    outcomes.push(actor.try_xact(key, options));
    assert_eq!(actor.rollback(), Done);
    outcomes
}
