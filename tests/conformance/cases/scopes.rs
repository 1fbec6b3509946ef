//! Transactions that a transaction-level lock begins and ends.

use advisory_locking::LockErrorKind::{
    CommitFailed, HeldElsewhere, Lost, NotHeld, TransactionLeftOpen,
};
use advisory_locking::LockMode::Exclusive;

use super::{assert_granted_and_released, assert_kept_out, no_wait};
use crate::actor::Outcome::{
    BodyFailed, ClientFailed, Done, Entered, Failed, NotGranted, Panicked, Ran,
};
use crate::actor::{BODY_VALUE, Ending, Level, Raw};
use crate::stage::Stage;

pub(crate) fn a_scope_commits_or_rolls_back(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    for (ending, outcome) in [
        (Ending::Err, BodyFailed),
        (Ending::Ok, Ran(BODY_VALUE)),
        (Ending::Panic, Panicked),
    ] {
        assert_eq!(first.with(Level::Transaction, &key, no_wait()), Entered);
        assert_eq!(first.raw(Raw::Write), Done);
        stage.assert_held(&key, &[Exclusive]);
        assert_kept_out(
            stage,
            &second,
            second.try_acquire(&key, no_wait()),
            NotGranted,
        );
        assert_eq!(first.leave(ending), outcome);
        stage.assert_soon_free(&key);
        if ending == Ending::Panic && !stage.survives_panics() {
            break;
        }
        let rows = first.number(Raw::Count);
        // A pool gives up a connection that comes back during a panic.
        let expected = match ending {
            Ending::Ok => 1..=1,
            Ending::Err => 0..=0,
            Ending::Panic => 0..=1,
        };
        assert!(expected.contains(&rows), "{rows} rows after {ending:?}");
    }
    // No transaction was left open.
    let next = if stage.survives_panics() {
        first
    } else {
        second
    };
    assert_granted_and_released(&next, &key);
}

/// The inner scope is rolled back to where it began; or, where nobody can wait for that, the session is ended with the outer one.
pub(crate) fn a_panic_in_a_nested_scope(stage: &Stage) {
    let (outer, inner) = (stage.key("outer"), stage.key("inner"));
    let actor = stage.actor();
    assert_eq!(actor.with(Level::Transaction, &outer, no_wait()), Entered);
    assert_eq!(actor.raw(Raw::Write), Done);
    assert_eq!(actor.with(Level::Transaction, &inner, no_wait()), Entered);
    assert_eq!(actor.raw(Raw::Write), Done);
    assert_eq!(actor.leave(Ending::Panic), Panicked);
    stage.assert_soon_free(&inner);
    if stage.survives_panics() {
        stage.assert_held(&outer, &[Exclusive]);
        assert_eq!(actor.number(Raw::Count), 1);
        assert_eq!(actor.leave(Ending::Ok), Ran(BODY_VALUE));
        assert_eq!(actor.number(Raw::Count), 1);
    } else {
        stage.assert_soon_free(&outer);
        assert_eq!(actor.leave(Ending::Ok), Failed(Lost));
    }
}

pub(crate) fn scopes_nest(stage: &Stage) {
    let (outer, inner) = (stage.key("outer"), stage.key("inner"));
    let actor = stage.actor();
    assert_eq!(actor.with(Level::Transaction, &outer, no_wait()), Entered);
    assert_eq!(actor.raw(Raw::Write), Done);
    assert_eq!(actor.with(Level::Transaction, &inner, no_wait()), Entered);
    assert_eq!(actor.raw(Raw::Write), Done);
    assert_eq!(actor.leave(Ending::Err), BodyFailed);
    stage.assert_free(&inner);
    assert_eq!(actor.number(Raw::Count), 1);
    assert_eq!(actor.with(Level::Transaction, &inner, no_wait()), Entered);
    assert_eq!(actor.raw(Raw::Write), Done);
    assert_eq!(actor.leave(Ending::Ok), Ran(BODY_VALUE));
    // To the end of the outer transaction.
    stage.assert_held(&inner, &[Exclusive]);
    stage.assert_held(&outer, &[Exclusive]);
    assert_eq!(actor.leave(Ending::Ok), Ran(BODY_VALUE));
    stage.assert_free(&inner);
    stage.assert_free(&outer);
    assert_eq!(actor.number(Raw::Count), 2);
}

pub(crate) fn a_scope_refused_begins_nothing(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.with(Level::Transaction, &key, no_wait()), Entered);
    let refused = second.with(Level::Transaction, &key, no_wait());
    if stage.excludes() {
        assert_eq!(refused, Failed(HeldElsewhere));
    } else {
        assert_eq!(refused, Entered);
        assert_eq!(second.leave(Ending::Ok), Ran(BODY_VALUE));
    }
    assert_eq!(first.leave(Ending::Ok), Ran(BODY_VALUE));
    assert_granted_and_released(&second, &key);
}

pub(crate) fn a_scope_left_deeper(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.with(Level::Transaction, &key, no_wait()), Entered);
    assert_eq!(first.raw(Raw::Write), Done);
    if stage.counts_savepoints() {
        assert_eq!(first.begin(), Done);
        assert_eq!(first.leave(Ending::Ok), Failed(TransactionLeftOpen));
    } else {
        assert_eq!(first.raw(Raw::Savepoint("left_open")), Done);
        assert_eq!(first.leave(Ending::Ok), Ran(BODY_VALUE));
        assert_eq!(first.number(Raw::Count), 1);
    }
    stage.assert_soon_free(&key);
    assert_granted_and_released(&second, &key);
}

/// A body that swallows the error of a statement has done nothing, whatever it says: `COMMIT` rolls back then.
pub(crate) fn a_scope_aborted_under_its_body(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    assert_eq!(actor.with(Level::Transaction, &key, no_wait()), Entered);
    assert_eq!(actor.raw(Raw::Write), Done);
    assert_eq!(actor.raw(Raw::Fail), ClientFailed);
    let outcome = actor.leave(Ending::Ok);
    let rows = actor.number(Raw::Count);
    if stage.excludes() {
        assert_eq!((outcome, rows), (Failed(CommitFailed), 0));
    } else {
        assert_eq!((outcome, rows), (Ran(BODY_VALUE), 1));
    }
    assert_granted_and_released(&actor, &key);
}

/// Then the rest of the body was not under the lock.
pub(crate) fn a_scope_ended_by_its_body(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    for end in [
        crate::actor::Command::Commit,
        crate::actor::Command::Rollback,
    ] {
        assert_eq!(actor.with(Level::Transaction, &key, no_wait()), Entered);
        assert_eq!(actor.call(end), Done);
        assert_eq!(actor.leave(Ending::Ok), Failed(NotHeld));
    }
    assert_granted_and_released(&actor, &key);
}

/// Only the inner scope is lost to the error that its body swallowed.
pub(crate) fn a_nested_scope_aborted_under_its_body(stage: &Stage) {
    let (outer, inner) = (stage.key("outer"), stage.key("inner"));
    let actor = stage.actor();
    assert_eq!(actor.with(Level::Transaction, &outer, no_wait()), Entered);
    assert_eq!(actor.raw(Raw::Write), Done);
    assert_eq!(actor.with(Level::Transaction, &inner, no_wait()), Entered);
    assert_eq!(actor.raw(Raw::Write), Done);
    assert_eq!(actor.raw(Raw::Fail), ClientFailed);
    let (outcome, rows) = if stage.excludes() {
        (Failed(CommitFailed), 1)
    } else {
        (Ran(BODY_VALUE), 2)
    };
    assert_eq!(actor.leave(Ending::Ok), outcome);
    assert_eq!(actor.number(Raw::Count), rows);
    assert_eq!(actor.leave(Ending::Ok), Ran(BODY_VALUE));
    assert_eq!(actor.number(Raw::Count), rows);
    stage.assert_free(&outer);
    stage.assert_free(&inner);
}
