//! Comparison of the model with the server. Each scenario runs on both, and every outcome and
//! every state of the lock table must be equal.

mod queues;
mod sessions;

use std::cell::RefCell;
use std::fmt::Debug;
use std::time::Duration;

use advisory_locking::LockMode::Shared;
use advisory_locking::{LockKey, LockOptions};

use crate::actor::{Actor, Command, Outcome, SqlCommand, request};
use crate::fixture::{Fixture, Harness, pid};
use crate::harness::diesel_postgres::DIESEL;
use crate::harness::model;

const SHORT: Duration = Duration::from_millis(20);

/// A fixture with three actors and two keys, and a record of its steps.
struct Scenario {
    fixture: Fixture,
    actors: [Actor; 3],
    pids: [i32; 3],
    keys: [LockKey; 2],
    record: RefCell<Vec<String>>,
}

impl Scenario {
    fn new(harness: Box<dyn Harness>) -> Self {
        let fixture = Fixture::new(harness);
        let actors: [Actor; 3] = fixture.actors();
        Self {
            pids: std::array::from_fn(|index| pid(&actors[index])),
            keys: [fixture.key("one"), fixture.key("two")],
            actors,
            record: RefCell::default(),
            fixture,
        }
    }

    /// Records an event and the lock table after it, with the index of each session's actor.
    fn record_step(&self, event: impl Debug) {
        let table = self.keys.each_ref().map(|key| {
            let held = self.fixture.lock_entries(key).into_iter().map(|held| {
                let actor = self.pids.iter().position(|pid| *pid == held.pid);
                (actor, held.mode, held.granted)
            });
            let mut held: Vec<_> = held.collect();
            // `pg_locks` does not show the order of a queue; the order of the grants does.
            held.sort_by_key(|(actor, mode, granted)| (!granted, *actor, *mode == Shared));
            held
        });
        self.record
            .borrow_mut()
            .push(format!("{event:?}: {table:?}"));
    }

    fn step(&self, actor: usize, command: Command) -> Outcome {
        let outcome = self.actors[actor].call(command);
        self.record_step((actor, &outcome));
        outcome
    }

    fn acquire(&self, actor: usize, key: usize, options: LockOptions) -> Outcome {
        let request = request(&self.keys[key], options, true);
        self.step(actor, Command::Acquire(request))
    }

    fn acquire_xact(&self, actor: usize, key: usize, options: LockOptions) -> Outcome {
        let request = request(&self.keys[key], options, true);
        self.step(actor, Command::XactAcquire(request))
    }

    /// Starts a blocking acquire, and returns when the key has this many waiters.
    fn start_acquire(&self, actor: usize, key: usize, options: LockOptions, waiters: usize) {
        self.actors[actor].start_acquire(&self.keys[key], options);
        self.fixture.until_queued(&self.keys[key], waiters);
        self.record_step((actor, "queues"));
    }

    fn finish_acquire(&self, actor: usize) -> Outcome {
        let outcome = self.actors[actor].finish();
        self.record_step((actor, &outcome));
        outcome
    }

    fn release(&self, actor: usize) {
        self.step(actor, Command::Release);
    }

    fn sql(&self, actor: usize, command: SqlCommand) {
        self.step(actor, Command::Sql(command));
    }

    fn steps(&self, actor: usize, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            self.step(actor, command);
        }
    }
}

/// Runs a scenario on the model and on the server, and asserts equal records.
fn assert_same(steps: fn(&Scenario)) {
    let run = |harness: Box<dyn Harness>| {
        let scenario = Scenario::new(harness);
        steps(&scenario);
        scenario.record.take()
    };
    let model = run(Box::new(model::hiding_codes()));
    let server = run(Box::new(DIESEL.on_test_server()));
    assert!(model.len() > 2, "nothing happened");
    assert_eq!(model, server, "the model (left) and the server (right)");
}
