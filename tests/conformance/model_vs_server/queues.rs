//! Scenarios of holders, waiters and grants.

use std::time::Duration;

use advisory_locking::LockKey;
use advisory_locking::LockMode::{Exclusive, Shared};

use super::{SHORT, assert_same};
use crate::actor::{Command, OUTER_LIMIT, SqlCommand, request};
use crate::cases::{LONG, block, no_wait};
use crate::fixture::until;

#[test]
fn levels_are_counted_by_mode() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait());
        s.acquire(0, 0, no_wait().shared());
        s.acquire(0, 0, no_wait());
        s.acquire(1, 0, no_wait().shared());
        for _ in 0..2 {
            s.release(0);
            s.acquire(1, 0, no_wait().shared());
        }
        s.release(0);
        s.acquire(1, 0, no_wait());
        s.release(1);
    });
}

#[test]
fn shared_queues_behind_a_waiting_exclusive() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait().shared());
        s.start_acquire(1, 0, block(LONG), 1);
        s.acquire(2, 0, no_wait().shared());
        s.acquire(0, 0, no_wait().shared());
        s.start_acquire(2, 0, block(LONG).shared(), 2);
        s.release(0);
        s.step(0, Command::Sql(SqlCommand::UnlockAll));
        s.finish_acquire(1);
        s.release(1);
        s.finish_acquire(2);
        s.release(2);
        s.release(0);
    });
}

#[test]
fn a_cancelled_waiter_unblocks_the_next() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait().shared());
        s.start_acquire(1, 0, block(LONG), 1);
        s.start_acquire(2, 0, block(LONG).shared(), 2);
        // A limit could pass before the other waiter is queued.
        s.fixture.cancel_pid(s.pids[1]);
        s.actors[1].finish();
        s.finish_acquire(2);
        s.release(2);
        s.release(0);
    });
}

#[test]
fn limits_outside_a_transaction() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait());
        for limit in [Duration::ZERO, Duration::from_nanos(1), SHORT] {
            s.acquire(1, 0, block(limit));
            s.acquire(1, 0, block(limit).shared());
        }
        s.acquire(0, 0, block(SHORT));
        s.release(0);
        s.release(0);
        s.acquire(1, 0, block(SHORT));
        s.release(1);
    });
}

#[test]
fn two_waiters_deadlock() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait());
        s.acquire(1, 1, no_wait());
        s.start_acquire(0, 1, block(LONG), 1);
        s.actors[1].start_acquire(&s.keys[0], block(LONG));
        // Either of the two may be the victim.
        let ended = |actor: usize| s.actors[actor].finished().map(|outcome| (actor, outcome));
        let (victim, outcome) = until(OUTER_LIMIT, || ended(0).or_else(|| ended(1))).unwrap();
        s.record.borrow_mut().push(format!("{outcome:?}"));
        let other = 1 - victim;
        let end = [
            s.actors[victim].release(),
            s.actors[other].finish(),
            s.actors[other].release(),
            s.actors[other].release(),
        ];
        s.record_step(end);
    });
}

#[test]
fn two_sharers_that_upgrade_deadlock() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait().shared());
        s.acquire(1, 0, no_wait().shared());
        s.acquire(0, 0, no_wait());
        s.start_acquire(0, 0, block(LONG), 1);
        // Detected at once, because the waiter holds the requested lock.
        s.acquire(1, 0, block(LONG));
        s.release(1);
        s.finish_acquire(0);
        s.release(0);
        s.release(0);
    });
}

#[test]
fn a_holder_that_upgrades_overtakes() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait().shared());
        s.acquire(1, 0, no_wait().shared());
        s.start_acquire(2, 0, block(LONG), 1);
        s.start_acquire(0, 0, block(LONG), 2);
        s.release(1);
        s.finish_acquire(0);
        s.release(0);
        s.release(0);
        s.finish_acquire(2);
        s.release(2);
    });
}

#[test]
fn a_soft_deadlock_reorders_the_queue() {
    assert_same(|s| {
        // 0 shares the first key and waits for 2's; 1 waits for 0's; 2 requests a share behind 1,
        // and the server moves it ahead of 1.
        s.acquire(0, 0, no_wait().shared());
        s.acquire(2, 1, no_wait());
        s.start_acquire(1, 0, block(LONG), 1);
        s.start_acquire(0, 1, block(LONG), 1);
        s.actors[2].start_acquire(&s.keys[0], block(LONG).shared());
        s.finish_acquire(2);
        s.release(2);
        s.release(2);
        s.finish_acquire(0);
        s.release(0);
        s.release(0);
        s.finish_acquire(1);
        s.release(1);
    });
}

#[test]
fn single_and_pair_keys_are_distinct() {
    assert_same(|s| {
        let (pair, _) = s.fixture.pairs();
        s.acquire(0, 0, no_wait());
        let with = |key: &LockKey| Command::Acquire(request(key, no_wait(), false));
        s.step(0, with(&pair));
        s.step(1, with(&pair));
        s.sql(1, SqlCommand::TryLock(pair.raw(), Shared));
        s.release(0);
        s.sql(1, SqlCommand::TryLock(pair.raw(), Shared));
        s.step(0, with(&pair));
        s.release(0);
        s.sql(1, SqlCommand::Unlock(pair.raw(), Exclusive));
        s.sql(1, SqlCommand::Unlock(pair.raw(), Shared));
    });
}
