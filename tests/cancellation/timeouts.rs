//! A caller's time-out that coincides with the lock's own.

use std::time::Duration;

use advisory_locking::{AsyncAdvisoryLocking, LockOptions, WaitStrategy};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};

use crate::adapters::connect;
use crate::observer::{Observer, database_url, fresh_key};

const ROUNDS: u32 = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_equal_to_the_locks_own_leaves_nothing() {
    let (mut observer, key) = (Observer::new(), fresh_key());
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(database_url());
    let pool = bb8::Pool::builder()
        .max_size(1)
        .build(manager)
        .await
        .unwrap();
    let mut holder = connect(&database_url()).await;
    let guard = holder
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .await
        .unwrap();
    let (mut dropped, mut timed_out) = (0, 0);
    for round in 0..ROUNDS {
        // Checked out first, so that both clocks start together.
        let mut conn = pool.get_owned().await.unwrap();
        let limit = Duration::from_micros(2000 + u64::from(round % 7) * 100);
        let options = LockOptions::wait_up_to(limit).strategy(WaitStrategy::Block);
        match tokio::time::timeout(limit, conn.try_acquire_advisory_lock(&key, options)).await {
            Err(_) => dropped += 1,
            Ok(answer) => {
                assert!(
                    answer.unwrap().is_none(),
                    "round {round}: granted though it is held"
                );
                timed_out += 1;
            }
        }
        drop(conn);
        observer
            .wait_until(
                &key,
                |shown| shown.len() == 1 && shown[0].granted,
                &format!("round {round} left a waiter"),
            )
            .await;
    }
    guard.release().await.unwrap();
    observer.assert_free(&key, "all rounds").await;
    pool.get().await.unwrap();
    println!("{ROUNDS} rounds: {dropped} dropped, {timed_out} timed out by themselves");
}
