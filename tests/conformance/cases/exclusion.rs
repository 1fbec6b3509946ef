//! Mutual exclusion between sessions, and reentrancy within one.

use advisory_locking::LockErrorKind::HeldElsewhere;
use advisory_locking::LockMode::{Exclusive, Shared};

use super::{LONG, assert_contended, assert_granted_and_released, block, no_wait};
use crate::actor::Command;
use crate::actor::Outcome::{Done, Excludes, Failed, Granted, NotGranted};
use crate::fixture::Fixture;

pub(crate) fn a_second_session_is_refused(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    for (holder, other) in [(&first, &second), (&second, &first)] {
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
        fixture.assert_held(&key, &[Exclusive]);
        assert_contended(
            fixture,
            other,
            other.try_acquire(&key, no_wait()),
            NotGranted,
        );
        let refused = other.acquire(&key, no_wait());
        assert_contended(fixture, other, refused, Failed(HeldElsewhere));
        let refused = other.try_acquire(&key, no_wait().shared());
        assert_contended(fixture, other, refused, NotGranted);
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
    assert_contended(
        fixture,
        &third,
        third.try_acquire(&key, no_wait()),
        NotGranted,
    );
    assert_eq!(first.release(), Done);
    assert_contended(
        fixture,
        &third,
        third.try_acquire(&key, no_wait()),
        NotGranted,
    );
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
        assert_contended(
            fixture,
            &second,
            second.try_acquire(&key, no_wait()),
            NotGranted,
        );
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
    assert_contended(
        fixture,
        &second,
        second.try_acquire(&outer, no_wait()),
        NotGranted,
    );
    assert_eq!(first.release(), Done);
}

pub(crate) fn exclusive_under_own_shared(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait().shared()), Granted);
    assert_eq!(second.acquire(&key, no_wait().shared()), Granted);
    assert_contended(
        fixture,
        &first,
        first.try_acquire(&key, no_wait()),
        NotGranted,
    );
    assert_eq!(second.release(), Done);

    assert_eq!(first.try_acquire(&key, no_wait()), Granted);
    fixture.assert_held(&key, &[Exclusive, Shared]);
    let refused = second.try_acquire(&key, no_wait().shared());
    assert_contended(fixture, &second, refused, NotGranted);
    assert_eq!(first.release(), Done);
    fixture.assert_held(&key, &[Shared]);
    assert_eq!(first.release(), Done);
}

pub(crate) fn capabilities_report_mutual_exclusion(fixture: &Fixture) {
    let excludes = Excludes(fixture.excludes());
    assert_eq!(fixture.actor().call(Command::Excludes), excludes);
}
