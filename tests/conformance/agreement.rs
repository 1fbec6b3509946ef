//! The model and the server say the same: each script is played on both, and every outcome and every state of the lock table
//! must be equal.

use std::cell::RefCell;
use std::fmt::Debug;
use std::time::Duration;

use advisory_locking::LockMode::{Exclusive, Shared};
use advisory_locking::{LockKey, LockOptions};

use crate::actor::{Actor, Command, Ending, Level, OUTER_LIMIT, Outcome, Raw, ask};
use crate::cases::{LONG, block, no_wait};
use crate::harness::{diesel_postgres, model};
use crate::stage::{Harness, Stage, pid, until};

const SHORT: Duration = Duration::from_millis(20);

/// A stage with three actors and two keys, and a record of all that happens on it.
struct Script {
    stage: Stage,
    actors: [Actor; 3],
    pids: [i32; 3],
    keys: [LockKey; 2],
    record: RefCell<Vec<String>>,
}

impl Script {
    fn new(harness: Box<dyn Harness>) -> Self {
        let stage = Stage::new(harness);
        let actors: [Actor; 3] = stage.actors();
        Self {
            pids: std::array::from_fn(|index| pid(&actors[index])),
            keys: [stage.key("one"), stage.key("two")],
            actors,
            record: RefCell::default(),
            stage,
        }
    }

    /// Records what happened, and who holds what then; processes by the number of their actor.
    fn note(&self, happened: impl Debug) {
        let table = self.keys.each_ref().map(|key| {
            let held = self.stage.holders(key).into_iter().map(|held| {
                let actor = self.pids.iter().position(|pid| *pid == held.pid);
                (actor, held.mode, held.granted)
            });
            let mut held: Vec<_> = held.collect();
            // `pg_locks` does not show the order of a queue; who is granted the lock does.
            held.sort_by_key(|(actor, mode, granted)| (!granted, *actor, *mode == Shared));
            held
        });
        self.record
            .borrow_mut()
            .push(format!("{happened:?}: {table:?}"));
    }

    fn does(&self, actor: usize, command: Command) -> Outcome {
        let outcome = self.actors[actor].call(command);
        self.note((actor, &outcome));
        outcome
    }

    fn asks(&self, actor: usize, key: usize, options: LockOptions) -> Outcome {
        let ask = ask(&self.keys[key], options, true);
        self.does(actor, Command::Acquire(ask))
    }

    fn asks_in_transaction(&self, actor: usize, key: usize, options: LockOptions) -> Outcome {
        let ask = ask(&self.keys[key], options, true);
        self.does(actor, Command::XactAcquire(ask))
    }

    /// Lets an actor wait, as one of so many.
    fn queues(&self, actor: usize, key: usize, options: LockOptions, waiters: usize) {
        self.actors[actor].start_acquire(&self.keys[key], options);
        self.stage.until_queued(&self.keys[key], waiters);
        self.note((actor, "queues"));
    }

    fn gets(&self, actor: usize) -> Outcome {
        let outcome = self.actors[actor].finish();
        self.note((actor, &outcome));
        outcome
    }

    fn releases(&self, actor: usize) {
        self.does(actor, Command::Release);
    }

    fn raw(&self, actor: usize, raw: Raw) {
        self.does(actor, Command::Raw(raw));
    }

    fn does_all(&self, actor: usize, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            self.does(actor, command);
        }
    }
}

/// Plays a script on the model and on the server.
fn agree(script: fn(&Script)) {
    let play = |harness: Box<dyn Harness>| {
        let stage = Script::new(harness);
        script(&stage);
        stage.record.take()
    };
    let model = play(Box::new(model::hiding_codes()));
    let server = play(Box::new(diesel_postgres::new()));
    assert!(model.len() > 2, "nothing happened");
    assert_eq!(model, server, "the model (left) and the server (right)");
}

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
        s.queues(1, 0, block(Duration::from_millis(400)), 1);
        s.queues(2, 0, block(LONG).shared(), 2);
        s.actors[1].finish();
        s.gets(2);
        s.releases(2);
        s.releases(0);
    });
}

#[test]
fn a_savepoint_that_is_rolled_back() {
    agree(|s| {
        s.does(0, Command::Begin);
        s.asks_in_transaction(0, 0, no_wait());
        s.raw(0, Raw::Savepoint("before"));
        s.asks_in_transaction(0, 0, no_wait());
        s.asks_in_transaction(0, 1, no_wait());
        s.asks(0, 1, no_wait().shared().allow_in_transaction());
        s.raw(0, Raw::RollbackTo("before"));
        s.asks(1, 1, no_wait());
        s.asks(1, 1, no_wait().shared());
        s.releases(0);
        s.releases(1);
        s.does(0, Command::Commit);
    });
}

#[test]
fn savepoints_that_are_released() {
    agree(|s| {
        s.does_all(0, [Command::Begin, Command::Begin]);
        s.asks_in_transaction(0, 0, block(LONG));
        s.does(0, Command::Commit);
        s.does(0, Command::Begin);
        s.asks_in_transaction(0, 1, no_wait());
        s.does_all(0, [Command::Rollback, Command::Raw(Raw::Fail)]);
        s.asks(1, 0, no_wait());
        s.does(0, Command::Commit);
        s.asks(1, 0, no_wait());
        s.releases(1);
    });
}

#[test]
fn an_aborted_transaction_refuses_everything() {
    agree(|s| {
        s.asks(0, 1, no_wait());
        s.does_all(0, [Command::Begin, Command::Raw(Raw::Write)]);
        s.raw(0, Raw::Fail);
        s.asks_in_transaction(0, 0, no_wait());
        s.asks_in_transaction(0, 0, block(SHORT));
        s.raw(0, Raw::Unlock(s.keys[1].space(), Exclusive));
        s.does_all(0, [Command::Rollback, Command::Raw(Raw::Count)]);
        s.releases(0);
    });
}

#[test]
fn a_session_lock_asked_for_in_an_aborted_transaction_ends_the_session() {
    agree(|s| {
        s.asks(0, 1, no_wait());
        s.does_all(0, [Command::Begin, Command::Raw(Raw::Fail)]);
        s.asks(0, 0, no_wait().allow_in_transaction());
        s.does(0, Command::Release);
        s.asks(0, 0, no_wait());
        s.asks(1, 1, no_wait());
        s.releases(1);
    });
}

#[test]
fn limits_inside_a_transaction() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.does_all(1, [Command::Begin, Command::Raw(Raw::Write)]);
        s.asks_in_transaction(1, 0, block(SHORT));
        s.asks(1, 0, block(SHORT).allow_in_transaction());
        s.raw(1, Raw::Count);
        s.asks_in_transaction(1, 1, block(SHORT));
        s.releases(0);
        s.asks_in_transaction(1, 0, block(SHORT));
        s.does_all(1, [Command::Commit, Command::Raw(Raw::Count)]);
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
        s.raw(1, Raw::TryLock(pair.space(), Shared));
        s.releases(0);
        s.raw(1, Raw::TryLock(pair.space(), Shared));
        s.does(0, with(&pair));
        s.releases(0);
        s.raw(1, Raw::Unlock(pair.space(), Exclusive));
        s.raw(1, Raw::Unlock(pair.space(), Shared));
    });
}

#[test]
fn a_session_that_is_ended() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.queues(1, 0, block(LONG), 1);
        s.stage.terminate_pid(s.pids[1]);
        s.gets(1);
        s.queues(2, 0, block(LONG), 1);
        s.stage.terminate_pid(s.pids[0]);
        s.gets(2);
        s.releases(0);
        s.asks(0, 1, no_wait());
        s.asks(1, 1, no_wait());
        s.releases(2);
    });
}

#[test]
fn a_wait_that_is_cancelled() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.queues(1, 0, block(LONG), 1);
        s.stage.cancel_pid(s.pids[1]);
        s.gets(1);
        s.asks(1, 1, no_wait());
        s.releases(1);
        s.releases(0);
    });
}

#[test]
fn everything_unlocked_by_hand() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.asks(0, 0, no_wait());
        s.asks(0, 1, no_wait().shared());
        s.raw(0, Raw::UnlockAll);
        s.releases(0);
        s.raw(0, Raw::TryLock(s.keys[0].space(), Exclusive));
        s.releases(0);
        s.releases(0);
    });
}

#[test]
fn transaction_locks_are_not_unlocked_by_hand() {
    agree(|s| {
        s.does(0, Command::Begin);
        s.asks_in_transaction(0, 0, no_wait());
        s.raw(0, Raw::Unlock(s.keys[0].space(), Exclusive));
        s.raw(0, Raw::UnlockAll);
        s.does(0, Command::Commit);
    });
}

#[test]
fn a_transaction_the_client_does_not_know_of() {
    agree(|s| {
        s.raw(0, Raw::Begin);
        s.asks(0, 0, no_wait());
        s.raw(0, Raw::Rollback);
        s.releases(0);
        s.raw(0, Raw::Begin);
        s.asks(0, 0, no_wait());
        s.releases(0);
        s.asks(0, 1, no_wait());
    });
}

#[test]
fn scopes_and_their_ends() {
    agree(|s| {
        let scope =
            |key: usize| Command::With(Level::Transaction, ask(&s.keys[key], no_wait(), true));
        for ending in [Ending::Ok, Ending::Err, Ending::Panic] {
            s.does_all(0, [scope(0), Command::Raw(Raw::Write), scope(1)]);
            s.does_all(0, [Command::Raw(Raw::Write), Command::Leave(ending)]);
            s.does_all(0, [Command::Leave(Ending::Ok), Command::Raw(Raw::Count)]);
        }
        s.does_all(
            0,
            [
                scope(0),
                Command::Raw(Raw::Fail),
                Command::Leave(Ending::Ok),
            ],
        );
        s.does_all(0, [scope(0), Command::Begin, Command::Leave(Ending::Ok)]);
    });
}
