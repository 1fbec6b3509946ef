//! Many async clients of one server, simulated: a seed decides who goes next, what fails, and what time it is. What must be true is
//! checked at every step; a seed that fails is printed, and replays exactly.
//!
//! The clients call what users call. The server is the model of the other suites. Between the two, everything is late or lost that can be:
//! grants that arrive when their limit has passed, waits that are reported as failed and hold the lock all the same, answers that are
//! lost with their session, sessions that are ended, cancelled or exchanged for others, futures that are dropped.
//!
//! * `ADVISORY_LOCKING_SIMULATION_SEED=n` plays one seed, and prints every step.
//! * `ADVISORY_LOCKING_SIMULATION_SEEDS=n` plays so many, instead of some thousands.
#![cfg(feature = "bb8")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells how fast it was"
)]

#[path = "../model/mod.rs"]
mod model;

mod belief;
mod client;
mod delivery;
mod line;
mod met;
mod schedule;
mod world;

use std::panic::catch_unwind;
use std::time::Instant;

/// Played in every run.
const SEEDS: u64 = 4000;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
    )
}

#[test]
fn whatever_happens_the_lock_is_a_lock() {
    if let Some(seed) = from_environment("ADVISORY_LOCKING_SIMULATION_SEED") {
        schedule::play(seed, true);
        return;
    }
    let seeds = from_environment("ADVISORY_LOCKING_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let mut sum = met::Met::default();
    for seed in 0..seeds {
        match catch_unwind(|| schedule::play(seed, false)) {
            Ok(met) => sum.add(&met),
            Err(_) => panic!("replay with ADVISORY_LOCKING_SIMULATION_SEED={seed}"),
        }
    }
    let per_minute = sum.steps as f64 / began.elapsed().as_secs_f64() * 60e-6;
    println!("{seeds} seeds, {per_minute:.1} million steps a minute: {sum:?}");
    // What is to be shown has happened, and not once.
    for (what, count) in sum.counts() {
        assert!(count >= seeds / 50, "only {count} times: {what}");
    }
}

/// Nothing but the seed decides.
#[test]
fn a_seed_replays() {
    for seed in [1, 2, 3] {
        assert_eq!(schedule::play(seed, false), schedule::play(seed, false));
    }
}
