//! Transactions that `with_advisory_xact_lock` begins and ends.

use advisory_locking::LockErrorKind::{
    CommitFailed, HeldElsewhere, Lost, NotHeld, TransactionLeftOpen,
};
use advisory_locking::LockMode::Exclusive;

use super::{assert_granted_and_released, no_wait};
use crate::actor::Outcome::{
    BodyFailed, BodyStarted, BodySucceeded, ClientFailed, Done, Failed, Panicked,
};
use crate::actor::{BODY_VALUE, BodyEnd, LockScope, SqlCommand};
use crate::fixture::Fixture;

pub(crate) fn a_scope_commits_or_rolls_back(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    for (ending, outcome) in [
        (BodyEnd::Err, BodyFailed),
        (BodyEnd::Ok, BodySucceeded(BODY_VALUE)),
        (BodyEnd::Panic, Panicked),
    ] {
        first.enter(LockScope::Transaction, &key);
        assert_eq!(first.run_sql(SqlCommand::Write), Done);
        fixture.assert_held(&key, &[Exclusive]);
        fixture.assert_not_granted(&second, &key, no_wait());
        assert_eq!(first.end_body(ending), outcome);
        fixture.assert_soon_free(&key);
        if ending == BodyEnd::Panic && !fixture.survives_panics() {
            break;
        }
        let rows = first.number(SqlCommand::Count);
        // A pool discards a connection that is returned during a panic.
        let expected = match ending {
            BodyEnd::Ok => 1..=1,
            BodyEnd::Err => 0..=0,
            BodyEnd::Panic => 0..=1,
        };
        assert!(expected.contains(&rows), "{rows} rows after {ending:?}");
    }
    // No transaction was left open.
    let next = if fixture.survives_panics() {
        first
    } else {
        second
    };
    assert_granted_and_released(&next, &key);
}

/// A blocking client rolls the inner scope back, and sqlx queues that. Another async client cannot
/// wait for a rollback while it unwinds, so it terminates the session, which ends the outer scope
/// too.
pub(crate) fn a_panic_in_a_nested_scope(fixture: &Fixture) {
    let (outer, inner) = (fixture.key("outer"), fixture.key("inner"));
    let actor = fixture.actor();
    actor.enter(LockScope::Transaction, &outer);
    assert_eq!(actor.run_sql(SqlCommand::Write), Done);
    actor.enter(LockScope::Transaction, &inner);
    assert_eq!(actor.run_sql(SqlCommand::Write), Done);
    assert_eq!(actor.end_body(BodyEnd::Panic), Panicked);
    fixture.assert_soon_free(&inner);
    if fixture.survives_panics() {
        fixture.assert_held(&outer, &[Exclusive]);
        assert_eq!(actor.number(SqlCommand::Count), 1);
        actor.succeed();
        assert_eq!(actor.number(SqlCommand::Count), 1);
    } else {
        fixture.assert_soon_free(&outer);
        assert_eq!(actor.end_body(BodyEnd::Ok), Failed(Lost));
    }
}

pub(crate) fn scopes_nest(fixture: &Fixture) {
    let (outer, inner) = (fixture.key("outer"), fixture.key("inner"));
    let actor = fixture.actor();
    actor.enter(LockScope::Transaction, &outer);
    assert_eq!(actor.run_sql(SqlCommand::Write), Done);
    actor.enter(LockScope::Transaction, &inner);
    assert_eq!(actor.run_sql(SqlCommand::Write), Done);
    assert_eq!(actor.end_body(BodyEnd::Err), BodyFailed);
    fixture.assert_free(&inner);
    assert_eq!(actor.number(SqlCommand::Count), 1);
    actor.enter(LockScope::Transaction, &inner);
    assert_eq!(actor.run_sql(SqlCommand::Write), Done);
    actor.succeed();
    // Held until the outer transaction ends.
    fixture.assert_held(&inner, &[Exclusive]);
    fixture.assert_held(&outer, &[Exclusive]);
    actor.succeed();
    fixture.assert_free(&inner);
    fixture.assert_free(&outer);
    assert_eq!(actor.number(SqlCommand::Count), 2);
}

pub(crate) fn a_scope_refused_begins_nothing(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    first.enter(LockScope::Transaction, &key);
    let refused = second.with(LockScope::Transaction, &key, no_wait());
    if fixture.excludes() {
        assert_eq!(refused, Failed(HeldElsewhere));
    } else {
        assert_eq!(refused, BodyStarted);
        second.succeed();
    }
    first.succeed();
    assert_granted_and_released(&second, &key);
}

pub(crate) fn a_scope_left_in_a_savepoint(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    first.enter(LockScope::Transaction, &key);
    assert_eq!(first.run_sql(SqlCommand::Write), Done);
    assert_eq!(first.begin(), Done);
    assert_eq!(first.end_body(BodyEnd::Ok), Failed(TransactionLeftOpen));
    fixture.assert_soon_free(&key);
    assert_granted_and_released(&second, &key);
}

/// The body ignores the error of a statement and succeeds. `COMMIT` of an aborted transaction
/// rolls back.
pub(crate) fn a_scope_aborted_under_its_body(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    actor.enter(LockScope::Transaction, &key);
    assert_eq!(actor.run_sql(SqlCommand::Write), Done);
    assert_eq!(actor.run_sql(SqlCommand::Fail), ClientFailed);
    let outcome = actor.end_body(BodyEnd::Ok);
    let rows = actor.number(SqlCommand::Count);
    if fixture.excludes() {
        assert_eq!((outcome, rows), (Failed(CommitFailed), 0));
    } else {
        assert_eq!((outcome, rows), (BodySucceeded(BODY_VALUE), 1));
    }
    assert_granted_and_released(&actor, &key);
}

/// The rest of the body runs without the lock.
pub(crate) fn a_scope_ended_by_its_body(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    for end in [
        crate::actor::Command::Commit,
        crate::actor::Command::Rollback,
    ] {
        actor.enter(LockScope::Transaction, &key);
        assert_eq!(actor.call(end), Done);
        assert_eq!(actor.end_body(BodyEnd::Ok), Failed(NotHeld));
    }
    assert_granted_and_released(&actor, &key);
}

/// The error that the inner body ignores rolls back the inner scope only.
pub(crate) fn a_nested_scope_aborted_under_its_body(fixture: &Fixture) {
    let (outer, inner) = (fixture.key("outer"), fixture.key("inner"));
    let actor = fixture.actor();
    actor.enter(LockScope::Transaction, &outer);
    assert_eq!(actor.run_sql(SqlCommand::Write), Done);
    actor.enter(LockScope::Transaction, &inner);
    assert_eq!(actor.run_sql(SqlCommand::Write), Done);
    assert_eq!(actor.run_sql(SqlCommand::Fail), ClientFailed);
    let (outcome, rows) = if fixture.excludes() {
        (Failed(CommitFailed), 1)
    } else {
        (BodySucceeded(BODY_VALUE), 2)
    };
    assert_eq!(actor.end_body(BodyEnd::Ok), outcome);
    assert_eq!(actor.number(SqlCommand::Count), rows);
    actor.succeed();
    assert_eq!(actor.number(SqlCommand::Count), rows);
    fixture.assert_free(&outer);
    fixture.assert_free(&inner);
}
