//! The model and the server say the same: each script is played on both, and every outcome and every state of the lock table
//! must be equal.

mod queues;
mod sessions;

use std::cell::RefCell;
use std::fmt::Debug;
use std::time::Duration;

use advisory_locking::LockMode::Shared;
use advisory_locking::{LockKey, LockOptions};

use crate::actor::{Actor, Command, Outcome, Raw, ask};
use crate::harness::{diesel_postgres, model};
use crate::stage::{Harness, Stage, pid};

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
