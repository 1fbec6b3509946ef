//! Attachment of tasks to tests.

use advisory_locking::AsyncAdvisoryLocking;
use advisory_locking::testing::TestLocks;

use super::connect;
use crate::QUIET;

/// In a multi-threaded runtime, a spawned task belongs to the test whose `scope` wraps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_tests_in_one_runtime_are_isolated() {
    let tests: Vec<_> = (0..32)
        .map(|number| {
            let contended = number % 2 == 0;
            let locks = TestLocks::new();
            let test = {
                let locks = locks.clone();
                async move {
                    let _elsewhere = contended.then(|| locks.hold_from_other_session("key"));
                    for _ in 0..10 {
                        let mut conn = connect().await;
                        let lock = conn.try_acquire_advisory_lock("key", QUIET).await.unwrap();
                        assert_eq!(lock.is_none(), contended, "test {number}");
                        tokio::task::yield_now().await;
                    }
                    locks.events().len()
                }
            };
            (contended, tokio::spawn(locks.scope(test)))
        })
        .collect();
    for (contended, test) in tests {
        assert_eq!(test.await.unwrap(), if contended { 10 } else { 20 });
    }
}

async fn is_free() -> bool {
    let mut conn = connect().await;
    let lock = conn.try_acquire_advisory_lock("key", QUIET).await.unwrap();
    lock.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_on_another_thread_needs_a_scope() {
    let locks = TestLocks::enter();
    let _elsewhere = locks.hold_from_other_session("key");
    assert!(!is_free().await);
    assert!(tokio::spawn(is_free()).await.unwrap());
    assert!(!tokio::spawn(locks.scope(is_free())).await.unwrap());
}

/// Tasks that the tested code spawns on attached runtime threads.
#[test]
fn runtime_threads_can_be_attached() {
    let locks = TestLocks::new();
    let workers = locks.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || workers.attach_thread())
        .build()
        .unwrap();
    let _elsewhere = locks.hold_from_other_session("key");
    let (here, spawned) = runtime.block_on(async {
        let spawned = tokio::spawn(async { tokio::spawn(is_free()).await.unwrap() });
        (is_free().await, spawned.await.unwrap())
    });
    assert!(here, "the thread of block_on has not joined");
    assert!(!spawned);
}
