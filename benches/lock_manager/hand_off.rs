//! The time between a release and the start of the next holder.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use advisory_locking::lock_manager::LockManagerOptions;

use crate::Scale;
use crate::contenders::{Ours, block, poll};
use crate::results::{Results, quantile};
use crate::server::runtime;

/// The time of the last release.
type LastRelease = Arc<Mutex<Option<Instant>>>;

pub(crate) fn measure(scale: &Scale, results: &mut Results) {
    let (fast, slow) = scale.pick((400, 60), (10, 3));
    runtime().block_on(async {
        // The lock is never released to the server between two holders.
        let kept = LockManagerOptions::new().hand_off_limit(u32::MAX, Duration::MAX);
        let one = Arc::new(Ours::new("hand_off", kept, poll()).await);
        let taken = alternate([Arc::clone(&one), one], fast).await;
        add(results, "to a task of the same process", taken);
        for (who, wait, turns) in [
            (
                "to another process, which waits on the server",
                block(),
                fast,
            ),
            ("to another process, which polls", poll(), slow),
        ] {
            let one = Ours::new("hand_off", LockManagerOptions::new(), wait).await;
            let other = Ours::new("hand_off", LockManagerOptions::new(), wait).await;
            add(
                results,
                who,
                alternate([one, other].map(Arc::new), turns).await,
            );
        }
    });
}

fn add(results: &mut Results, who: &str, micros: Vec<f64>) {
    let part = "hand-off: release until the next holder runs";
    results.add(part, who, "µs, median", quantile(micros.clone(), 0.5));
    results.add(part, who, "µs, 99 %", quantile(micros, 0.99));
}

/// Two callers hold the lock alternately, each until the other one waits for it. Returns the
/// microseconds from each release to the next holder.
async fn alternate(both: [Arc<Ours>; 2], turns: usize) -> Vec<f64> {
    let last_release = LastRelease::default();
    let tasks = both.map(|who| tokio::spawn(take_turns(who, Arc::clone(&last_release), turns)));
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

async fn take_turns(who: Arc<Ours>, last_release: LastRelease, turns: usize) -> Vec<f64> {
    let mut micros = Vec::new();
    for _ in 0..turns {
        let guard = who.manager.acquire(who.key.clone(), who.options).await;
        let (guard, now) = (guard.unwrap(), Instant::now());
        if let Some(then) = last_release.lock().unwrap().take() {
            micros.push((now - then).as_secs_f64() * 1e6);
        }
        // Meanwhile the other caller gets the reply to its release, and requests the lock again.
        tokio::time::sleep(Duration::from_millis(3)).await;
        *last_release.lock().unwrap() = Some(Instant::now());
        guard.release().await.unwrap();
    }
    micros
}
