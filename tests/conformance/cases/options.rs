//! Rejected options. They are the same on every backend, so tests on SQLite find them too.

use std::time::Duration;

use advisory_locking::LockErrorKind::{InvalidOptions, NoMutualExclusion};
use advisory_locking::{LockOptions, OnMissingLock, WaitStrategy};

use super::{block, no_wait, poll};
use crate::actor::Outcome::{self, BodyStarted, Done, Failed, Granted};
use crate::actor::{Actor, LockScope};
use crate::fixture::Fixture;
use advisory_locking::LockKey;

const SCOPES: [LockScope; 2] = [LockScope::Session, LockScope::Transaction];

pub(crate) fn contradictions_are_refused(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
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
    // A transaction-level lock needs a transaction anyway.
    let allowed = no_wait().allow_in_transaction();
    assert_eq!(
        actor.with(LockScope::Transaction, &key, allowed),
        Failed(InvalidOptions)
    );
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&key, allowed), Failed(InvalidOptions));
    assert_eq!(actor.try_xact(&key, allowed), Failed(InvalidOptions));
    assert_eq!(actor.commit(), Done);
}

pub(crate) fn a_missing_lock_is_an_error_if_required(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    let strict = no_wait().on_missing_lock(OnMissingLock::Error);
    if !fixture.excludes() {
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
    for scope in SCOPES {
        assert_eq!(actor.with(scope, &key, strict), BodyStarted);
        actor.succeed();
    }
}

/// Calls each method that takes options, and returns the outcomes. No body may start.
fn every_method(actor: &Actor, key: &LockKey, options: LockOptions) -> Vec<Outcome> {
    let mut outcomes = vec![actor.acquire(key, options), actor.try_acquire(key, options)];
    for scope in SCOPES {
        outcomes.push(actor.with(scope, key, options));
        outcomes.push(actor.try_with(scope, key, options));
    }
    assert_eq!(actor.begin(), Done);
    outcomes.push(actor.xact(key, options));
    outcomes.push(actor.try_xact(key, options));
    assert_eq!(actor.rollback(), Done);
    outcomes
}
