//! Locks inside transactions of the caller's.

use std::time::Duration;

use advisory_locking::LockErrorKind::{
    InTransaction, NotInTransaction, TimedOut, TransactionAborted,
};
use advisory_locking::LockMode::Exclusive;

use super::{assert_granted_and_released, assert_kept_out, block, no_wait, poll};
use crate::actor::Outcome::{Absent, ClientFailed, Done, Failed, Granted, NotGranted};
use crate::actor::{Command, Level, Raw};
use crate::stage::Stage;

const SHORT: Duration = Duration::from_millis(20);

pub(crate) fn session_lock_in_a_transaction_is_refused(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    let refused = Failed(InTransaction);
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.acquire(&key, no_wait()), refused);
    assert_eq!(actor.try_acquire(&key, block(SHORT)), refused);
    assert_eq!(actor.with(Level::Session, &key, no_wait()), refused);
    assert_eq!(actor.try_with(Level::Session, &key, poll(SHORT)), refused);
    assert_eq!(actor.commit(), Done);
    assert_granted_and_released(&actor, &key);
}

pub(crate) fn session_lock_in_a_transaction_if_allowed(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.begin(), Done);
    assert_eq!(first.raw(Raw::Write), Done);
    assert_eq!(
        first.acquire(&key, no_wait().allow_in_transaction()),
        Granted
    );
    stage.assert_held(&key, &[Exclusive]);
    assert_kept_out(
        stage,
        &second,
        second.try_acquire(&key, no_wait()),
        NotGranted,
    );
    assert_eq!(first.release(), Done);
    stage.assert_free(&key);

    assert_eq!(second.acquire(&key, no_wait()), Granted);
    for options in [poll(SHORT), block(SHORT)] {
        let outcome = first.acquire(&key, options.allow_in_transaction());
        assert_kept_out(stage, &first, outcome, Failed(TimedOut));
    }
    assert_eq!(second.release(), Done);
    assert_eq!(first.commit(), Done);
    assert_eq!(first.number(Raw::Count), 1);
}

pub(crate) fn xact_lock_outside_is_refused(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    assert_eq!(actor.xact(&key, no_wait()), Failed(NotInTransaction));
    assert_eq!(actor.try_xact(&key, block(SHORT)), Failed(NotInTransaction));
    stage.assert_free(&key);
}

pub(crate) fn xact_lock_ends_with_the_transaction(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    for end in [Command::Commit, Command::Rollback] {
        assert_eq!(first.begin(), Done);
        assert_eq!(first.xact(&key, no_wait()), Granted);
        assert_eq!(first.try_xact(&key, no_wait()), Granted);
        stage.assert_held(&key, &[Exclusive]);
        assert_kept_out(
            stage,
            &second,
            second.try_acquire(&key, no_wait()),
            NotGranted,
        );
        assert_eq!(first.call(end), Done);
        stage.assert_free(&key);
        assert_granted_and_released(&second, &key);
    }
}

pub(crate) fn rollback_to_a_savepoint_frees(stage: &Stage) {
    let (outer, inner) = (stage.key("outer"), stage.key("inner"));
    let actor = stage.actor();
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&outer, no_wait()), Granted);
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&inner, no_wait()), Granted);
    assert_eq!(actor.xact(&outer, no_wait()), Granted);
    assert_eq!(actor.rollback(), Done);
    stage.assert_free(&inner);
    stage.assert_held(&outer, &[Exclusive]);

    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&inner, no_wait()), Granted);
    assert_eq!(actor.commit(), Done);
    stage.assert_held(&inner, &[Exclusive]);
    assert_eq!(actor.rollback(), Done);
    stage.assert_free(&inner);

    // A savepoint that the client does not know of is none the worse.
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.raw(Raw::Savepoint("before")), Done);
    assert_eq!(actor.xact(&inner, no_wait()), Granted);
    assert_eq!(actor.raw(Raw::RollbackTo("before")), Done);
    stage.assert_free(&inner);
    assert_eq!(actor.commit(), Done);
}

pub(crate) fn xact_timeout_leaves_the_transaction_usable(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.begin(), Done);
    assert_eq!(first.xact(&key, no_wait()), Granted);
    for (rows, options) in [(1, no_wait()), (2, poll(SHORT)), (3, block(SHORT))] {
        assert_eq!(second.begin(), Done);
        assert_eq!(second.raw(Raw::Write), Done);
        assert_eq!(second.try_xact(&key, options), stage.kept_out(NotGranted));
        assert_eq!(
            second.number(Raw::Count),
            rows,
            "an earlier insert is there"
        );
        assert_eq!(second.commit(), Done);
        assert_eq!(second.number(Raw::Count), rows, "and was committed");
    }
    assert_eq!(second.begin(), Done);
    assert_eq!(
        second.xact(&key, block(SHORT)),
        stage.kept_out(Failed(TimedOut))
    );
    assert_eq!(first.commit(), Done);
    assert_eq!(second.xact(&key, block(SHORT)), Granted);
    assert_eq!(second.commit(), Done);
}

pub(crate) fn xact_in_an_aborted_transaction(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.raw(Raw::Fail), ClientFailed);
    let aborted = stage.kept_out(Failed(TransactionAborted));
    assert_eq!(actor.xact(&key, no_wait()), aborted);
    assert_eq!(actor.try_xact(&key, block(SHORT)), aborted);
    assert_eq!(actor.rollback(), Done);
    assert_granted_and_released(&actor, &key);
}

pub(crate) fn session_and_xact_levels_are_independent(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    assert_eq!(actor.acquire(&key, no_wait()), Granted);
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&key, no_wait()), Granted);
    assert_eq!(actor.commit(), Done);
    stage.assert_held(&key, &[Exclusive]);
    assert_eq!(actor.release(), Done);
    stage.assert_free(&key);

    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.xact(&key, no_wait()), Granted);
    assert_eq!(
        actor.acquire(&key, no_wait().allow_in_transaction()),
        Granted
    );
    assert_eq!(actor.release(), Done);
    stage.assert_held(&key, &[Exclusive]);
    assert_eq!(actor.commit(), Done);
    stage.assert_free(&key);
}

/// A test framework's transaction does not count, so that code which takes session-level locks can be tested in one.
pub(crate) fn in_a_test_transaction(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    if first.call(Command::BeginTest) == Absent {
        return;
    }
    assert_eq!(first.raw(Raw::Write), Done);
    assert_granted_and_released(&first, &key);
    assert_eq!(second.acquire(&key, no_wait()), Granted);
    for options in [no_wait(), poll(SHORT), block(SHORT)] {
        assert_kept_out(stage, &first, first.try_acquire(&key, options), NotGranted);
    }
    assert_eq!(first.xact(&key, no_wait()), Failed(NotInTransaction));
    assert_eq!(second.release(), Done);
    assert_eq!(first.acquire(&key, block(SHORT)), Granted);
    assert_eq!(first.release(), Done);

    assert_eq!(first.begin(), Done);
    assert_eq!(first.acquire(&key, no_wait()), Failed(InTransaction));
    assert_eq!(first.xact(&key, no_wait()), Granted);
    assert_eq!(first.rollback(), Done);
    assert_eq!(first.number(Raw::Count), 1);
}
