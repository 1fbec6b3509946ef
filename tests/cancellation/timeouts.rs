//! A caller's time-out that coincides with the lock's own.

use std::time::Duration;

use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockOptions, WaitStrategy,
};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncConnection, AsyncPgConnection};

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
    let mut holder = AsyncPgConnection::establish(&database_url()).await.unwrap();
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

/// `AsyncPooledAdvisoryLocking` in a loop of `select!` that starts anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_start_anew_do_not_pile_up_in_the_queue() {
    let (mut observer, key) = (Observer::new(), fresh_key());
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(database_url());
    let pool = bb8::Pool::builder()
        .max_size(2)
        .build(manager)
        .await
        .unwrap();
    let mut holder = AsyncPgConnection::establish(&database_url()).await.unwrap();
    let guard = holder
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .await
        .unwrap();
    let options = LockOptions::wait_up_to(Duration::from_secs(30)).strategy(WaitStrategy::Block);
    for attempt in 0..20 {
        tokio::select! {
            _ = pool.acquire_advisory_lock(&key, options) => panic!("granted though it is held"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        let what = format!("attempt {attempt} is still queued");
        observer
            .wait_until(&key, |shown| shown.len() == 1, &what)
            .await;
    }
    guard.release().await.unwrap();
    observer.assert_free(&key, "all attempts").await;
}
