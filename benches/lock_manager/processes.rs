//! Processes that want the same key: how many cycles they make together, and how evenly.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use advisory_locking::lock_manager::LockManagerOptions;

use crate::Scale;
use crate::contenders::{Ours, Sqlx, block, cycles_per_second, poll};
use crate::figures::{Figures, median};
use crate::server::runtime;

const PROCESSES: usize = 4;
const TASKS: usize = 16;
/// How long each holds the lock, where the time matters for which it is handed on.
const STAY: Duration = Duration::from_millis(1);

pub(crate) const PART: &str = "4 processes, 16 tasks each, one hot key";
pub(crate) const TENURES: &str = "4 processes, held for 1 ms, handed on for";

pub(crate) const POLL: &str = "LockManager";
pub(crate) const BLOCK: &str = "LockManager, Block";
pub(crate) const SQLX: &str = "sqlx PgAdvisoryLock";

pub(crate) fn measure(scale: &Scale, figures: &mut Figures) {
    let kinds = [(POLL, "poll"), (BLOCK, "block"), (SQLX, "sqlx")];
    compare(PART, kinds, scale.of(3, 1), scale.of(4_000, 400), figures);
}

/// For the default of [`LockManagerOptions::hand_off_limit`].
pub(crate) fn measure_tenures(scale: &Scale, figures: &mut Figures) {
    let kinds = ["10 ms", "20 ms", "50 ms", "100 ms", "200 ms"].map(|time| (time, time));
    compare(
        TENURES,
        kinds,
        scale.of(2, 1),
        scale.of(4_000, 100),
        figures,
    );
}

fn compare<const N: usize>(
    part: &str,
    kinds: [(&str, &str); N],
    rounds: usize,
    millis: u64,
    figures: &mut Figures,
) {
    let mut runs: [Vec<(f64, f64)>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..rounds {
        for (runs, (_, kind)) in runs.iter_mut().zip(kinds) {
            runs.push(run(kind, millis));
        }
    }
    for ((who, _), runs) in kinds.iter().zip(&runs) {
        let totals = runs.iter().map(|(total, _)| *total);
        figures.add(part, who, "cycles/s", median(totals));
        figures.add(
            part,
            who,
            "Jain",
            median(runs.iter().map(|(_, jain)| *jain)),
        );
        let least = runs.iter().map(|(_, jain)| *jain).fold(1.0, f64::min);
        figures.add(part, who, "Jain, least", least);
    }
}

/// The cycles a second of all processes, and Jain's index of theirs.
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

/// 1 if all have the same, 1/n if one has everything: R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let count = u32::try_from(shares.len()).unwrap();
    sum * sum / (f64::from(count) * squares)
}

/// One of the processes: makes cycles for a time when it is told to, and prints how many a second.
pub(crate) fn contend(kind: &str, tasks: usize, millis: u64) {
    let time = Duration::from_millis(millis);
    runtime().block_on(async {
        let options = LockManagerOptions::new();
        let rate = match kind {
            "sqlx" => {
                let limit = u32::try_from(tasks).unwrap();
                let sqlx = Sqlx::new("processes", limit).await;
                when_told(sqlx, tasks, time).await
            }
            "poll" => when_told(Ours::new("processes", options, poll()).await, tasks, time).await,
            "block" => when_told(Ours::new("processes", options, block()).await, tasks, time).await,
            tenure => {
                let tenure = tenure.strip_suffix(" ms").unwrap().parse().unwrap();
                let options = options.hand_off_limit(u32::MAX, Duration::from_millis(tenure));
                let mut ours = Ours::new("processes", options, poll()).await;
                ours.stay = STAY;
                when_told(ours, tasks, time).await
            }
        };
        println!("{rate}");
    });
}

async fn when_told(who: impl crate::contenders::Cycle, tasks: usize, time: Duration) -> f64 {
    let who = Arc::new(who);
    // Opens what connections it needs.
    cycles_per_second(&who, tasks, Duration::from_millis(20)).await;
    println!("ready");
    let line = std::io::stdin().lines().next().unwrap().unwrap();
    assert_eq!(line, "go");
    cycles_per_second(&who, tasks, time).await
}
