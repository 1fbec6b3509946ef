//! Processes that contend for one key: their total of cycles, and its distribution.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use advisory_locking::lock_manager::LockManagerOptions;

use crate::Scale;
use crate::contenders::{Ours, Sqlx, block, cycles_per_second, poll};
use crate::results::{Results, median};
use crate::server::runtime;

const PROCESSES: usize = 4;
const TASKS: usize = 16;
/// The time that each holder keeps the lock, in the comparison of hand-off times.
const HOLD_TIME: Duration = Duration::from_millis(1);

pub(crate) const PART: &str = "4 processes, 16 tasks each, one hot key";
pub(crate) const HAND_OFF_TIMES: &str = "4 processes, held for 1 ms, handed off for";

pub(crate) const POLL: &str = "LockManager";
pub(crate) const BLOCK: &str = "LockManager, Block";
pub(crate) const SQLX: &str = "sqlx PgAdvisoryLock";

pub(crate) fn measure(scale: &Scale, results: &mut Results) {
    let kinds = [(POLL, "poll"), (BLOCK, "block"), (SQLX, "sqlx")];
    compare(
        PART,
        kinds,
        scale.pick(3, 1),
        scale.pick(4_000, 400),
        results,
    );
}

/// For the default of [`LockManagerOptions::hand_off_limit`].
pub(crate) fn measure_hand_off_times(scale: &Scale, results: &mut Results) {
    let kinds = ["10 ms", "20 ms", "50 ms", "100 ms", "200 ms"].map(|time| (time, time));
    compare(
        HAND_OFF_TIMES,
        kinds,
        scale.pick(2, 1),
        scale.pick(4_000, 100),
        results,
    );
}

fn compare<const N: usize>(
    part: &str,
    kinds: [(&str, &str); N],
    rounds: usize,
    millis: u64,
    results: &mut Results,
) {
    let mut runs: [Vec<(f64, f64)>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..rounds {
        for (runs, (_, kind)) in runs.iter_mut().zip(kinds) {
            runs.push(run(kind, millis));
        }
    }
    for ((who, _), runs) in kinds.iter().zip(&runs) {
        let totals = runs.iter().map(|(total, _)| *total);
        results.add(part, who, "cycles/s", median(totals));
        results.add(
            part,
            who,
            "Jain",
            median(runs.iter().map(|(_, jain)| *jain)),
        );
        let least = runs.iter().map(|(_, jain)| *jain).fold(1.0, f64::min);
        results.add(part, who, "Jain, least", least);
    }
}

/// Returns the cycles per second of all processes, and Jain's index of their shares.
fn run(kind: &str, millis: u64) -> (f64, f64) {
    let mut children: Vec<_> = (0..PROCESSES).map(|_| start(kind, millis)).collect();
    let mut outputs: Vec<_> = children
        .iter_mut()
        .map(|child| BufReader::new(child.stdout.take().unwrap()).lines())
        .collect();
    for output in &mut outputs {
        assert_eq!(output.next().unwrap().unwrap(), "ready");
    }
    for child in &mut children {
        writeln!(child.stdin.take().unwrap(), "go").unwrap();
    }
    let rates: Vec<f64> = outputs
        .iter_mut()
        .map(|output| output.next().unwrap().unwrap().parse().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    (rates.iter().sum(), jain(&rates))
}

fn start(kind: &str, millis: u64) -> Child {
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program)
        .args([
            "--child",
            "contend",
            kind,
            &TASKS.to_string(),
            &millis.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    child.unwrap()
}

/// Returns Jain's fairness index: 1 if all shares are equal, 1/n if one process has everything.
///
/// R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let count = u32::try_from(shares.len()).unwrap();
    sum * sum / (f64::from(count) * squares)
}

/// Runs as one of the processes: waits for the start signal, then prints its cycles per second.
pub(crate) fn contend(kind: &str, tasks: usize, millis: u64) {
    let time = Duration::from_millis(millis);
    runtime().block_on(async {
        let options = LockManagerOptions::new();
        let rate = match kind {
            "sqlx" => {
                let limit = u32::try_from(tasks).unwrap();
                let sqlx = Sqlx::new("processes", limit).await;
                on_start_signal(sqlx, tasks, time).await
            }
            "poll" => {
                on_start_signal(Ours::new("processes", options, poll()).await, tasks, time).await
            }
            "block" => {
                on_start_signal(Ours::new("processes", options, block()).await, tasks, time).await
            }
            time_limit => {
                let time_limit = time_limit.strip_suffix(" ms").unwrap().parse().unwrap();
                let options = options.hand_off_limit(u32::MAX, Duration::from_millis(time_limit));
                let mut ours = Ours::new("processes", options, poll()).await;
                ours.hold_time = HOLD_TIME;
                on_start_signal(ours, tasks, time).await
            }
        };
        println!("{rate}");
    });
}

async fn on_start_signal(who: impl crate::contenders::Cycle, tasks: usize, time: Duration) -> f64 {
    let who = Arc::new(who);
    // Opens the connections.
    cycles_per_second(&who, tasks, Duration::from_millis(20)).await;
    println!("ready");
    let line = std::io::stdin().lines().next().unwrap().unwrap();
    assert_eq!(line, "go");
    cycles_per_second(&who, tasks, time).await
}
