//! Keys: every number is a key, and the two key spaces are distinct.

use advisory_locking::LockMode::Exclusive;
use advisory_locking::{LockKey, RawLockKey};

use super::{LONG, block, no_wait};
use crate::actor::Outcome::{Done, Granted, NotGranted};
use crate::actor::SqlCommand;
use crate::fixture::Fixture;

pub(crate) fn extreme_keys(fixture: &Fixture) {
    let _reserved = fixture.reserve_extreme_keys();
    let [first, second] = fixture.actors();
    let numbers = [i64::MIN, i64::MAX, 0, -1, 1, i64::from(i32::MIN), 1 << 32];
    let ends = [i32::MIN, -1, 0, i32::MAX];
    let pairs = ends
        .iter()
        .flat_map(|one| ends.map(|other| LockKey::from((*one, other))));
    for key in numbers.map(LockKey::from).into_iter().chain(pairs) {
        let key = fixture.track_key(key);
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        fixture.assert_held(&key, &[Exclusive]);
        fixture.assert_not_granted(&second, &key, no_wait());
        let waited = second.try_acquire(&key, block(std::time::Duration::from_nanos(1)));
        fixture.assert_contended(&second, waited, NotGranted);
        assert_eq!(first.release(), Done);
    }
}

pub(crate) fn pairs(fixture: &Fixture) {
    let (one, other) = fixture.pairs();
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&one, no_wait()), Granted);
    assert_eq!(second.acquire(&other, no_wait()), Granted);
    fixture.assert_not_granted(&second, &one, no_wait());
    assert_eq!(second.release(), Done);
    second.start_acquire(&one, block(LONG));
    if fixture.excludes() {
        fixture.until_queued(&one, 1);
    }
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    assert_eq!(second.release(), Done);
}

/// A number, and the pair of its halves.
pub(crate) fn key_spaces_are_distinct(fixture: &Fixture) {
    let [first, second] = fixture.actors();
    let number = fixture.key("number");
    let RawLockKey::Single(bits) = number.raw() else {
        panic!("a name is one number");
    };
    let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
    let [one, other] = [[a, b, c, d], [e, f, g, h]].map(i32::from_be_bytes);
    let pair = fixture.track_key((one, other));
    assert_eq!(first.acquire(&number, no_wait()), Granted);
    fixture.assert_free(&pair);
    assert_eq!(second.acquire(&pair, no_wait()), Granted);
    fixture.assert_held(&number, &[Exclusive]);
    assert_eq!(first.release(), Done);
    fixture.assert_held(&pair, &[Exclusive]);
    assert_eq!(second.release(), Done);
    // Plain SQL and the library lock the same key.
    assert_eq!(first.acquire(&pair, no_wait()), Granted);
    let by_hand = second.run_sql(SqlCommand::TryLock(pair.raw(), Exclusive));
    let refused = crate::actor::Outcome::Answered(Some(0));
    assert_eq!(
        by_hand,
        if fixture.excludes() {
            refused
        } else {
            crate::actor::Outcome::Unsupported
        }
    );
    assert_eq!(first.release(), Done);
}
