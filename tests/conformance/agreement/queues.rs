//! Scripts about who holds, who waits, and who is served.

use std::time::Duration;

use advisory_locking::LockKey;
use advisory_locking::LockMode::{Exclusive, Shared};

use super::{SHORT, agree};
use crate::actor::{Command, OUTER_LIMIT, Raw, ask};
use crate::cases::{LONG, block, no_wait};
use crate::stage::until;

#[test]
fn levels_are_counted_by_mode() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.asks(0, 0, no_wait().shared());
        s.asks(0, 0, no_wait());
        s.asks(1, 0, no_wait().shared());
        for _ in 0..2 {
            s.releases(0);
            s.asks(1, 0, no_wait().shared());
        }
        s.releases(0);
        s.asks(1, 0, no_wait());
        s.releases(1);
    });
}

#[test]
fn shared_queues_behind_a_waiting_exclusive() {
    agree(|s| {
        s.asks(0, 0, no_wait().shared());
        s.queues(1, 0, block(LONG), 1);
        s.asks(2, 0, no_wait().shared());
        s.asks(0, 0, no_wait().shared());
        s.queues(2, 0, block(LONG).shared(), 2);
        s.releases(0);
        s.does(0, Command::Raw(Raw::UnlockAll));
        s.gets(1);
        s.releases(1);
        s.gets(2);
        s.releases(2);
        s.releases(0);
    });
}

#[test]
fn a_waiter_that_gives_up_lets_the_next_pass() {
    agree(|s| {
        s.asks(0, 0, no_wait().shared());
        s.queues(1, 0, block(LONG), 1);
        s.queues(2, 0, block(LONG).shared(), 2);
        // Not by a limit, which could pass before the other one has come.
        s.stage.cancel_pid(s.pids[1]);
        s.actors[1].finish();
        s.gets(2);
        s.releases(2);
        s.releases(0);
    });
}

#[test]
fn limits_outside_a_transaction() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        for limit in [Duration::ZERO, Duration::from_nanos(1), SHORT] {
            s.asks(1, 0, block(limit));
            s.asks(1, 0, block(limit).shared());
        }
        s.asks(0, 0, block(SHORT));
        s.releases(0);
        s.releases(0);
        s.asks(1, 0, block(SHORT));
        s.releases(1);
    });
}

#[test]
fn two_who_wait_for_each_other() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.asks(1, 1, no_wait());
        s.queues(0, 1, block(LONG), 1);
        s.actors[1].start_acquire(&s.keys[0], block(LONG));
        // Whose clock runs out first is a matter of chance.
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
        s.note(end);
    });
}

#[test]
fn two_who_share_and_both_want_more() {
    agree(|s| {
        s.asks(0, 0, no_wait().shared());
        s.asks(1, 0, no_wait().shared());
        s.asks(0, 0, no_wait());
        s.queues(0, 0, block(LONG), 1);
        // Seen at once, because the one who waits holds what is asked for.
        s.asks(1, 0, block(LONG));
        s.releases(1);
        s.gets(0);
        s.releases(0);
        s.releases(0);
    });
}

#[test]
fn a_holder_who_wants_more_overtakes() {
    agree(|s| {
        s.asks(0, 0, no_wait().shared());
        s.asks(1, 0, no_wait().shared());
        s.queues(2, 0, block(LONG), 1);
        s.queues(0, 0, block(LONG), 2);
        s.releases(1);
        s.gets(0);
        s.releases(0);
        s.releases(0);
        s.gets(2);
        s.releases(2);
    });
}

#[test]
fn a_queue_that_is_reordered_instead_of_a_victim() {
    agree(|s| {
        // 0 shares the one key and waits for 2's; 1 waits for 0's; 2 wants to share behind 1, and is let past it.
        s.asks(0, 0, no_wait().shared());
        s.asks(2, 1, no_wait());
        s.queues(1, 0, block(LONG), 1);
        s.queues(0, 1, block(LONG), 1);
        s.actors[2].start_acquire(&s.keys[0], block(LONG).shared());
        s.gets(2);
        s.releases(2);
        s.releases(2);
        s.gets(0);
        s.releases(0);
        s.releases(0);
        s.gets(1);
        s.releases(1);
    });
}

#[test]
fn numbers_and_pairs_are_apart() {
    agree(|s| {
        let (pair, _) = s.stage.pairs();
        s.asks(0, 0, no_wait());
        let with = |key: &LockKey| Command::Acquire(ask(key, no_wait(), false));
        s.does(0, with(&pair));
        s.does(1, with(&pair));
        s.raw(1, Raw::TryLock(pair.raw(), Shared));
        s.releases(0);
        s.raw(1, Raw::TryLock(pair.raw(), Shared));
        s.does(0, with(&pair));
        s.releases(0);
        s.raw(1, Raw::Unlock(pair.raw(), Exclusive));
        s.raw(1, Raw::Unlock(pair.raw(), Shared));
    });
}
