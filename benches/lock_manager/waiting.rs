//! Many tasks that wait for keys of another session until it releases them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use advisory_locking::lock_manager::LockManager;
use futures_util::future::join_all;

use crate::Scale;
use crate::contenders::{bb8_pool, poll};
use crate::results::Results;
use crate::server::{ServerStats, runtime};

pub(crate) fn measure(scale: &Scale, results: &mut Results) {
    runtime().block_on(wait_and_be_served(scale, results));
}

async fn wait_and_be_served(scale: &Scale, results: &mut Results) {
    let (tasks, keys) = scale.pick((10_000, 1_000_i64), (200, 20));
    let stats = ServerStats::new().await;
    let take = "SELECT count(pg_advisory_lock(key)) FROM generate_series(1, $1::int8) AS key";
    stats.client().execute(take, &[&keys]).await.unwrap();
    let before = stats.transactions().await;

    let manager = LockManager::over_async_pool(bb8_pool("waiting").await).unwrap();
    let granted = Arc::new(AtomicUsize::new(0));
    let waiting: Vec<_> = (1..=keys)
        .cycle()
        .take(tasks)
        .map(|key| {
            let (manager, granted) = (manager.clone(), Arc::clone(&granted));
            tokio::spawn(async move {
                let guard = manager.acquire(key, poll()).await.unwrap();
                granted.fetch_add(1, Ordering::Relaxed);
                guard.release().await.unwrap();
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(granted.load(Ordering::Relaxed), 0);
    let sessions = stats.sessions("waiting").await;

    let began = Instant::now();
    let release = "SELECT pg_advisory_unlock_all()";
    stats.client().batch_execute(release).await.unwrap();
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    let served = began.elapsed();
    manager.close().await;
    drop(manager);
    stats.until_gone("waiting").await;
    let statements = stats.transactions().await - before;

    let part = format!("{tasks} tasks wait on {keys} keys, for 1 s, then are served");
    let who = "LockManager";
    results.add(&part, who, "ms until served", served.as_secs_f64() * 1e3);
    results.add(
        &part,
        who,
        "sessions",
        u32::try_from(sessions).unwrap().into(),
    );
    results.add(
        &part,
        who,
        "statements",
        u32::try_from(statements).unwrap().into(),
    );
}
