//! Waiting for a lock that somebody holds. Where there are no locks, nobody waits.

use std::time::{Duration, Instant};

use advisory_locking::LockErrorKind::{Canceled, Database, Deadlock, HeldElsewhere, TimedOut};
use advisory_locking::LockMode::Exclusive;
use advisory_locking::{LockOptions, WaitStrategy};

use super::{LONG, assert_granted_and_released, assert_kept_out, block, no_wait, poll};
use crate::actor::Outcome::{Answered, Done, Failed, Granted, NotGranted};
use crate::actor::{Actor, OUTER_LIMIT, Raw};
use crate::stage::{Stage, until};

pub(crate) fn a_busy_key_is_not_waited_for(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    let began = Instant::now();
    assert_kept_out(
        stage,
        &second,
        second.acquire(&key, no_wait()),
        Failed(HeldElsewhere),
    );
    assert!(began.elapsed() < LONG);
    assert_eq!(first.release(), Done);
}

pub(crate) fn limits_below_a_millisecond_pass(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    for limit in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_micros(400),
    ] {
        for options in [poll(limit), block(limit)] {
            assert_kept_out(
                stage,
                &second,
                second.acquire(&key, options),
                Failed(TimedOut),
            );
            assert_kept_out(
                stage,
                &second,
                second.try_acquire(&key, options),
                NotGranted,
            );
        }
    }
    assert_eq!(first.release(), Done);
    // Of a free key they are no hindrance.
    assert_eq!(second.acquire(&key, block(Duration::ZERO)), Granted);
    assert_eq!(second.release(), Done);
}

pub(crate) fn a_limit_passes(stage: &Stage) {
    let key = stage.key("key");
    let limit = Duration::from_millis(40);
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    for options in [poll(limit), block(limit)] {
        let began = Instant::now();
        assert_kept_out(
            stage,
            &second,
            second.acquire(&key, options),
            Failed(TimedOut),
        );
        assert!(!stage.excludes() || began.elapsed() >= limit, "{options:?}");
        assert_kept_out(
            stage,
            &second,
            second.try_acquire(&key, options),
            NotGranted,
        );
        stage.assert_held(&key, &[Exclusive]);
    }
    assert_eq!(first.release(), Done);
    assert_granted_and_released(&second, &key);
}

/// PostgreSQL can report that a wait timed out and have granted the lock. Whatever the waiter is told must be true.
pub(crate) fn a_limit_races_with_the_release(stage: &Stage) {
    let key = stage.key("key");
    let limit = Duration::from_millis(4);
    let [first, second] = stage.actors();
    for round in 0..120 {
        assert_eq!(first.acquire(&key, no_wait()), Granted);
        // Around the moment at which the server gives the wait up.
        let release_at = Instant::now() + limit + Duration::from_micros(10 * round);
        second.start_acquire(&key, block(limit));
        while Instant::now() < release_at {
            std::hint::spin_loop();
        }
        assert_eq!(first.release(), Done);
        match second.finish() {
            Granted => assert_eq!(second.release(), Done),
            outcome => assert_eq!(outcome, Failed(TimedOut)),
        }
        stage.assert_free(&key);
    }
}

pub(crate) fn a_waiter_gets_the_lock(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
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
        queue(stage, &second, &key, options, 1);
        assert_eq!(first.release(), Done);
        assert_eq!(second.finish(), Granted, "{options:?}");
        assert_eq!(second.release(), Done);
    }
}

pub(crate) fn waiters_are_served_in_order(stage: &Stage) {
    let key = stage.key("key");
    let [first, second, third] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    queue(stage, &second, &key, block(LONG), 1);
    queue(stage, &third, &key, block(LONG), 2);
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    if stage.excludes() {
        stage.until_queued(&key, 1);
    }
    assert_eq!(second.release(), Done);
    assert_eq!(third.finish(), Granted);
    assert_eq!(third.release(), Done);
}

pub(crate) fn a_new_shared_request_queues(stage: &Stage) {
    let key = stage.key("key");
    let [first, second, third] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait().shared()), Granted);
    queue(stage, &second, &key, block(LONG), 1);
    let refused = third.try_acquire(&key, no_wait().shared());
    assert_kept_out(stage, &third, refused, NotGranted);
    // Whoever shares it already is not in its own way.
    assert_eq!(first.try_acquire(&key, no_wait().shared()), Granted);
    assert_eq!(first.release(), Done);
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    assert_eq!(second.release(), Done);
}

pub(crate) fn a_deadlock_has_one_victim(stage: &Stage) {
    let (one, two) = (stage.key("one"), stage.key("two"));
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&one, no_wait()), Granted);
    assert_eq!(second.acquire(&two, no_wait()), Granted);
    queue(stage, &first, &two, block(LONG), 1);
    second.start_acquire(&one, block(LONG));
    if !stage.excludes() {
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
    // The lock that the victim had is held still, and in order.
    assert_eq!(victim.release(), Done);
    assert_eq!(other.finish(), Granted);
    assert_eq!(other.release(), Done);
    assert_eq!(other.release(), Done);
    assert_granted_and_released(victim, &one);
}

pub(crate) fn a_cancelled_wait(stage: &Stage) {
    let key = stage.key("key");
    let [first, second] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    queue(stage, &second, &key, block(LONG), 1);
    for held in stage.holders(&key).iter().filter(|held| !held.granted) {
        stage.cancel_pid(held.pid);
    }
    let outcome = second.finish();
    assert_kept_out(stage, &second, outcome, Failed(Canceled));
    // The connection is as good as before.
    assert_kept_out(
        stage,
        &second,
        second.try_acquire(&key, no_wait()),
        NotGranted,
    );
    assert_eq!(first.release(), Done);
    assert_granted_and_released(&second, &key);
}

pub(crate) fn a_terminated_wait(stage: &Stage) {
    let key = stage.key("key");
    let [first, second, third] = stage.actors();
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    queue(stage, &second, &key, block(LONG), 1);
    for held in stage.holders(&key).iter().filter(|held| !held.granted) {
        stage.terminate_pid(held.pid);
    }
    let outcome = second.finish();
    assert_kept_out(stage, &second, outcome, Failed(Database));
    stage.assert_held(&key, &[Exclusive]);
    assert_eq!(first.release(), Done);
    assert_granted_and_released(&third, &key);
}

pub(crate) fn settings_survive(stage: &Stage) {
    let key = stage.key("key");
    let limit = Duration::from_millis(20);
    let [first, second] = stage.actors();
    assert_eq!(second.raw(Raw::SetSettings), Done);
    let before = second.number(Raw::Settings);
    let assert_unchanged = || assert_eq!(second.raw(Raw::Settings), Answered(Some(before)));

    for options in [no_wait(), poll(limit), block(limit)] {
        assert_eq!(second.acquire(&key, options), Granted);
        assert_unchanged();
        assert_eq!(second.release(), Done);
        assert_unchanged();
    }
    assert_eq!(first.acquire(&key, no_wait()), Granted);
    assert_kept_out(
        stage,
        &second,
        second.try_acquire(&key, block(limit)),
        NotGranted,
    );
    assert_unchanged();
    assert_eq!(second.begin(), Done);
    assert_eq!(
        second.try_xact(&key, block(limit)),
        stage.kept_out(NotGranted)
    );
    assert_unchanged();
    second.start(crate::actor::Command::XactAcquire(crate::actor::ask(
        &key,
        block(LONG),
        true,
    )));
    if stage.excludes() {
        stage.until_queued(&key, 1);
    }
    assert_eq!(first.release(), Done);
    assert_eq!(second.finish(), Granted);
    assert_unchanged();
    assert_eq!(second.commit(), Done);
    assert_unchanged();
}

/// Lets an actor ask and blocks until it is the last of so many in the queue.
fn queue(
    stage: &Stage,
    actor: &Actor,
    key: &advisory_locking::LockKey,
    options: LockOptions,
    waiters: usize,
) {
    actor.start_acquire(key, options);
    if stage.excludes() {
        stage.until_queued(key, waiters);
    }
}
