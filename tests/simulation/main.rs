//! Simulation of several async clients of one server. A seed determines the schedule, the faults
//! and the time. The invariants are checked after every step; a failing seed is printed and
//! replays exactly.
//!
//! The clients call the public methods. The server is the model of the other suites. The network
//! and the server inject these faults:
//!
//! * grants that arrive after their limit;
//! * waits that are granted and report a failure;
//! * replies that are lost with their session;
//! * sessions that are terminated, cancelled, or swapped by a pooler;
//! * futures that the caller drops.
//!
//! Environment:
//!
//! * `ADVISORY_LOCKING_SIMULATION_SEED=n` runs one seed and prints every step.
//! * `ADVISORY_LOCKING_SIMULATION_SEEDS=n` runs `n` seeds instead of the default number.
#![cfg(feature = "bb8")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its speed"
)]

mod claims;
mod client;
mod coverage;
mod delivery;
mod link;
mod schedule;
mod simulation;

use std::panic::catch_unwind;
use std::time::Instant;

/// Default number of seeds.
const SEEDS: u64 = 4000;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is not a number")),
    )
}

#[test]
fn every_schedule_keeps_mutual_exclusion() {
    if let Some(seed) = from_environment("ADVISORY_LOCKING_SIMULATION_SEED") {
        schedule::run_seed(seed, true);
        return;
    }
    let seeds = from_environment("ADVISORY_LOCKING_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let mut sum = coverage::Coverage::default();
    for seed in 0..seeds {
        match catch_unwind(|| schedule::run_seed(seed, false)) {
            Ok(coverage) => sum.add(&coverage),
            Err(_) => panic!("replay with ADVISORY_LOCKING_SIMULATION_SEED={seed}"),
        }
    }
    let per_minute = sum.steps as f64 / began.elapsed().as_secs_f64() * 60e-6;
    println!("{seeds} seeds, {per_minute:.1} million steps a minute: {sum:?}");
    // Each event must have happened often enough to count as tested.
    for (event, count) in sum.counts() {
        assert!(count >= seeds / 50, "only {count} times: {event}");
    }
}

/// A run depends on its seed alone.
#[test]
fn a_seed_replays() {
    for seed in [1, 2, 3] {
        assert_eq!(
            schedule::run_seed(seed, false),
            schedule::run_seed(seed, false)
        );
    }
}
