//! Waiting for a contended lock. On a backend without locks every call is granted at once.

use std::time::{Duration, Instant};

use advisory_locking::LockErrorKind::{Canceled, Database, Deadlock, HeldElsewhere, TimedOut};
use advisory_locking::LockMode::Exclusive;
use advisory_locking::{LockOptions, WaitStrategy};

use super::{LONG, assert_granted_and_released, block, no_wait, poll};
use crate::actor::Outcome::{Answered, Done, Failed, Granted, NotGranted};
use crate::actor::{Actor, OUTER_LIMIT, SqlCommand};
use crate::fixture::{Fixture, until};

pub(crate) fn a_no_wait_call_does_not_wait(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    fixture.assert_acquire_fails(&second, &key, no_wait(), HeldElsewhere);
    assert_eq!(first.release(), Done);
}

pub(crate) fn limits_below_a_millisecond_pass(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    for limit in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_micros(400),
    ] {
        for options in [poll(limit), block(limit)] {
            fixture.assert_acquire_fails(&second, &key, options, TimedOut);
            fixture.assert_not_granted(&second, &key, options);
        }
    }
    assert_eq!(first.release(), Done);
    // A free key is granted under the same limit.
    assert_eq!(second.acquire(&key, block(Duration::ZERO)), Granted);
    assert_eq!(second.release(), Done);
}

pub(crate) fn a_limit_passes(fixture: &Fixture) {
    let key = fixture.key("key");
    let limit = Duration::from_millis(40);
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    for options in [poll(limit), block(limit)] {
        let began = Instant::now();
        fixture.assert_acquire_fails(&second, &key, options, TimedOut);
        assert!(
            !fixture.excludes() || began.elapsed() >= limit,
            "{options:?}"
        );
        fixture.assert_not_granted(&second, &key, options);
        fixture.assert_held(&key, &[Exclusive]);
    }
    assert_eq!(first.release(), Done);
    assert_granted_and_released(&second, &key);
}

/// PostgreSQL can grant a lock and still report that the wait timed out. The outcome that the
/// waiter gets must match the lock table.
pub(crate) fn a_limit_races_with_the_release(fixture: &Fixture) {
    let key = fixture.key("key");
    let limit = Duration::from_millis(4);
    let [first, second] = fixture.actors();
    for round in 0..120 {
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        // About when the server ends the wait.
        let release_at = Instant::now() + limit + Duration::from_micros(10 * round);
        second.start_acquire(&key, block(limit));
        std::thread::sleep(release_at.saturating_duration_since(Instant::now()));
        assert_eq!(first.release(), Done);
        match second.finish() {
            Granted => assert_eq!(second.release(), Done),
            outcome => assert_eq!(outcome, Failed(TimedOut)),
        }
        fixture.assert_free(&key);
    }
}

pub(crate) fn a_waiter_gets_the_lock(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    let often = Duration::from_millis(5);
    let forever = LockOptions::wait_forever();
    for options in [poll(LONG), poll(Duration::MAX), forever.interval(often)] {
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        second.start_acquire(&key, options);
        assert_eq!(first.release(), Done);
        assert_eq!(second.finish(), Granted, "{options:?}");
        assert_eq!(second.release(), Done);
    }
    let forever = forever.strategy(WaitStrategy::Block);
    for options in [block(LONG), block(Duration::MAX), forever, forever.shared()] {
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        queue(fixture, &second, &key, options, 1);
        assert_eq!(first.release(), Done);
        assert_eq!(second.finish(), Granted, "{options:?}");
        assert_eq!(second.release(), Done);
    }
}

pub(crate) fn waiters_are_served_in_order(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second, third] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    queue(fixture, &second, &key, block(LONG), 1);
    queue(fixture, &third, &key, block(LONG), 2);
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    if fixture.excludes() {
        fixture.until_queued(&key, 1);
    }
    assert_eq!(second.release(), Done);
    assert_eq!(third.finish(), Granted);
    assert_eq!(third.release(), Done);
}

pub(crate) fn a_new_shared_request_queues(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second, third] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait().shared()), Granted);
    queue(fixture, &second, &key, block(LONG), 1);
    fixture.assert_not_granted(&third, &key, no_wait().shared());
    // A session that already shares the lock does not queue.
    assert_eq!(first.try_acquire(&key, no_wait().shared()), Granted);
    assert_eq!(first.release(), Done);
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    assert_eq!(second.release(), Done);
}

pub(crate) fn a_deadlock_has_one_victim(fixture: &Fixture) {
    let (one, two) = (fixture.key("one"), fixture.key("two"));
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&one, no_wait()), Granted);
    assert_eq!(second.acquire(&two, no_wait()), Granted);
    queue(fixture, &first, &two, block(LONG), 1);
    second.start_acquire(&one, block(LONG));
    if !fixture.excludes() {
        for actor in [first, second] {
            assert_eq!(
                [actor.finish(), actor.release(), actor.release()],
                [Granted, Done, Done]
            );
        }
        return;
    }
    let ended = until(OUTER_LIMIT, || {
        let ended = |victim: &Actor| victim.finished();
        ended(&first)
            .map(|outcome| (outcome, &first, &second))
            .or_else(|| ended(&second).map(|outcome| (outcome, &second, &first)))
    });
    let (outcome, victim, other) = ended.expect("one of the two is the victim");
    assert_eq!(outcome, Failed(Deadlock));
    // The victim still holds its first lock.
    assert_eq!(victim.release(), Done);
    assert_eq!(other.finish(), Granted);
    assert_eq!(other.release(), Done);
    assert_eq!(other.release(), Done);
    assert_granted_and_released(victim, &one);
}

pub(crate) fn a_cancelled_wait(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    queue(fixture, &second, &key, block(LONG), 1);
    for held in fixture
        .lock_entries(&key)
        .iter()
        .filter(|held| !held.granted)
    {
        fixture.cancel_pid(held.pid);
    }
    let outcome = second.finish();
    fixture.assert_contended(&second, outcome, Failed(Canceled));
    // The connection still works.
    fixture.assert_not_granted(&second, &key, no_wait());
    assert_eq!(first.release(), Done);
    assert_granted_and_released(&second, &key);
}

pub(crate) fn a_terminated_wait(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second, third] = fixture.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    queue(fixture, &second, &key, block(LONG), 1);
    for held in fixture
        .lock_entries(&key)
        .iter()
        .filter(|held| !held.granted)
    {
        fixture.terminate_pid(held.pid);
    }
    let outcome = second.finish();
    fixture.assert_contended(&second, outcome, Failed(Database));
    fixture.assert_held(&key, &[Exclusive]);
    assert_eq!(first.release(), Done);
    assert_granted_and_released(&third, &key);
}

pub(crate) fn settings_survive(fixture: &Fixture) {
    let key = fixture.key("key");
    // Much longer than a checkout: sqlx closes the connection of a checkout that its caller drops.
    let limit = Duration::from_secs(1);
    let [first, second] = fixture.actors();
    assert_eq!(second.run_sql(SqlCommand::SetSettings), Done);
    let before = second.number(SqlCommand::Settings);
    let assert_unchanged =
        || assert_eq!(second.run_sql(SqlCommand::Settings), Answered(Some(before)));

    for options in [no_wait(), poll(LONG), block(LONG)] {
        assert_eq!(second.acquire(&key, options), Granted);
        assert_unchanged();
        assert_eq!(second.release(), Done);
        assert_unchanged();
    }
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    fixture.assert_not_granted(&second, &key, block(limit));
    assert_unchanged();
    assert_eq!(second.begin(), Done);
    assert_eq!(
        second.try_xact(&key, block(limit)),
        fixture.contended_outcome(NotGranted)
    );
    assert_unchanged();
    second.start(crate::actor::Command::XactAcquire(crate::actor::request(
        &key,
        block(LONG),
        true,
    )));
    if fixture.excludes() {
        fixture.until_queued(&key, 1);
    }
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    assert_unchanged();
    assert_eq!(second.commit(), Done);
    assert_unchanged();
}

/// Starts an acquire, and returns when the key has this many waiters.
fn queue(
    fixture: &Fixture,
    actor: &Actor,
    key: &advisory_locking::LockKey,
    options: LockOptions,
    waiters: usize,
) {
    actor.start_acquire(key, options);
    if fixture.excludes() {
        fixture.until_queued(key, waiters);
    }
}
