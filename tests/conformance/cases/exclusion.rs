//! Mutual exclusion between sessions, and reentrancy within one.

use advisory_locking::LockErrorKind::HeldElsewhere;
use advisory_locking::LockMode::{Exclusive, Shared};

use super::{LONG, assert_granted_and_released, block, no_wait};
use crate::actor::Command;
use crate::actor::Outcome::{Done, Excludes, Granted};
use crate::fixture::Fixture;

pub(crate) fn a_second_session_is_refused(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    for (holder, other) in [(&first, &second), (&second, &first)] {
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        fixture.assert_held(&key, &[Exclusive]);
        fixture.assert_not_granted(other, &key, no_wait());
        fixture.assert_acquire_fails(other, &key, no_wait(), HeldElsewhere);
        fixture.assert_not_granted(other, &key, no_wait().shared());
        fixture.assert_held(&key, &[Exclusive]);
        assert_eq!(holder.release(), Done);
        fixture.assert_free(&key);
    }
}

pub(crate) fn shared_holders_exclude_only_exclusive_ones(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second, third] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait().shared()), Granted);
    assert_eq!(second.acquire(&key, no_wait().shared()), Granted);
    fixture.assert_held(&key, &[Shared, Shared]);
    fixture.assert_not_granted(&third, &key, no_wait());
    assert_eq!(first.release(), Done);
    fixture.assert_not_granted(&third, &key, no_wait());
    assert_eq!(second.release(), Done);
    assert_granted_and_released(&third, &key);
}

pub(crate) fn the_same_session_counts(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    for _ in 0..3 {
        assert_eq!(first.acquire(&key, no_wait()), Granted);
    }
    assert_eq!(first.acquire(&key, block(LONG)), Granted);
    for _ in 0..3 {
        assert_eq!(first.release(), Done);
        fixture.assert_held(&key, &[Exclusive]);
        fixture.assert_not_granted(&second, &key, no_wait());
    }
    assert_eq!(first.release(), Done);
    assert_granted_and_released(&second, &key);
}

pub(crate) fn two_keys_are_independent(fixture: &Fixture) {
    let (outer, inner) = (fixture.key("outer"), fixture.key("inner"));
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&outer, no_wait()), Granted);
    assert_granted_and_released(&second, &inner);
    assert_eq!(first.acquire(&inner, no_wait()), Granted);
    assert_eq!(first.release(), Done);
    fixture.assert_free(&inner);
    fixture.assert_held(&outer, &[Exclusive]);
    assert_granted_and_released(&second, &inner);
    fixture.assert_not_granted(&second, &outer, no_wait());
    assert_eq!(first.release(), Done);
}

pub(crate) fn exclusive_under_own_shared(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait().shared()), Granted);
    assert_eq!(second.acquire(&key, no_wait().shared()), Granted);
    fixture.assert_not_granted(&first, &key, no_wait());
    assert_eq!(second.release(), Done);

    assert_eq!(first.try_acquire(&key, no_wait()), Granted);
    fixture.assert_held(&key, &[Exclusive, Shared]);
    fixture.assert_not_granted(&second, &key, no_wait().shared());
    assert_eq!(first.release(), Done);
    fixture.assert_held(&key, &[Shared]);
    assert_eq!(first.release(), Done);
}

pub(crate) fn capabilities_report_mutual_exclusion(fixture: &Fixture) {
    let excludes = Excludes(fixture.excludes());
    assert_eq!(fixture.actor().call(Command::Excludes), excludes);
}
