//! The core moved by hand, rule by rule; and over a model of the server, with every fault and without time passing.
//!
//! * `ADVISORY_LOCKING_LOCKER_SEED=n` plays one seed of the simulation.
//! * `ADVISORY_LOCKING_LOCKER_SEEDS=n` plays so many, instead of 200.

#![allow(clippy::print_stdout, reason = "it tells how fast it was")]

mod closing;
mod failures;
mod hand_off;
mod losses;
mod met;
mod play;
mod queueing;
mod server;
mod waits;
mod world;

use std::time::{Duration, Instant};

use crate::lock_manager::options::LockManagerOptions;
use met::Met;
use world::{Plan, World};

/// Played in every run.
const SEEDS: u64 = 200;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn play(seed: u64) -> Met {
    // Every fourth without faults: then nothing is lost.
    let faulty = seed % 4 > 0 || seed % 3 == 0;
    let mut world = World::new(Plan::of(seed, faulty));
    world.run();
    let lost = world.met.of("lost session") + world.met.of("silent session given up");
    assert!(
        faulty || lost <= 10 * world.met.of("shut down"),
        "{lost} lost"
    );
    world.met
}

#[test]
fn locks_exclude_and_nothing_is_left_whatever_happens() {
    if let Some(seed) = from_environment("ADVISORY_LOCKING_LOCKER_SEED") {
        println!("{:?}", play(seed));
        return;
    }
    let seeds = from_environment("ADVISORY_LOCKING_LOCKER_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let mut sum = Met::default();
    for seed in 0..seeds {
        match std::panic::catch_unwind(|| play(seed)) {
            Ok(met) => sum.add(&met),
            Err(_) => panic!("replay with ADVISORY_LOCKING_LOCKER_SEED={seed}"),
        }
    }
    let rate = sum.steps as f64 / began.elapsed().as_secs_f64();
    println!("{seeds} seeds, {rate:.0} steps a second: {sum:?}");
    // What is to be shown has happened, and not once.
    let missing = sum.missing(seeds / 20);
    assert!(missing.is_empty(), "too seldom: {missing:?}");
}

/// Nothing but the seed decides.
#[test]
fn a_seed_replays() {
    for seed in [1, 5, 7] {
        assert_eq!(play(seed), play(seed));
    }
}

/// With all of them polling for one key without a break: the bounds of a hand-off are kept, and let every process in.
#[test]
fn every_process_has_its_turn() {
    for seed in 0..3 {
        let options = LockManagerOptions::new().hand_off_limit(20, Duration::from_millis(5));
        let mut world = World::new(Plan::crowd(seed, vec![options; 4], 800));
        world.run();
        let granted: Vec<_> = world.granted.values().copied().collect();
        assert_eq!((granted.len(), granted.iter().sum::<u64>()), (4, 800));
        // Four others, each with its tenure and a pause.
        let bound = 4 * 5 * Duration::from_millis(5 + 4);
        assert!(world.longest <= bound, "{:?} without a turn", world.longest);
        assert!(world.met.of("handed on") > 400, "{:?}", world.met);
    }
}
