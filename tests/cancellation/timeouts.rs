//! A caller's time-out that coincides with the lock's own.

use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, AsyncLockPool, LockOptions, WaitStrategy};

use crate::adapters::connect;
use crate::observer::{Observer, database_url, fresh_key};
use crate::pools::{Bb8, Deadpool, Mobc, open};

const ROUNDS: u32 = 1000;

/// Of a pool with one connection.
async fn a_time_out_equal_to_the_locks_own_leaves_nothing<P: AsyncLockPool>(name: &str, pool: P) {
    let (mut observer, key) = (Observer::new(), fresh_key());
    let mut holder = connect(&database_url()).await;
    let guard = holder
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .await
        .unwrap();
    let (mut dropped, mut timed_out) = (0, 0);
    for round in 0..ROUNDS {
        // Checked out first, so that both clocks start together.
        let mut conn = pool.checkout().await.unwrap();
        let limit = Duration::from_micros(2000 + u64::from(round % 7) * 100);
        let options = LockOptions::wait_up_to(limit).strategy(WaitStrategy::Block);
        match tokio::time::timeout(limit, conn.try_acquire_advisory_lock(&key, options)).await {
            Err(_) => dropped += 1,
            Ok(answer) => {
                assert!(
                    answer.unwrap().is_none(),
                    "{name}, round {round}: granted though it is held"
                );
                timed_out += 1;
            }
        }
        drop(conn);
        observer
            .wait_until(
                &key,
                |shown| shown.len() == 1 && shown[0].granted,
                &format!("{name}, round {round} left a waiter"),
            )
            .await;
    }
    guard.release().await.unwrap();
    observer.assert_free(&key, "all rounds").await;
    pool.checkout().await.unwrap();
    println!("{name}: {ROUNDS} rounds, {dropped} dropped, {timed_out} timed out by themselves");
}

macro_rules! on_pools {
    ($($name:ident => $pool:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            a_time_out_equal_to_the_locks_own_leaves_nothing(stringify!($name), $pool.await).await;
        }
    )*};
}
on_pools! {
    bb8 => open::<Bb8>();
    deadpool => open::<Deadpool>();
    mobc => open::<Mobc>();
    sea_orm => crate::sea_orm::open(&database_url());
}
