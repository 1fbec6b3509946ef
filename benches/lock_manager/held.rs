//! Many different keys, held at the same time.

use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::Instant;

use advisory_locking::lock_manager::LockManager;
use advisory_locking::{LockKey, LockOptions};
use futures_util::future::join_all;

use crate::Scale;
use crate::contenders::{Raw, bb8_pool};
use crate::figures::{Figures, median};
use crate::server::{Control, runtime};

pub(crate) const BY_HAND: &str = "one by one, a connection of one's own";

pub(crate) fn part(keys: i64) -> String {
    format!("{keys} keys held at once")
}

pub(crate) fn measure(scale: &Scale, figures: &mut Figures) {
    let keys = scale.of(10_000, 500);
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(3, 1) {
        by_hand.push(runtime().block_on(one_by_one(keys)));
        ours.push(in_a_process(keys));
    }
    let part = part(keys);
    let names = ["ms", "× faster", "sessions", "bytes/key"];
    for (who, at) in [
        ("LockManager, a task each", 0),
        ("LockManager, acquire_all", 1),
    ] {
        let millis = ours.iter().map(|held| held[at][0]);
        figures.add(&part, who, names[0], median(millis.clone()));
        let ratios = by_hand.iter().zip(millis).map(|(hand, ours)| hand / ours);
        figures.add(&part, who, names[1], median(ratios));
        figures.add(
            &part,
            who,
            names[2],
            median(ours.iter().map(|held| held[at][1])),
        );
        figures.add(
            &part,
            who,
            names[3],
            median(ours.iter().map(|held| held[at][2])),
        );
    }
    figures.add(&part, BY_HAND, names[0], median(by_hand));
    figures.add(&part, BY_HAND, names[1], 1.0);
    figures.add(&part, BY_HAND, names[2], 1.0);
}

/// Milliseconds.
async fn one_by_one(keys: i64) -> f64 {
    let raw = Raw::new("one_by_one").await;
    raw.take(0).await;
    let began = Instant::now();
    for key in 1..=keys {
        raw.take(key).await;
    }
    let millis = began.elapsed().as_secs_f64() * 1e3;
    let control = Control::new().await;
    assert_eq!(control.locks("one_by_one").await, keys + 1);
    drop(raw);
    control.until_gone("one_by_one").await;
    millis
}

/// In processes of their own, whose memory is that of the locks alone. For both ways: milliseconds, sessions, bytes for each key.
fn in_a_process(keys: i64) -> [Vec<f64>; 2] {
    ["tasks", "all"].map(|how| {
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program)
            .args(["--child", "held", how, &keys.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(child.status.success());
        let line = child.stdout.lines().last().unwrap().unwrap();
        line.split(' ').map(|word| word.parse().unwrap()).collect()
    })
}

/// Holds so many keys, and prints what that took.
pub(crate) fn hold(how: &str, keys: i64) {
    runtime().block_on(async {
        let locker = LockManager::over_async_pool(bb8_pool("held").await).unwrap();
        let control = Control::new().await;
        // The first opens the session.
        let warm = locker.acquire(0, LockOptions::no_wait()).await.unwrap();
        warm.release().await.unwrap();
        let names = 1..=keys;
        let (before, began) = (resident_bytes(), Instant::now());
        let (tasks, together);
        if how == "tasks" {
            let guards = names.map(|key| {
                let locker = locker.clone();
                tokio::spawn(async move {
                    let key = LockKey::from(key);
                    locker.acquire(key, LockOptions::no_wait()).await.unwrap()
                })
            });
            tasks = join_all(guards).await;
            assert!(tasks.iter().all(Result::is_ok));
        } else {
            together = locker
                .acquire_all(names, LockOptions::no_wait())
                .await
                .unwrap();
            assert!(!together.is_lost());
        }
        let (millis, after) = (began.elapsed().as_secs_f64() * 1e3, resident_bytes());
        assert_eq!(control.locks("held").await, keys);
        let sessions = control.sessions("held").await;
        let each = (after - before) / f64::from(i32::try_from(keys).unwrap());
        println!("{millis} {sessions} {each}");
    });
}

/// What this process has in memory.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<f64>().unwrap() * 1024.0
}
