//! Keys: every number is one, and the two key spaces are apart.

use std::sync::{Mutex, PoisonError};

use advisory_locking::LockKey;
use advisory_locking::LockMode::Exclusive;

use super::{LONG, assert_kept_out, block, no_wait};
use crate::actor::Outcome::{Done, Granted, NotGranted};
use crate::actor::Raw;
use crate::stage::Stage;

/// These keys are the same for every adapter on one server.
static EXTREME_KEYS: Mutex<()> = Mutex::new(());

pub(crate) fn extreme_keys(stage: &Stage) {
    let _alone = EXTREME_KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    let [first, second] = stage.actors();
    let numbers = [i64::MIN, i64::MAX, 0, -1, 1, i64::from(i32::MIN), 1 << 32];
    let ends = [i32::MIN, -1, 0, i32::MAX];
    let pairs = ends
        .iter()
        .flat_map(|one| ends.map(|other| LockKey::from((*one, other))));
    for key in numbers.map(LockKey::from).into_iter().chain(pairs) {
        let key = stage.watch(key);
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        stage.assert_held(&key, &[Exclusive]);
        assert_kept_out(
            stage,
            &second,
            second.try_acquire(&key, no_wait()),
            NotGranted,
        );
        let waited = second.try_acquire(&key, block(std::time::Duration::from_nanos(1)));
        assert_kept_out(stage, &second, waited, NotGranted);
        assert_eq!(first.release(), Done);
    }
}

pub(crate) fn pairs(stage: &Stage) {
    let (one, other) = stage.pairs();
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&one, no_wait()), Granted);
    assert_eq!(second.acquire(&other, no_wait()), Granted);
    assert_kept_out(
        stage,
        &second,
        second.try_acquire(&one, no_wait()),
        NotGranted,
    );
    assert_eq!(second.release(), Done);
    second.start_acquire(&one, block(LONG));
    if stage.excludes() {
        stage.until_queued(&one, 1);
    }
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    assert_eq!(second.release(), Done);
}

/// `(0, 5)` and `5` have the same bits.
pub(crate) fn key_spaces_are_apart(stage: &Stage) {
    let _alone = EXTREME_KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    let [first, second] = stage.actors();
    let (number, pair) = (stage.watch(5_i64), stage.watch((0_i32, 5_i32)));
    assert_eq!(first.acquire(&number, no_wait()), Granted);
    stage.assert_free(&pair);
    assert_eq!(second.acquire(&pair, no_wait()), Granted);
    stage.assert_held(&number, &[Exclusive]);
    assert_eq!(first.release(), Done);
    stage.assert_held(&pair, &[Exclusive]);
    assert_eq!(second.release(), Done);
    // By hand and through the library it is one lock.
    assert_eq!(first.acquire(&pair, no_wait()), Granted);
    let by_hand = second.raw(Raw::TryLock(pair.raw(), Exclusive));
    let refused = crate::actor::Outcome::Answered(Some(0));
    assert_eq!(
        by_hand,
        if stage.excludes() {
            refused
        } else {
            crate::actor::Outcome::Absent
        }
    );
    assert_eq!(first.release(), Done);
}
