//! Unit tests of the core: step by step with a harness, and as a seeded simulation with faults.
//!
//! * `ADVISORY_LOCKING_LOCK_MANAGER_SEED=n` simulates one seed.
//! * `ADVISORY_LOCKING_LOCK_MANAGER_SEEDS=n` sets the number of seeds (default 200).

#![allow(clippy::print_stdout, reason = "the test prints its speed")]

mod batch_failures;
mod closing;
mod connection_check;
mod coverage;
mod hand_off;
mod harness;
mod requests;
mod server;
mod server_waits;
mod sessions;
mod simulation;
mod snapshot;

use std::time::{Duration, Instant};

use crate::lock_manager::options::LockManagerOptions;
use coverage::Coverage;
use simulation::{Plan, Simulation};

/// Number of seeds in every run.
const SEEDS: u64 = 200;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

fn simulate(seed: u64) -> Coverage {
    // Every fourth seed has no faults; then no session is lost.
    let faulty = seed % 4 > 0 || seed % 3 == 0;
    let mut simulation = Simulation::new(Plan::of(seed, faulty));
    simulation.run();
    let lost = simulation.coverage.of("lost session")
        + simulation.coverage.of("silent session terminated");
    assert!(
        faulty || lost <= 10 * simulation.coverage.of("shut down"),
        "{lost} lost"
    );
    simulation.coverage
}

#[test]
fn simulated_lock_managers_exclude_under_faults() {
    if let Some(seed) = from_environment("ADVISORY_LOCKING_LOCK_MANAGER_SEED") {
        println!("{:?}", simulate(seed));
        return;
    }
    let seeds = from_environment("ADVISORY_LOCKING_LOCK_MANAGER_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let mut sum = Coverage::default();
    for seed in 0..seeds {
        match std::panic::catch_unwind(|| simulate(seed)) {
            Ok(coverage) => sum.add(&coverage),
            Err(_) => panic!("replay with ADVISORY_LOCKING_LOCK_MANAGER_SEED={seed}"),
        }
    }
    let rate = sum.steps as f64 / began.elapsed().as_secs_f64();
    println!("{seeds} seeds, {rate:.0} steps a second: {sum:?}");
    // Each required event has occurred often enough.
    let missing = sum.missing(seeds / 20);
    assert!(missing.is_empty(), "not covered: {missing:?}");
}

/// The seed alone determines a run.
#[test]
fn seed_replays() {
    for seed in [1, 5, 7] {
        assert_eq!(simulate(seed), simulate(seed));
    }
}

/// Four processes poll for one key without a break. The hand-off limit is respected, and every
/// process is granted the key.
#[test]
fn hot_key_is_granted_to_every_process() {
    for seed in 0..3 {
        let options = LockManagerOptions::new().hand_off_limit(20, Duration::from_millis(5));
        let mut simulation = Simulation::new(Plan::single_hot_key(seed, vec![options; 4], 800));
        simulation.run();
        let granted: Vec<_> = simulation.grant_counts.values().copied().collect();
        assert_eq!((granted.len(), granted.iter().sum::<u64>()), (4, 800));
        // Four other processes, each with its hand-off time and a pause.
        let bound = 4 * 5 * Duration::from_millis(5 + 4);
        assert!(
            simulation.longest_gap <= bound,
            "{:?} without a grant",
            simulation.longest_gap
        );
        assert!(
            simulation.coverage.of("handed off") > 400,
            "{:?}",
            simulation.coverage
        );
    }
}
