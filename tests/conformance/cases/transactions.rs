//! Locks inside the caller's transactions.

use std::time::Duration;

use advisory_locking::LockErrorKind::{
    InTransaction, NotInTransaction, TimedOut, TransactionAborted,
};
use advisory_locking::LockMode::Exclusive;

use super::{assert_granted_and_released, block, no_wait, poll};
use crate::actor::Outcome::{ClientFailed, Done, Failed, Granted, NotGranted, Unsupported};
use crate::actor::{Command, LockScope, SqlCommand};
use crate::fixture::Fixture;

const SHORT: Duration = Duration::from_millis(20);

pub(crate) fn session_lock_in_a_transaction_is_refused(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    let refused = Failed(InTransaction);
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.acquire(&key, no_wait()), refused);
    assert_eq!(actor.try_acquire(&key, block(SHORT)), refused);
    assert_eq!(actor.with(LockScope::Session, &key, no_wait()), refused);
    assert_eq!(
        actor.try_with(LockScope::Session, &key, poll(SHORT)),
        refused
    );
    assert_eq!(actor.commit(), Done);
    assert_granted_and_released(&actor, &key);
}

pub(crate) fn session_lock_in_a_transaction_if_allowed(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.begin(), Done);
    assert_eq!(first.run_sql(SqlCommand::Write), Done);
    assert_eq!(
        first.acquire(&key, no_wait().allow_in_transaction()),
        Granted
    );
    fixture.assert_held(&key, &[Exclusive]);
    fixture.assert_not_granted(&second, &key, no_wait());
    assert_eq!(first.release(), Done);
    fixture.assert_free(&key);

    assert_eq!(second.acquire(&key, no_wait()), Granted);
    for options in [poll(SHORT), block(SHORT)] {
        let outcome = first.acquire(&key, options.allow_in_transaction());
        fixture.assert_contended(&first, outcome, Failed(TimedOut));
    }
    assert_eq!(second.release(), Done);
    assert_eq!(first.commit(), Done);
    assert_eq!(first.number(SqlCommand::Count), 1);
}

pub(crate) fn xact_lock_outside_is_refused(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    assert_eq!(actor.xact(&key, no_wait()), Failed(NotInTransaction));
    assert_eq!(actor.try_xact(&key, block(SHORT)), Failed(NotInTransaction));
    fixture.assert_free(&key);
}

pub(crate) fn xact_lock_ends_with_the_transaction(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    for end in [Command::Commit, Command::Rollback] {
        assert_eq!(first.begin(), Done);
        assert_eq!(first.xact(&key, no_wait()), Granted);
        assert_eq!(first.try_xact(&key, no_wait()), Granted);
        fixture.assert_held(&key, &[Exclusive]);
        fixture.assert_not_granted(&second, &key, no_wait());
        assert_eq!(first.call(end), Done);
        fixture.assert_free(&key);
        assert_granted_and_released(&second, &key);
    }
}

pub(crate) fn rollback_to_a_savepoint_frees(fixture: &Fixture) {
    let (outer, inner) = (fixture.key("outer"), fixture.key("inner"));
    let actor = fixture.actor();
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&outer, no_wait()), Granted);
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&inner, no_wait()), Granted);
    assert_eq!(actor.xact(&outer, no_wait()), Granted);
    assert_eq!(actor.rollback(), Done);
    fixture.assert_free(&inner);
    fixture.assert_held(&outer, &[Exclusive]);

    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&inner, no_wait()), Granted);
    assert_eq!(actor.commit(), Done);
    fixture.assert_held(&inner, &[Exclusive]);
    assert_eq!(actor.rollback(), Done);
    fixture.assert_free(&inner);

    // The same with a savepoint that the client does not see.
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.run_sql(SqlCommand::Savepoint("before")), Done);
    assert_eq!(actor.xact(&inner, no_wait()), Granted);
    assert_eq!(actor.run_sql(SqlCommand::RollbackTo("before")), Done);
    fixture.assert_free(&inner);
    assert_eq!(actor.commit(), Done);
}

pub(crate) fn xact_timeout_leaves_the_transaction_usable(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.begin(), Done);
    assert_eq!(first.xact(&key, no_wait()), Granted);
    for (rows, options) in [(1, no_wait()), (2, poll(SHORT)), (3, block(SHORT))] {
        assert_eq!(second.begin(), Done);
        assert_eq!(second.run_sql(SqlCommand::Write), Done);
        assert_eq!(
            second.try_xact(&key, options),
            fixture.contended_outcome(NotGranted)
        );
        assert_eq!(
            second.number(SqlCommand::Count),
            rows,
            "an earlier insert is there"
        );
        assert_eq!(second.commit(), Done);
        assert_eq!(second.number(SqlCommand::Count), rows, "and was committed");
    }
    assert_eq!(second.begin(), Done);
    assert_eq!(
        second.xact(&key, block(SHORT)),
        fixture.contended_outcome(Failed(TimedOut))
    );
    assert_eq!(first.commit(), Done);
    assert_eq!(second.xact(&key, block(SHORT)), Granted);
    assert_eq!(second.commit(), Done);
}

pub(crate) fn xact_in_an_aborted_transaction(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.run_sql(SqlCommand::Fail), ClientFailed);
    let aborted = fixture.contended_outcome(Failed(TransactionAborted));
    assert_eq!(actor.xact(&key, no_wait()), aborted);
    assert_eq!(actor.try_xact(&key, block(SHORT)), aborted);
    assert_eq!(actor.rollback(), Done);
    assert_granted_and_released(&actor, &key);
}

pub(crate) fn session_and_xact_levels_are_independent(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    assert_eq!(actor.acquire(&key, no_wait()), Granted);
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&key, no_wait()), Granted);
    assert_eq!(actor.commit(), Done);
    fixture.assert_held(&key, &[Exclusive]);
    assert_eq!(actor.release(), Done);
    fixture.assert_free(&key);

    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&key, no_wait()), Granted);
    assert_eq!(
        actor.acquire(&key, no_wait().allow_in_transaction()),
        Granted
    );
    assert_eq!(actor.release(), Done);
    fixture.assert_held(&key, &[Exclusive]);
    assert_eq!(actor.commit(), Done);
    fixture.assert_free(&key);
}

/// A test transaction does not count as a transaction, so code that acquires session-level locks
/// can be tested in one.
pub(crate) fn in_a_test_transaction(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    if first.call(Command::BeginTest) == Unsupported {
        return;
    }
    assert_eq!(first.run_sql(SqlCommand::Write), Done);
    assert_granted_and_released(&first, &key);
    assert_eq!(second.acquire(&key, no_wait()), Granted);
    for options in [no_wait(), poll(SHORT), block(SHORT)] {
        fixture.assert_not_granted(&first, &key, options);
    }
    assert_eq!(first.xact(&key, no_wait()), Failed(NotInTransaction));
    assert_eq!(second.release(), Done);
    assert_eq!(first.acquire(&key, block(SHORT)), Granted);
    assert_eq!(first.release(), Done);

    assert_eq!(first.begin(), Done);
    assert_eq!(first.acquire(&key, no_wait()), Failed(InTransaction));
    assert_eq!(first.xact(&key, no_wait()), Granted);
    assert_eq!(first.rollback(), Done);
    assert_eq!(first.number(SqlCommand::Count), 1);
}
