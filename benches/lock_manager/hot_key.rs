//! One key that all tasks of the process contend for.

use std::sync::Arc;
use std::time::Duration;

use advisory_locking::WaitStrategy;
use advisory_locking::lock_manager::LockManagerOptions;

use crate::Scale;
use crate::contenders::{Ours, Pormg, Queue, Sqlx, cycles_per_second, poll};
use crate::results::{Results, median};
use crate::server::{ServerStats, runtime};

pub(crate) const OURS: &str = "LockManager";
pub(crate) const SQLX: &str = "sqlx PgAdvisoryLock";

/// The most connections of a contender that needs one for each task.
const CONNECTIONS: usize = 64;

pub(crate) fn part(tasks: usize) -> String {
    format!("hot key, {tasks} tasks")
}

pub(crate) fn measure(scale: &Scale, results: &mut Results) {
    for tasks in [8, 64, 1_000] {
        runtime().block_on(measure_with(tasks, scale, results));
    }
}

/// Interleaves the contenders, so that a slow phase of the machine affects all of them.
async fn measure_with(tasks: usize, scale: &Scale, results: &mut Results) {
    let connections = tasks.min(CONNECTIONS);
    let limit = u32::try_from(connections).unwrap();
    let ours = Arc::new(Ours::new("ours", LockManagerOptions::new(), poll()).await);
    let queue = Arc::new(Queue::new("queue").await);
    let sqlx = Arc::new(Sqlx::new("sqlx", limit).await);
    let pormg_poll = Arc::new(Pormg::new("pormg_poll", connections, WaitStrategy::Poll).await);
    let pormg_block = Arc::new(Pormg::new("pormg_block", connections, WaitStrategy::Block).await);
    let names = [
        (OURS, "ours"),
        ("a mutex before one connection", "queue"),
        (SQLX, "sqlx"),
        ("the statements of PormG, :poll", "pormg_poll"),
        ("the statements of PormG, :block", "pormg_block"),
    ];
    let time = Duration::from_millis(scale.pick(300, 30));
    let mut rounds: [Vec<f64>; 5] = Default::default();
    // The first round opens connections.
    for round in 0..scale.pick(6, 2) {
        let taken = [
            cycles_per_second(&ours, tasks, time).await,
            cycles_per_second(&queue, tasks, time).await,
            cycles_per_second(&sqlx, tasks, time).await,
            cycles_per_second(&pormg_poll, tasks, time).await,
            cycles_per_second(&pormg_block, tasks, time).await,
        ];
        if round > 0 {
            rounds
                .iter_mut()
                .zip(taken)
                .for_each(|(all, one)| all.push(one));
        }
    }
    let stats = ServerStats::new().await;
    let part = part(tasks);
    for ((who, name), taken) in names.into_iter().zip(&rounds) {
        let sessions = stats.sessions(name).await;
        results.add(&part, who, "cycles/s", median(taken.clone()));
        let ratios = taken.iter().zip(&rounds[2]).map(|(one, sqlx)| one / sqlx);
        results.add(&part, who, "× sqlx", median(ratios));
        results.add(
            &part,
            who,
            "sessions",
            u32::try_from(sessions).unwrap().into(),
        );
    }
}
