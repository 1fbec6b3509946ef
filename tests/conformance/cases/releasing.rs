//! Release and loss of session-level locks.

use advisory_locking::LockErrorKind::{
    Database, HeldElsewhere, InTransaction, Lost, NotHeld, TransactionLeftOpen,
};
use advisory_locking::LockMode::Exclusive;

use super::{assert_granted_and_released, no_wait};
use crate::actor::Outcome::{
    Answered, BodyFailed, BodyStarted, BodySucceeded, ClientFailed, Done, Failed, Granted,
    NotGranted, Panicked, Unsupported,
};
use crate::actor::{BODY_VALUE, BodyEnd, LockScope, SqlCommand};
use crate::fixture::{Fixture, until};

pub(crate) fn a_dropped_guard_releases(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    fixture.assert_not_granted(&second, &key, no_wait());
    assert_eq!(first.drop_guard(), Done);
    fixture.assert_soon_free(&key);
    assert_granted_and_released(&second, &key);
}

pub(crate) fn a_body_ends(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    for (ending, outcome) in [
        (BodyEnd::Ok, BodySucceeded(BODY_VALUE)),
        (BodyEnd::Err, BodyFailed),
    ] {
        first.enter(LockScope::Session, &key);
        fixture.assert_held(&key, &[Exclusive]);
        fixture.assert_not_granted(&second, &key, no_wait());
        assert_eq!(first.end_body(ending), outcome);
        fixture.assert_free(&key);
    }
    assert_granted_and_released(&second, &key);
}

pub(crate) fn a_panic_releases(fixture: &Fixture) {
    let (outer, inner) = (fixture.key("outer"), fixture.key("inner"));
    let [first, second] = fixture.actors();
    first.enter(LockScope::Session, &outer);
    first.enter(LockScope::Session, &inner);
    assert_eq!(first.end_body(BodyEnd::Panic), Panicked);
    fixture.assert_soon_free(&inner);
    fixture.assert_held(&outer, &[Exclusive]);
    first.succeed();
    assert_granted_and_released(&second, &inner);
    // The connection still works.
    assert_granted_and_released(&first, &outer);
}

/// The error of a release never hides the body's own.
pub(crate) fn the_bodys_error_wins(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    actor.enter(LockScope::Session, &key);
    let by_hand = actor.run_sql(SqlCommand::UnlockAll);
    assert_eq!(
        by_hand,
        if fixture.excludes() {
            Done
        } else {
            Unsupported
        }
    );
    assert_eq!(actor.end_body(BodyEnd::Err), BodyFailed);

    actor.enter(LockScope::Session, &key);
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.end_body(BodyEnd::Err), BodyFailed);
}

pub(crate) fn a_transaction_left_open(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second, third] = fixture.actors();
    first.enter(LockScope::Session, &key);
    assert_eq!(first.begin(), Done);
    assert_eq!(first.end_body(BodyEnd::Ok), Failed(TransactionLeftOpen));
    // The server acknowledges a termination shortly before the session has ended.
    fixture.assert_soon_free(&key);

    let granted = second.acquire(&key, no_wait());
    assert_eq!(granted, Granted, "a terminated session holds nothing");
    assert_eq!(second.begin(), Done);
    assert_eq!(second.release(), Failed(TransactionLeftOpen));
    fixture.assert_soon_free(&key);
    assert_granted_and_released(&third, &key);
}

/// A lock acquired in a transaction that the client does not see.
pub(crate) fn an_invisible_transaction_left_open(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.run_sql(SqlCommand::Begin), Done);
    if fixture.sees_raw_transactions() {
        assert_eq!(first.acquire(&key, no_wait()), Failed(InTransaction));
        return;
    }
    if fixture.ends_raw_transactions() {
        // PostgreSQL only warns that no transaction is open.
        let committed = if fixture.excludes() {
            Done
        } else {
            ClientFailed
        };
        assert_eq!(first.run_sql(SqlCommand::Commit), committed);
        assert_granted_and_released(&first, &key);
        return;
    }
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    let left_open = Failed(TransactionLeftOpen);
    assert_eq!(
        first.release(),
        if fixture.excludes() { left_open } else { Done }
    );
    fixture.assert_soon_free(&key);
    assert_granted_and_released(&second, &key);

    // A transaction that ends before the release changes nothing.
    for end in [SqlCommand::Commit, SqlCommand::Rollback] {
        assert_eq!(second.run_sql(SqlCommand::Begin), Done);
        assert_eq!(second.acquire(&key, no_wait()), Granted);
        assert_eq!(second.run_sql(end), Done);
        fixture.assert_held(&key, &[Exclusive]);
        assert_eq!(second.release(), Done);
    }
}

pub(crate) fn a_lock_lost_is_reported(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second, third] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    second.enter(LockScope::Session, &fixture.key("other"));
    if !fixture.excludes() {
        assert_eq!(first.run_sql(SqlCommand::Pid), Unsupported);
        assert_eq!(
            [first.release(), second.end_body(BodyEnd::Ok)],
            [Done, BodySucceeded(BODY_VALUE)]
        );
        return;
    }
    fixture.terminate(&first);
    fixture.terminate(&second);
    // Another session may acquire it before the holder learns of the loss.
    until(super::LONG, || {
        (third.try_acquire(&key, no_wait()) == Granted).then_some(())
    })
    .expect("a lock is free when its session has ended");
    assert_eq!(first.release(), Failed(Lost));
    assert_eq!(second.end_body(BodyEnd::Ok), Failed(Lost));
    assert_eq!(third.release(), Done);
}

pub(crate) fn a_lock_released_by_hand_is_reported(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    let not_held = if fixture.excludes() {
        Failed(NotHeld)
    } else {
        Done
    };
    for (by_hand, answer) in [
        (SqlCommand::Unlock(key.raw(), Exclusive), Answered(Some(1))),
        (SqlCommand::UnlockAll, Done),
    ] {
        assert_eq!(actor.acquire(&key, no_wait()), Granted);
        assert_eq!(
            actor.run_sql(by_hand),
            if fixture.excludes() {
                answer
            } else {
                Unsupported
            }
        );
        assert_eq!(actor.release(), not_held);
    }
    // The guard does not release a level that was acquired with plain SQL.
    assert_eq!(actor.acquire(&key, no_wait()), Granted);
    actor.run_sql(SqlCommand::TryLock(key.raw(), Exclusive));
    assert_eq!(actor.release(), Done);
    fixture.assert_held(&key, &[Exclusive]);
    actor.run_sql(SqlCommand::UnlockAll);
}

/// The prepared release statement is gone, or its transaction is aborted. The error still says
/// whether the lock was held.
pub(crate) fn session_discarded_in_a_body_is_reported(fixture: &Fixture) {
    let key = fixture.key("key");
    let discard: &[SqlCommand] = &[SqlCommand::DiscardAll];
    let deallocate: &[SqlCommand] = &[SqlCommand::DeallocateAll];
    let abort: &[SqlCommand] = &[SqlCommand::Begin, SqlCommand::UnlockAll, SqlCommand::Fail];
    for (statements, kind) in [(discard, NotHeld), (deallocate, Database), (abort, NotHeld)] {
        for warm in [true, false] {
            let actor = fixture.actor();
            // Prepares the statements of the release.
            if warm {
                assert_granted_and_released(&actor, &key);
            }
            assert_eq!(actor.acquire(&key, no_wait()), Granted);
            if !fixture.excludes() {
                assert_eq!(actor.run_sql(statements[0]), Unsupported);
                assert_eq!(actor.release(), Done);
                return;
            }
            for statement in statements {
                actor.run_sql(*statement);
            }
            let released = actor.release();
            // A release that is prepared now, or not at all, succeeds.
            if kind == Database && !(warm && fixture.fails_on_lost_statements()) {
                assert_eq!(released, Done);
            } else {
                assert_eq!(released, Failed(kind), "{statements:?}, warm: {warm}");
            }
            fixture.assert_soon_free(&key);
        }
    }
    let actor = fixture.actor();
    assert_granted_and_released(&actor, &key);
    assert_eq!(actor.acquire(&key, no_wait()), Granted);
    actor.run_sql(SqlCommand::DiscardAll);
    assert_eq!(actor.drop_guard(), Done);
    fixture.assert_soon_free(&key);
}

pub(crate) fn a_try_body_runs_only_with_the_lock(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    for scope in [LockScope::Session, LockScope::Transaction] {
        let tried = second.try_with(scope, &key, no_wait());
        assert_eq!(
            tried,
            if fixture.excludes() {
                NotGranted
            } else {
                BodyStarted
            }
        );
        if tried == BodyStarted {
            second.succeed();
        }
        let refused = second.with(scope, &key, no_wait());
        assert_eq!(
            refused,
            if fixture.excludes() {
                Failed(HeldElsewhere)
            } else {
                BodyStarted
            }
        );
        if refused == BodyStarted {
            second.succeed();
        }
    }
    assert_eq!(first.release(), Done);
    for scope in [LockScope::Session, LockScope::Transaction] {
        assert_eq!(second.try_with(scope, &key, no_wait()), BodyStarted);
        second.succeed();
    }
}
