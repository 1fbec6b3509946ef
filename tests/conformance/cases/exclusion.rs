//! Who keeps out whom.

use advisory_locking::LockErrorKind::HeldElsewhere;
use advisory_locking::LockMode::{Exclusive, Shared};

use super::{LONG, assert_granted_and_released, assert_kept_out, block, no_wait};
use crate::actor::Command;
use crate::actor::Outcome::{Done, Excludes, Failed, Granted, NotGranted};
use crate::stage::Stage;

pub(crate) fn a_second_session_is_refused(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    for (holder, other) in [(&first, &second), (&second, &first)] {
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        stage.assert_held(&key, &[Exclusive]);
        assert_kept_out(stage, other, other.try_acquire(&key, no_wait()), NotGranted);
        let refused = other.acquire(&key, no_wait());
        assert_kept_out(stage, other, refused, Failed(HeldElsewhere));
        let refused = other.try_acquire(&key, no_wait().shared());
        assert_kept_out(stage, other, refused, NotGranted);
        stage.assert_held(&key, &[Exclusive]);
        assert_eq!(holder.release(), Done);
        stage.assert_free(&key);
    }
}

pub(crate) fn shared_holders_exclude_only_exclusive_ones(stage: &Stage) {
    let key = stage.key("key");
    let [first, second, third] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait().shared()), Granted);
    assert_eq!(second.acquire(&key, no_wait().shared()), Granted);
    stage.assert_held(&key, &[Shared, Shared]);
    assert_kept_out(
        stage,
        &third,
        third.try_acquire(&key, no_wait()),
        NotGranted,
    );
    assert_eq!(first.release(), Done);
    assert_kept_out(
        stage,
        &third,
        third.try_acquire(&key, no_wait()),
        NotGranted,
    );
    assert_eq!(second.release(), Done);
    assert_granted_and_released(&third, &key);
}

pub(crate) fn the_same_session_counts(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    for _ in 0..3 {
        assert_eq!(first.acquire(&key, no_wait()), Granted);
    }
    assert_eq!(first.acquire(&key, block(LONG)), Granted);
    for _ in 0..3 {
        assert_eq!(first.release(), Done);
        stage.assert_held(&key, &[Exclusive]);
        assert_kept_out(
            stage,
            &second,
            second.try_acquire(&key, no_wait()),
            NotGranted,
        );
    }
    assert_eq!(first.release(), Done);
    assert_granted_and_released(&second, &key);
}

pub(crate) fn two_keys_are_independent(stage: &Stage) {
    let (outer, inner) = (stage.key("outer"), stage.key("inner"));
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&outer, no_wait()), Granted);
    assert_granted_and_released(&second, &inner);
    assert_eq!(first.acquire(&inner, no_wait()), Granted);
    assert_eq!(first.release(), Done);
    stage.assert_free(&inner);
    stage.assert_held(&outer, &[Exclusive]);
    assert_granted_and_released(&second, &inner);
    assert_kept_out(
        stage,
        &second,
        second.try_acquire(&outer, no_wait()),
        NotGranted,
    );
    assert_eq!(first.release(), Done);
}

pub(crate) fn exclusive_under_own_shared(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait().shared()), Granted);
    assert_eq!(second.acquire(&key, no_wait().shared()), Granted);
    assert_kept_out(
        stage,
        &first,
        first.try_acquire(&key, no_wait()),
        NotGranted,
    );
    assert_eq!(second.release(), Done);

    assert_eq!(first.try_acquire(&key, no_wait()), Granted);
    stage.assert_held(&key, &[Exclusive, Shared]);
    let refused = second.try_acquire(&key, no_wait().shared());
    assert_kept_out(stage, &second, refused, NotGranted);
    assert_eq!(first.release(), Done);
    stage.assert_held(&key, &[Shared]);
    assert_eq!(first.release(), Done);
}

pub(crate) fn capabilities_tell_whether_it_excludes(stage: &Stage) {
    let excludes = Excludes(stage.excludes());
    assert_eq!(stage.actor().call(Command::Excludes), excludes);
}
