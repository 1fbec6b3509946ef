//! How long after a release the next holder runs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use advisory_locking::lock_manager::LockManagerOptions;

use crate::Scale;
use crate::contenders::{Ours, block, poll};
use crate::figures::{Figures, quantile};
use crate::server::runtime;

/// Two lockers or one: when the lock was last let go.
type LetGo = Arc<Mutex<Option<Instant>>>;

pub(crate) fn measure(scale: &Scale, figures: &mut Figures) {
    let (fast, slow) = scale.of((400, 60), (10, 3));
    runtime().block_on(async {
        // Never given back to the server in between.
        let kept = LockManagerOptions::new().hand_off_limit(u32::MAX, Duration::MAX);
        let one = Arc::new(Ours::new("hand_off", kept, poll()).await);
        let taken = alternate([Arc::clone(&one), one], fast).await;
        add(figures, "to a task of the same process", taken);
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
                figures,
                who,
                alternate([one, other].map(Arc::new), turns).await,
            );
        }
    });
}

fn add(figures: &mut Figures, who: &str, micros: Vec<f64>) {
    let part = "hand-off: release until the next holder runs";
    figures.add(part, who, "µs, median", quantile(micros.clone(), 0.5));
    figures.add(part, who, "µs, 99 %", quantile(micros, 0.99));
}

/// Two take turns; each holds until the other has surely asked. How many microseconds each waited after the other had let go.
async fn alternate(both: [Arc<Ours>; 2], turns: usize) -> Vec<f64> {
    let let_go = LetGo::default();
    let tasks = both.map(|who| tokio::spawn(take_turns(who, Arc::clone(&let_go), turns)));
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

async fn take_turns(who: Arc<Ours>, let_go: LetGo, turns: usize) -> Vec<f64> {
    let mut micros = Vec::new();
    for _ in 0..turns {
        let guard = who.locker.acquire(who.key.clone(), who.options).await;
        let (guard, now) = (guard.unwrap(), Instant::now());
        if let Some(then) = let_go.lock().unwrap().take() {
            micros.push((now - then).as_secs_f64() * 1e6);
        }
        // The other one is confirmed its release within a round trip, and asks.
        tokio::time::sleep(Duration::from_millis(3)).await;
        *let_go.lock().unwrap() = Some(Instant::now());
        guard.release().await.unwrap();
    }
    micros
}
