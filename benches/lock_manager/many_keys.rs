//! Many different keys, held at the same time.

use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::Instant;

use advisory_locking::lock_manager::LockManager;
use advisory_locking::{LockKey, LockOptions};
use futures_util::future::join_all;

use crate::Scale;
use crate::contenders::{Raw, bb8_pool};
use crate::results::{Results, median};
use crate::server::{ServerStats, runtime};

pub(crate) const BASELINE: &str = "one by one, over one connection";

pub(crate) fn part(keys: i64) -> String {
    format!("{keys} keys held at once")
}

pub(crate) fn measure(scale: &Scale, results: &mut Results) {
    let keys = scale.pick(10_000, 500);
    let (mut ours, mut baselines) = (Vec::new(), Vec::new());
    for _ in 0..scale.pick(3, 1) {
        baselines.push(runtime().block_on(baseline(keys)));
        ours.push(in_child_process(keys));
    }
    let part = part(keys);
    let names = ["ms", "× faster", "sessions", "bytes/key"];
    for (who, at) in [
        ("LockManager, a task each", 0),
        ("LockManager, acquire_all", 1),
    ] {
        let millis = ours.iter().map(|held| held[at][0]);
        results.add(&part, who, names[0], median(millis.clone()));
        let ratios = baselines.iter().zip(millis).map(|(hand, ours)| hand / ours);
        results.add(&part, who, names[1], median(ratios));
        results.add(
            &part,
            who,
            names[2],
            median(ours.iter().map(|held| held[at][1])),
        );
        results.add(
            &part,
            who,
            names[3],
            median(ours.iter().map(|held| held[at][2])),
        );
    }
    results.add(&part, BASELINE, names[0], median(baselines));
    results.add(&part, BASELINE, names[1], 1.0);
    results.add(&part, BASELINE, names[2], 1.0);
}

/// Returns the milliseconds of the baseline.
async fn baseline(keys: i64) -> f64 {
    let raw = Raw::new("one_by_one").await;
    raw.acquire(0).await;
    let began = Instant::now();
    for key in 1..=keys {
        raw.acquire(key).await;
    }
    let millis = began.elapsed().as_secs_f64() * 1e3;
    let stats = ServerStats::new().await;
    assert_eq!(stats.locks("one_by_one").await, keys + 1);
    drop(raw);
    stats.until_gone("one_by_one").await;
    millis
}

/// Runs both variants in child processes, whose memory grows by the locks alone. Returns
/// milliseconds, sessions and bytes per key of each.
fn in_child_process(keys: i64) -> [Vec<f64>; 2] {
    ["tasks", "all"].map(|how| {
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program)
            .args(["--child", "many-keys", how, &keys.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(child.status.success());
        let line = child.stdout.lines().last().unwrap().unwrap();
        line.split(' ').map(|word| word.parse().unwrap()).collect()
    })
}

/// Runs as a child process: holds the keys and prints the time, the sessions and the memory.
pub(crate) fn hold(how: &str, keys: i64) {
    runtime().block_on(async {
        let manager = LockManager::over_async_pool(bb8_pool("held").await).unwrap();
        let stats = ServerStats::new().await;
        // The first call opens the session.
        let warm = manager.acquire(0, LockOptions::no_wait()).await.unwrap();
        warm.release().await.unwrap();
        let names = 1..=keys;
        let (before, began) = (resident_bytes(), Instant::now());
        let (tasks, together);
        if how == "tasks" {
            let guards = names.map(|key| {
                let manager = manager.clone();
                tokio::spawn(async move {
                    let key = LockKey::from(key);
                    manager.acquire(key, LockOptions::no_wait()).await.unwrap()
                })
            });
            tasks = join_all(guards).await;
            assert!(tasks.iter().all(Result::is_ok));
        } else {
            together = manager
                .acquire_all(names, LockOptions::no_wait())
                .await
                .unwrap();
            assert!(!together.is_lost());
        }
        let (millis, after) = (began.elapsed().as_secs_f64() * 1e3, resident_bytes());
        assert_eq!(stats.locks("held").await, keys);
        let sessions = stats.sessions("held").await;
        let each = (after - before) / f64::from(i32::try_from(keys).unwrap());
        println!("{millis} {sessions} {each}");
    });
}

/// Returns the resident memory of this process.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<f64>().unwrap() * 1024.0
}
