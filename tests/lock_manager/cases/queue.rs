//! The wait queue in the process, and hand-offs. A request joins the queue when its future is
//! polled.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use advisory_locking::lock_manager::LockManagerOptions;
use advisory_locking::{LockKey, LockOptions, WaitStrategy};
use futures_util::poll;
use testkit::observer::Observe;
use testkit::server::connect_to;
use tokio::task::JoinHandle;

use super::{
    block, fresh_key, no_wait, poll_and_block, unlimited_hand_off, within, without_keep_alive,
};
use crate::competing_session::CompetingSession;
use crate::pool_under_test::{PoolKind, PoolUnderTest};
use crate::test_manager::{TestGuard, TestManager};

pub(crate) type Request = Pin<Box<dyn Future<Output = TestGuard> + Send>>;

/// Returns a request that has joined the queue.
pub(crate) async fn queued(manager: &TestManager, key: &LockKey, options: LockOptions) -> Request {
    let (manager, key) = (manager.clone(), key.clone());
    let mut request: Request =
        Box::pin(async move { manager.acquire(&key, options).await.unwrap() });
    assert!(poll!(&mut request).is_pending(), "the request has to wait");
    request
}

/// The holders of the lock, in order.
#[derive(Clone, Default)]
struct HolderLog(Arc<Mutex<Vec<String>>>);

impl HolderLog {
    fn write(&self, who: impl ToString) {
        self.0.lock().unwrap().push(who.to_string());
    }

    fn read(&self) -> String {
        self.0.lock().unwrap().join(" ")
    }
}

/// Holds the lock once, logs the holder and runs `look` under the lock.
fn hold_and_log(
    request: Request,
    who: impl ToString + Send + 'static,
    log: &HolderLog,
    look: impl FnOnce() + Send + 'static,
) -> JoinHandle<()> {
    let log = log.clone();
    tokio::spawn(async move {
        let guard = request.await;
        log.write(who);
        look();
        guard.release().await.unwrap();
    })
}

pub(crate) async fn waiters_are_served_in_order(pool_under_test: PoolUnderTest) {
    for options in poll_and_block() {
        let (manager, key, log) = (
            pool_under_test.manager(unlimited_hand_off()).await,
            fresh_key(),
            HolderLog::default(),
        );
        let first = manager.acquire(&key, no_wait()).await.unwrap();
        let mut tasks = Vec::new();
        for who in 0..20 {
            let request = queued(&manager, &key, options).await;
            tasks.push(hold_and_log(request, who, &log, || ()));
        }
        first.release().await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        let order: Vec<_> = (0..20).map(|who| who.to_string()).collect();
        assert_eq!(log.read(), order.join(" "));
    }
}

pub(crate) async fn sharers_do_not_overtake_a_waiting_writer(pool_under_test: PoolUnderTest) {
    let (manager, key, log) = (
        pool_under_test.manager(unlimited_hand_off()).await,
        fresh_key(),
        HolderLog::default(),
    );
    let sharer = manager.acquire(&key, no_wait().shared()).await.unwrap();
    let writer = queued(&manager, &key, super::poll()).await;
    // A request that does not wait does not overtake the writer either.
    assert!(
        manager
            .try_acquire(&key, no_wait().shared())
            .await
            .unwrap()
            .is_none()
    );
    let later = queued(&manager, &key, super::poll().shared()).await;
    let tasks = [
        hold_and_log(writer, "writer", &log, || ()),
        hold_and_log(later, "later", &log, || ()),
    ];
    sharer.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(log.read(), "writer later");
}

pub(crate) async fn cancelled_waiter_leaves_the_queue(pool_under_test: PoolUnderTest) {
    for options in poll_and_block() {
        let (manager, key) = (
            pool_under_test.manager(unlimited_hand_off()).await,
            fresh_key(),
        );
        let first = manager.acquire(&key, no_wait()).await.unwrap();
        let second = queued(&manager, &key, options).await;
        let third = queued(&manager, &key, options).await;
        drop(second);
        first.release().await.unwrap();
        third.await.release().await.unwrap();
        assert!(connect_to(&pool_under_test.url).is_free(&key));

        // A cancelled writer excludes no later sharer.
        let sharer = manager.acquire(&key, no_wait().shared()).await.unwrap();
        let writer = queued(&manager, &key, options).await;
        drop(writer);
        let later = manager.acquire(&key, no_wait().shared()).await.unwrap();
        later.release().await.unwrap();
        sharer.release().await.unwrap();
    }

    // A cancelled waiter leaves the server's queue as well. A blocking client cannot cancel its
    // wait, which ends at the limit.
    let wait = match pool_under_test.kind {
        PoolKind::R2d2 => within(Duration::from_secs(10), WaitStrategy::Block),
        _ => block(),
    };
    let (manager, key) = (
        pool_under_test.manager(unlimited_hand_off()).await,
        fresh_key(),
    );
    let mut observer = connect_to(&pool_under_test.url);
    let mut competitor = CompetingSession::holding(&key);
    let waiter = queued(&manager, &key, wait).await;
    observer.wait_until_waiters(&key, 1);
    drop(waiter);
    observer.wait_until_waiters(&key, 0);
    competitor.unlock(&key);
}

/// A waiter in the server's queue is granted a released lock at once. So while it waits, the lock
/// was not released.
pub(crate) async fn handed_off_lock_stays_held_on_the_server(pool_under_test: PoolUnderTest) {
    let (manager, key, log) = (
        pool_under_test.manager(unlimited_hand_off()).await,
        fresh_key(),
        HolderLog::default(),
    );
    let mut observer = connect_to(&pool_under_test.url);
    let first = manager.acquire(&key, no_wait()).await.unwrap();
    let pid = observer.holder(&key);
    let mut tasks = Vec::new();
    for who in 0..20 {
        let (url, key) = (pool_under_test.url.clone(), key.clone());
        let request = queued(&manager, &key, super::poll()).await;
        tasks.push(hold_and_log(request, who, &log, move || {
            assert_eq!(connect_to(&url).holders(&key), [pid]);
        }));
    }
    let written = log.clone();
    let competitor =
        CompetingSession::at(&pool_under_test.url)
            .queue(&mut observer, &key, move || written.write("competitor"));
    first.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    competitor.granted();
    let order: Vec<_> = (0..20).map(|who| who.to_string()).collect();
    assert_eq!(log.read(), format!("{} competitor", order.join(" ")));
}

/// Logs a holder, five waiters of the same process, and a competitor in the server's queue that was
/// there before the five.
async fn between(pool_under_test: &PoolUnderTest, options: LockManagerOptions, expected: &str) {
    for wait in poll_and_block() {
        let (manager, key) = (pool_under_test.manager(options.clone()).await, fresh_key());
        let (log, mut observer) = (HolderLog::default(), connect_to(&pool_under_test.url));
        let first = manager.acquire(&key, no_wait()).await.unwrap();
        let written = log.clone();
        let competitor =
            CompetingSession::at(&pool_under_test.url)
                .queue(&mut observer, &key, move || written.write("competitor"));
        let mut tasks = Vec::new();
        for who in 1..=5 {
            let request = queued(&manager, &key, wait).await;
            tasks.push(hold_and_log(request, who, &log, || ()));
        }
        first.release().await.unwrap();
        competitor.granted().unlock(&key);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(log.read(), expected, "{wait:?}");
    }
}

pub(crate) async fn hand_off_count_is_bounded(pool_under_test: PoolUnderTest) {
    // The first grant counts.
    between(
        &pool_under_test,
        without_keep_alive().hand_off_limit(3, super::NO_KEEP_ALIVE),
        "1 2 competitor 3 4 5",
    )
    .await;
    between(
        &pool_under_test,
        without_keep_alive().hand_off_limit(0, super::NO_KEEP_ALIVE),
        "competitor 1 2 3 4 5",
    )
    .await;
    between(
        &pool_under_test,
        without_keep_alive().hand_off_limit(1, super::NO_KEEP_ALIVE),
        "competitor 1 2 3 4 5",
    )
    .await;
}

pub(crate) async fn hand_off_time_is_bounded(pool_under_test: PoolUnderTest) {
    let no_time = without_keep_alive().hand_off_limit(u32::MAX, Duration::ZERO);
    between(&pool_under_test, no_time, "competitor 1 2 3 4 5").await;
}

/// Four tasks hold the key in turn until a polling caller of another lock manager has acquired it
/// three times.
pub(crate) async fn poller_of_another_manager_is_served(pool_under_test: PoolUnderTest) {
    let (busy, other) = (
        pool_under_test.manager(LockManagerOptions::new()).await,
        pool_under_test.manager(LockManagerOptions::new()).await,
    );
    let (key, stop) = (fresh_key(), Arc::new(Mutex::new(false)));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (busy, key, stop) = (busy.clone(), key.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !*stop.lock().unwrap() {
                    let guard = busy.acquire(&key, LockOptions::wait_forever()).await;
                    tokio::task::yield_now().await;
                    guard.unwrap().release().await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let guard = other
            .acquire(&key, LockOptions::wait_up_to(super::TIMEOUT))
            .await;
        guard.unwrap().release().await.unwrap();
    }
    *stop.lock().unwrap() = true;
    for task in tasks {
        task.await.unwrap();
    }
}

pub(crate) async fn snapshot_shows_holder_and_waiters(pool_under_test: PoolUnderTest) {
    let (manager, key) = (
        pool_under_test.manager(unlimited_hand_off()).await,
        fresh_key(),
    );
    let guard = manager.acquire(&key, no_wait()).await.unwrap();
    let waiter = queued(&manager, &key, LockOptions::wait_forever()).await;
    let snapshot = manager.manager.snapshot();
    assert_eq!((snapshot.holders(), snapshot.waiters()), (1, 1));
    let [shown] = &snapshot.keys[..] else {
        panic!("one key: {snapshot}");
    };
    assert_eq!(shown.key, key);
    let mut observer = connect_to(&pool_under_test.url);
    let session = &snapshot.sessions[0];
    assert_eq!(session.pid.map(i64::from), Some(observer.holder(&key)));
    assert_eq!(shown.generation, Some(session.generation));
    guard.release().await.unwrap();
    waiter.await.release().await.unwrap();
    let snapshot = manager.manager.snapshot();
    assert_eq!((snapshot.holders(), snapshot.hand_offs), (0, 1));
}
