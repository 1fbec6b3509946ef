//! The end of a session-level lock.

use advisory_locking::LockErrorKind::{
    HeldElsewhere, InTransaction, Lost, NotHeld, TransactionLeftOpen,
};
use advisory_locking::LockMode::Exclusive;

use super::{assert_granted_and_released, assert_kept_out, no_wait};
use crate::actor::Outcome::{
    Absent, Answered, BodyFailed, Done, Entered, Failed, Granted, NotGranted, Panicked, Ran,
};
use crate::actor::{BODY_VALUE, Ending, Level, Raw};
use crate::stage::{Stage, until};

pub(crate) fn a_dropped_guard_releases(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    assert_kept_out(
        stage,
        &second,
        second.try_acquire(&key, no_wait()),
        NotGranted,
    );
    assert_eq!(first.drop_guard(), Done);
    stage.assert_soon_free(&key);
    assert_granted_and_released(&second, &key);
}

pub(crate) fn a_body_ends(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    for (ending, outcome) in [(Ending::Ok, Ran(BODY_VALUE)), (Ending::Err, BodyFailed)] {
        assert_eq!(first.with(Level::Session, &key, no_wait()), Entered);
        stage.assert_held(&key, &[Exclusive]);
        assert_kept_out(
            stage,
            &second,
            second.try_acquire(&key, no_wait()),
            NotGranted,
        );
        assert_eq!(first.leave(ending), outcome);
        stage.assert_free(&key);
    }
    assert_granted_and_released(&second, &key);
}

pub(crate) fn a_panic_releases(stage: &Stage) {
    let (outer, inner) = (stage.key("outer"), stage.key("inner"));
    let [first, second] = stage.actors();
    assert_eq!(first.with(Level::Session, &outer, no_wait()), Entered);
    assert_eq!(first.with(Level::Session, &inner, no_wait()), Entered);
    assert_eq!(first.leave(Ending::Panic), Panicked);
    stage.assert_soon_free(&inner);
    stage.assert_held(&outer, &[Exclusive]);
    assert_eq!(first.leave(Ending::Ok), Ran(BODY_VALUE));
    assert_granted_and_released(&second, &inner);
    // The connection is as good as before.
    assert_granted_and_released(&first, &outer);
}

/// The error of a release never hides the body's own.
pub(crate) fn the_bodys_error_wins(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    assert_eq!(actor.with(Level::Session, &key, no_wait()), Entered);
    let by_hand = actor.raw(Raw::UnlockAll);
    assert_eq!(by_hand, if stage.excludes() { Done } else { Absent });
    assert_eq!(actor.leave(Ending::Err), BodyFailed);

    assert_eq!(actor.with(Level::Session, &key, no_wait()), Entered);
    assert_eq!(actor.begin(), Done);
    assert_eq!(actor.leave(Ending::Err), BodyFailed);
}

pub(crate) fn a_transaction_left_open(stage: &Stage) {
    let key = stage.key("key");
    let [first, second, third] = stage.actors();
    assert_eq!(first.with(Level::Session, &key, no_wait()), Entered);
    assert_eq!(first.begin(), Done);
    assert_eq!(first.leave(Ending::Ok), Failed(TransactionLeftOpen));
    // A server tells that a session ends a moment before it has ended.
    stage.assert_soon_free(&key);

    let granted = second.acquire(&key, no_wait());
    assert_eq!(granted, Granted, "a connection given up holds nothing");
    assert_eq!(second.begin(), Done);
    assert_eq!(second.release(), Failed(TransactionLeftOpen));
    stage.assert_soon_free(&key);
    assert_granted_and_released(&third, &key);
}

/// A lock taken in a transaction that the client does not know of.
pub(crate) fn an_invisible_transaction_left_open(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.raw(Raw::Begin), Done);
    if stage.sees_raw_transactions() {
        assert_eq!(first.acquire(&key, no_wait()), Failed(InTransaction));
        return;
    }
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    let left_open = Failed(TransactionLeftOpen);
    assert_eq!(
        first.release(),
        if stage.excludes() { left_open } else { Done }
    );
    stage.assert_soon_free(&key);
    assert_granted_and_released(&second, &key);

    // One that has ended by then is in nobody's way.
    for end in [Raw::Commit, Raw::Rollback] {
        assert_eq!(second.raw(Raw::Begin), Done);
        assert_eq!(second.acquire(&key, no_wait()), Granted);
        assert_eq!(second.raw(end), Done);
        stage.assert_held(&key, &[Exclusive]);
        assert_eq!(second.release(), Done);
    }
}

pub(crate) fn a_lock_lost_is_reported(stage: &Stage) {
    let key = stage.key("key");
    let [first, second, third] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    assert_eq!(
        second.with(Level::Session, &stage.key("other"), no_wait()),
        Entered
    );
    if !stage.excludes() {
        assert_eq!(first.raw(Raw::Pid), Absent);
        assert_eq!(
            [first.release(), second.leave(Ending::Ok)],
            [Done, Ran(BODY_VALUE)]
        );
        return;
    }
    stage.terminate(&first);
    stage.terminate(&second);
    // Somebody else may hold it before the holder knows.
    until(super::LONG, || {
        (third.try_acquire(&key, no_wait()) == Granted).then_some(())
    })
    .expect("a lock is free when its session has ended");
    assert_eq!(first.release(), Failed(Lost));
    assert_eq!(second.leave(Ending::Ok), Failed(Lost));
    assert_eq!(third.release(), Done);
}

pub(crate) fn a_lock_released_by_hand_is_reported(stage: &Stage) {
    let key = stage.key("key");
    let actor = stage.actor();
    let not_held = if stage.excludes() {
        Failed(NotHeld)
    } else {
        Done
    };
    for (by_hand, answer) in [
        (Raw::Unlock(key.raw(), Exclusive), Answered(Some(1))),
        (Raw::UnlockAll, Done),
    ] {
        assert_eq!(actor.acquire(&key, no_wait()), Granted);
        assert_eq!(
            actor.raw(by_hand),
            if stage.excludes() { answer } else { Absent }
        );
        assert_eq!(actor.release(), not_held);
    }
    // One level taken by hand is not the guard's to give back.
    assert_eq!(actor.acquire(&key, no_wait()), Granted);
    actor.raw(Raw::TryLock(key.raw(), Exclusive));
    assert_eq!(actor.release(), Done);
    stage.assert_held(&key, &[Exclusive]);
    actor.raw(Raw::UnlockAll);
}

pub(crate) fn a_try_body_does_not_run_in_vain(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    for level in [Level::Session, Level::Transaction] {
        let tried = second.try_with(level, &key, no_wait());
        assert_eq!(
            tried,
            if stage.excludes() {
                NotGranted
            } else {
                Entered
            }
        );
        if tried == Entered {
            assert_eq!(second.leave(Ending::Ok), Ran(BODY_VALUE));
        }
        let refused = second.with(level, &key, no_wait());
        assert_eq!(
            refused,
            if stage.excludes() {
                Failed(HeldElsewhere)
            } else {
                Entered
            }
        );
        if refused == Entered {
            assert_eq!(second.leave(Ending::Ok), Ran(BODY_VALUE));
        }
    }
    assert_eq!(first.release(), Done);
    for level in [Level::Session, Level::Transaction] {
        assert_eq!(second.try_with(level, &key, no_wait()), Entered);
        assert_eq!(second.leave(Ending::Ok), Ran(BODY_VALUE));
    }
}
