//! Each case on each async adapter, and the attachment of tasks to tests.
#![allow(
    clippy::future_not_send,
    reason = "what entered a thread stays on it, as the tests of an application do"
)]

mod tasks;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::{Duration, Instant};

use advisory_locking::session::{AsyncLockPool, AsyncLockSession};
use advisory_locking::testing::{Event, Fault, TestLocks};
use advisory_locking::{
    AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockKey,
    WaitStrategy,
};
use diesel::SqliteConnection;
use diesel_async::AsyncConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

use crate::{BOTH, LONG, QUIET, wait};

type Sqlite = SyncConnectionWrapper<SqliteConnection>;

async fn connect() -> Sqlite {
    Sqlite::establish(":memory:").await.unwrap()
}

fn manager() -> AsyncDieselConnectionManager<Sqlite> {
    AsyncDieselConnectionManager::new(":memory:")
}

async fn bb8_pool() -> bb8::Pool<Sqlite> {
    bb8::Pool::builder()
        .max_size(4)
        .build(manager())
        .await
        .unwrap()
}

async fn deadpool_pool() -> deadpool::Pool<Sqlite> {
    deadpool::Pool::builder(manager())
        .max_size(4)
        .build()
        .unwrap()
}

#[cfg(feature = "mobc")]
async fn mobc_pool() -> diesel_async::pooled_connection::mobc::Pool<Sqlite> {
    diesel_async::pooled_connection::mobc::Pool::builder()
        .max_open(4)
        .build(manager())
}

#[cfg(feature = "sqlx-sqlite")]
async fn sqlx_pool() -> sqlx::SqlitePool {
    sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap()
}

#[cfg(feature = "sea-orm")]
async fn sea_orm_pool() -> sea_orm::DatabaseConnection {
    let mut options = sea_orm::ConnectOptions::new("sqlite::memory:");
    options.max_connections(4).sqlx_logging(false);
    sea_orm::Database::connect(options).await.unwrap()
}

/// Also in a transaction of the application, which SeaORM passes by shared reference.
#[cfg(feature = "sea-orm")]
#[tokio::test]
async fn a_transaction_of_sea_orm_finds_the_lock_held() {
    use advisory_locking::AsyncTransactionAdvisoryLocking;
    use sea_orm::TransactionTrait;

    let (locks, db) = (TestLocks::enter(), sea_orm_pool().await);
    let elsewhere = locks.hold_from_other_session("key");
    let tx = db.begin().await.unwrap();
    let free = tx.try_acquire_advisory_xact_lock("key", QUIET).await;
    assert!(!free.unwrap());
    let limit = Duration::from_millis(30);
    for strategy in BOTH {
        let refused = tx.acquire_advisory_xact_lock("key", wait(limit, strategy));
        let kind = refused.await.unwrap_err().kind();
        assert_eq!(kind, LockErrorKind::TimedOut, "{strategy:?}");
    }
    drop(elsewhere);
    tx.acquire_advisory_xact_lock("key", QUIET).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        locks.events(),
        [
            Event::held_elsewhere("key").in_transaction(),
            Event::timed_out("key").in_transaction(),
            Event::timed_out("key").in_transaction(),
            Event::acquired("key").in_transaction(),
        ]
    );
}

macro_rules! on_every_pool {
    ($($case:ident),* $(,)?) => {
        mod bb8_pools {
            $(#[tokio::test] async fn $case() { super::$case(super::bb8_pool().await).await; })*
        }
        mod deadpool_pools {
            $(#[tokio::test] async fn $case() { super::$case(super::deadpool_pool().await).await; })*
        }
        #[cfg(feature = "mobc")]
        mod mobc_pools {
            $(#[tokio::test] async fn $case() { super::$case(super::mobc_pool().await).await; })*
        }
        #[cfg(feature = "sqlx-sqlite")]
        mod sqlx_pools {
            $(#[tokio::test] async fn $case() { super::$case(super::sqlx_pool().await).await; })*
        }
        #[cfg(feature = "sea-orm")]
        mod sea_orm_pools {
            $(#[tokio::test] async fn $case() { super::$case(super::sea_orm_pool().await).await; })*
        }
    };
}
on_every_pool! {
    refused_timed_out_and_granted,
    a_spawned_task_waits_for_its_turn,
    lost_in_the_body,
    faults_of_asking,
    faults_of_releasing,
    a_pool_fails_on_demand,
    a_guard_that_is_dropped_gives_the_lock_back,
    one_at_a_time,
    body_acquires_its_lock_again,
    scope_in_a_scope_commits,
    dropped_wait_leaves_no_transaction,
    dropped_wait_in_the_queue_loses_the_outer_lock,
    tasks_run_while_the_clock_is_paused,
}

/// Waits until sessions of the test found the lock contended this many times, while other tasks of
/// this thread run.
async fn until_contended(locks: &TestLocks, key: impl Into<LockKey>, times: usize) {
    let key = key.into();
    let began = Instant::now();
    while locks.contention_count(key.clone()) < times {
        assert!(began.elapsed() < LONG, "no session requests {key}");
        tokio::task::yield_now().await;
    }
}

async fn refused_timed_out_and_granted<P: AsyncLockPool>(pool: P) {
    let locks = TestLocks::enter();
    let elsewhere = locks.hold_from_other_session("key");
    let busy = pool.try_with_advisory_lock("key", QUIET, async |_| Ok::<_, LockError>(()));
    assert_eq!(busy.await.unwrap(), None);
    // The limit bounds the checkout too, which a loaded machine delays.
    let limit = Duration::from_millis(500);
    for strategy in BOTH {
        let began = Instant::now();
        let refused = pool.acquire_advisory_lock("key", wait(limit, strategy));
        let kind = refused.await.map(drop).unwrap_err().kind();
        assert_eq!(kind, LockErrorKind::TimedOut, "{strategy:?}");
        assert!(began.elapsed() >= limit && began.elapsed() < LONG);
    }
    let scope = pool.try_with_advisory_xact_lock("key", QUIET, async |_| Ok::<_, LockError>(()));
    assert_eq!(scope.await.unwrap(), None);
    drop(elsewhere);
    pool.with_advisory_lock("key", QUIET, async |_| Ok::<_, LockError>(()))
        .await
        .unwrap();
    pool.with_advisory_xact_lock("key", QUIET, async |_| Ok::<_, LockError>(()))
        .await
        .unwrap();
    assert_eq!(
        locks.events(),
        [
            Event::held_elsewhere("key"),
            Event::timed_out("key"),
            Event::timed_out("key"),
            Event::held_elsewhere("key").in_transaction(),
            Event::acquired("key"),
            Event::released("key"),
            Event::acquired("key").in_transaction(),
            Event::released("key").in_transaction(),
        ]
    );
}

/// In the one thread of `#[tokio::test]`, what the tested code spawns belongs to the test.
async fn a_spawned_task_waits_for_its_turn<P>(pool: P)
where
    P: AsyncLockPool + Clone + Send + 'static,
    P::Connection: 'static,
{
    for strategy in BOTH {
        let locks = TestLocks::enter();
        let elsewhere = locks.hold_from_other_session("key");
        let its_pool = pool.clone();
        let task = tokio::spawn(async move {
            let options = wait(LONG, strategy);
            let body = its_pool.with_advisory_lock("key", options, async |_| Ok::<_, LockError>(7));
            body.await.unwrap()
        });
        until_contended(&locks, "key", 1).await;
        drop(elsewhere);
        assert_eq!(task.await.unwrap(), 7, "{strategy:?}");
    }
}

async fn lost_in_the_body<P: AsyncLockPool>(pool: P) {
    let locks = TestLocks::enter();
    locks.inject_fault("key", Fault::Lost);
    let lost = pool.with_advisory_lock("key", QUIET, async |_| Ok::<_, LockError>(()));
    assert_eq!(lost.await.unwrap_err().kind(), LockErrorKind::Lost);
    locks.inject_fault("key", Fault::Lost);
    let lost = pool.with_advisory_xact_lock("key", QUIET, async |_| Ok::<_, LockError>(()));
    assert_eq!(lost.await.unwrap_err().kind(), LockErrorKind::CommitFailed);
    let mut guard = pool.acquire_advisory_lock("key", QUIET).await.unwrap();
    assert!(!guard.is_lost());
    assert_eq!(locks.terminate_holders("key"), 1);
    assert!(guard.is_lost());
    assert_eq!(
        guard.release().await.unwrap_err().kind(),
        LockErrorKind::Lost
    );
    assert!(!locks.is_held("key"));
}

async fn faults_of_asking<P: AsyncLockPool>(pool: P) {
    let locks = TestLocks::enter();
    for (fault, expected) in [
        (Fault::Canceled, LockErrorKind::Canceled),
        (Fault::Database, LockErrorKind::Database),
        (Fault::Deadlock, LockErrorKind::Deadlock),
        (Fault::TooManyLocks, LockErrorKind::TooManyLocks),
    ] {
        locks.inject_fault("key", fault);
        // Waiters in the queue are checked for deadlocks.
        let options = wait(LONG, WaitStrategy::Block);
        let body = async |_: &mut P::Session| panic!("the body ran without the lock");
        let failed = pool.with_advisory_lock::<(), LockError, _>("key", options, body);
        assert_eq!(failed.await.unwrap_err().kind(), expected);
        assert_eq!(locks.take_events(), [Event::not_acquired("key", expected)]);
    }
    let guard = pool.acquire_advisory_lock("key", QUIET).await.unwrap();
    guard.release().await.unwrap();
}

async fn faults_of_releasing<P: AsyncLockPool>(pool: P) {
    let locks = TestLocks::enter();
    for (fault, expected) in [
        (Fault::NotHeld, LockErrorKind::NotHeld),
        (Fault::SessionChanged, LockErrorKind::SessionChanged),
    ] {
        locks.inject_fault("key", fault);
        let guard = pool.acquire_advisory_lock("key", QUIET).await.unwrap();
        let error = guard.release().await.unwrap_err();
        assert!(error.is_lost());
        assert_eq!(error.kind(), expected);
        assert_eq!(
            locks.take_events(),
            [Event::acquired("key"), Event::not_released("key", expected)]
        );
    }
}

async fn a_pool_fails_on_demand<P: AsyncLockPool>(pool: P) {
    let locks = TestLocks::enter();
    locks.inject_fault("key", Fault::Pool);
    let failed = pool.acquire_advisory_lock("key", QUIET).await.map(drop);
    assert_eq!(failed.unwrap_err().kind(), LockErrorKind::Pool);
    let guard = pool.acquire_advisory_lock("key", QUIET).await.unwrap();
    guard.release().await.unwrap();
}

async fn a_guard_that_is_dropped_gives_the_lock_back<P: AsyncLockPool>(pool: P) {
    let locks = TestLocks::enter_exclusive();
    let guard = pool.acquire_advisory_lock("key", QUIET).await.unwrap();
    assert!(
        pool.try_acquire_advisory_lock("key", QUIET)
            .await
            .unwrap()
            .is_none()
    );
    drop(guard);
    assert!(!locks.is_held("key"));
    // Dropping the body releases the lock too, also inside `scope`.
    for in_scope in [false, true] {
        let forever =
            async |_: &mut P::Session| std::future::pending::<Result<(), LockError>>().await;
        if in_scope {
            dropped_in_its_body(pool.with_advisory_xact_lock("key", QUIET, forever), &locks).await;
        } else {
            dropped_in_its_body(pool.with_advisory_lock("key", QUIET, forever), &locks).await;
        }
        assert!(!locks.is_held("key"));
    }
    assert_eq!(locks.events().len(), 7);
    assert!(
        pool.try_acquire_advisory_lock("key", QUIET)
            .await
            .unwrap()
            .is_some()
    );
}

/// A waiter reaches its limit after the tasks that are ready, as with tokio's paused clock.
async fn tasks_run_while_the_clock_is_paused<P: AsyncLockPool>(pool: P) {
    for strategy in BOTH {
        let locks = TestLocks::enter();
        locks.pause_clock();
        let elsewhere = locks.hold_from_other_session("key");
        let table = locks.clone();
        let released = tokio::spawn(async move {
            until_contended(&table, "key", 1).await;
            drop(elsewhere);
        });
        let options = wait(LONG, strategy);
        let guard = pool.acquire_advisory_lock("key", options).await;
        guard.unwrap().release().await.unwrap();
        released.await.unwrap();
    }
}

/// A session may acquire a lock again that it holds.
async fn body_acquires_its_lock_again<P: AsyncLockPool>(pool: P) {
    let _locks = TestLocks::enter_exclusive();
    let body = async |session: &mut P::Session| {
        let inner = async |_: &mut P::Session| Ok::<_, LockError>(());
        session.with_advisory_lock("key", QUIET, inner).await
    };
    pool.with_advisory_lock("key", QUIET, body).await.unwrap();
    let mut guard = pool.acquire_advisory_lock("key", QUIET).await.unwrap();
    let again = guard.acquire_advisory_lock("key", QUIET).await.unwrap();
    again.release().await.unwrap();
    guard.release().await.unwrap();
}

/// The transaction is rolled back, or its connection is broken.
async fn dropped_wait_leaves_no_transaction<P: AsyncLockPool>(pool: P) {
    let locks = TestLocks::enter();
    let _elsewhere = locks.hold_from_other_session("key");
    let mut conn = pool.checkout().await.unwrap();
    {
        let options = wait(LONG, WaitStrategy::Block);
        let body = async |_: &mut P::Session| Ok::<_, LockError>(());
        let mut call = pin!(conn.with_advisory_xact_lock("key", options, body));
        poll_fn(|context| {
            assert!(call.as_mut().poll(context).is_pending());
            if locks.contention_count("key") > 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
    // sqlx performs the rollback on a thread.
    let (began, mut state) = (Instant::now(), conn.session_transaction_state());
    while state.is_open() && !state.is_broken() {
        assert!(began.elapsed() < LONG, "{state:?}");
        tokio::task::yield_now().await;
        state = conn.session_transaction_state();
    }
}

/// Polls a call until it holds the lock, and drops it.
async fn dropped_in_its_body(call: impl Future, locks: &TestLocks) {
    let mut call = pin!(call);
    poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        if locks.is_held("key") {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

async fn one_at_a_time<P: AsyncLockPool>(pool: P) {
    for strategy in BOTH {
        let locks = TestLocks::enter_exclusive();
        let options = match strategy {
            WaitStrategy::Poll => wait(LONG, strategy).interval(Duration::from_millis(1)),
            _ => wait(LONG, strategy),
        };
        let count = Mutex::new(0);
        let worker = async || {
            for _ in 0..25 {
                let body = async |_: &mut P::Session| {
                    let read = *count.lock().unwrap();
                    tokio::task::yield_now().await;
                    *count.lock().unwrap() = read + 1;
                    Ok::<_, LockError>(())
                };
                pool.with_advisory_lock("count", options, body)
                    .await
                    .unwrap();
            }
        };
        tokio::join!(worker(), worker(), worker());
        assert_eq!(*count.lock().unwrap(), 75, "{strategy:?}");
        for pair in locks.events().chunks(2) {
            assert_eq!(pair, [Event::acquired("count"), Event::released("count")]);
        }
    }
}

/// A dropped wait leaves the queue. As on PostgreSQL, its connection is broken.
#[tokio::test]
async fn dropped_wait_leaves_the_queue() {
    let locks = TestLocks::enter_exclusive();
    let (mut first, mut second, mut third) = (connect().await, connect().await, connect().await);
    let reader = first
        .acquire_advisory_lock("key", QUIET.shared())
        .await
        .unwrap();
    {
        let mut waiting =
            pin!(second.acquire_advisory_lock("key", wait(LONG, WaitStrategy::Block)));
        poll_fn(|context| {
            assert!(waiting.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        // Behind a waiting writer.
        let busy = third.try_acquire_advisory_lock("key", QUIET.shared()).await;
        assert!(busy.unwrap().is_none());
    }
    let reader_too = third.try_acquire_advisory_lock("key", QUIET.shared()).await;
    drop(reader_too.unwrap().expect("the queue is empty"));
    let given_up = second.acquire_advisory_lock("key", QUIET).await.map(drop);
    assert_eq!(given_up.unwrap_err().kind(), LockErrorKind::Database);
    reader.release().await.unwrap();
    assert!(!locks.is_held("key"));
}

/// A call that is dropped during a pause has nothing in flight.
#[tokio::test]
async fn dropped_poll_leaves_nothing() {
    let locks = TestLocks::enter();
    let mut conn = connect().await;
    let elsewhere = locks.hold_from_other_session("key");
    let polling = conn.acquire_advisory_lock("key", wait(LONG, WaitStrategy::Poll));
    tokio::select! {
        _ = polling => panic!("granted though it is held"),
        () = until_contended(&locks, "key", 1) => {}
    }
    drop(elsewhere);
    conn.acquire_advisory_lock("key", QUIET)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

/// The release is immediate, so the connection stays usable.
#[tokio::test]
async fn dropped_guard_leaves_its_connection_usable() {
    let locks = TestLocks::enter();
    let mut conn = connect().await;
    drop(conn.acquire_advisory_lock("key", QUIET).await.unwrap());
    let again = conn.acquire_advisory_lock("key", QUIET).await.unwrap();
    again.release().await.unwrap();
    assert_eq!(locks.events().len(), 4);
}

/// Only a wait in the server's queue ends the session if it is dropped.
async fn dropped_wait_in_the_queue_loses_the_outer_lock<P: AsyncLockPool>(pool: P) {
    let locks = TestLocks::enter();
    let _elsewhere = locks.hold_from_other_session("awaited");
    for (strategy, released) in [
        (WaitStrategy::Block, Err(LockErrorKind::Lost)),
        (WaitStrategy::Poll, Ok(())),
    ] {
        let mut outer = pool.acquire_advisory_lock("outer", QUIET).await.unwrap();
        let before = locks.contention_count("awaited");
        {
            let options = wait(LONG, strategy);
            let session: &mut P::Session = &mut outer;
            let mut waits = pin!(session.acquire_advisory_lock("awaited", options));
            poll_fn(|context| {
                assert!(waits.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        // On a stalled machine, the pause of a poll may end before its timer is polled.
        assert!(locks.contention_count("awaited") > before);
        let outcome = outer.release().await.map_err(|error| error.kind());
        assert_eq!(outcome, released, "{strategy:?}");
    }
}

/// No task can wait for the rollback, so the crate terminates the session.
#[tokio::test]
async fn dropped_transaction_loses_the_outer_lock() {
    let locks = TestLocks::enter();
    let mut conn = connect().await;
    let mut outer = conn.acquire_advisory_lock("outer", QUIET).await.unwrap();
    let forever = async |_: &mut Sqlite| std::future::pending::<Result<(), LockError>>().await;
    dropped_in_its_body(outer.with_advisory_xact_lock("key", QUIET, forever), &locks).await;
    assert!(!locks.is_held("key") && !locks.is_held("outer"));
    let lost = outer.release().await.unwrap_err();
    assert_eq!(lost.kind(), LockErrorKind::Lost);
}

/// A queued release would precede the end of the transaction, so the crate terminates the session.
#[tokio::test]
async fn guard_dropped_in_a_transaction_loses_the_outer_lock() {
    for acquired_inside in [false, true] {
        let locks = TestLocks::enter();
        let mut conn = connect().await;
        let mut outer = conn.acquire_advisory_lock("outer", QUIET).await.unwrap();
        if acquired_inside {
            outer.session_begin().await.unwrap();
        }
        let options = QUIET.allow_in_transaction();
        let mut guard = outer.acquire_advisory_lock("key", options).await.unwrap();
        if !acquired_inside {
            guard.session_begin().await.unwrap();
        }
        drop(guard);
        assert!(!locks.is_held("key") && !locks.is_held("outer"));
        let lost = outer.release().await.unwrap_err();
        assert_eq!(lost.kind(), LockErrorKind::Lost);
        // As the guard of a dropped body: its own session ends.
        let of_key = if acquired_inside {
            Event::released("key")
        } else {
            Event::not_released("key", LockErrorKind::TransactionLeftOpen)
        };
        let of_outer = Event::not_released("outer", LockErrorKind::Lost);
        assert_eq!(locks.events()[2..], [of_key, of_outer]);
    }
}

/// sqlx counts a dropped transaction until its thread has rolled it back.
#[cfg(feature = "sqlx-sqlite")]
#[tokio::test]
async fn guard_dropped_after_a_dropped_transaction_is_released() {
    use sqlx::{Connection, SqliteConnection};

    let locks = TestLocks::enter();
    let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let mut guard = conn.acquire_advisory_lock("key", QUIET).await.unwrap();
    drop(guard.begin().await.unwrap());
    drop(guard);
    let events = [Event::acquired("key"), Event::released("key")];
    assert_eq!(locks.events(), events);
}

/// The check before a commit is SQL of PostgreSQL, which no session of SQLite receives.
async fn scope_in_a_scope_commits<P: AsyncLockPool>(pool: P) {
    let _locks = TestLocks::enter();
    let outer = async |session: &mut P::Session| {
        let inner = async |_: &mut P::Session| Ok::<_, LockError>(());
        session.with_advisory_xact_lock("inner", QUIET, inner).await
    };
    let scope = pool.with_advisory_xact_lock("outer", QUIET, outer);
    scope.await.unwrap();
}

/// Records that its task was woken.
#[cfg(feature = "sqlx-sqlite")]
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

#[cfg(feature = "sqlx-sqlite")]
impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// sqlx's thread rolls back a begin that is dropped before its reply is polled. Another rollback
/// would end the caller's transaction, whose commit would then succeed without effect.
#[cfg(feature = "sqlx-sqlite")]
#[tokio::test]
async fn dropped_begin_keeps_the_outer_transaction() {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::SeqCst;
    use std::task::{Context, Waker};

    use sqlx::{Connection, Executor, SqliteConnection};

    let _locks = TestLocks::enter();
    for round in 0..100 {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let create = "CREATE TABLE numbers (number INTEGER)";
        conn.execute(create).await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        tx.execute("INSERT INTO numbers VALUES (1)").await.unwrap();
        {
            let body = async |_: &mut sqlx::SqliteTransaction<'_>| Ok::<_, LockError>(());
            let mut scope = pin!(tx.with_advisory_xact_lock("key", QUIET, body));
            // The first reply is that to the ping, unless that arrives at once.
            for _ in 0..=round % 2 {
                let woken = Arc::new(Woken::default());
                let waker = Waker::from(Arc::clone(&woken));
                if scope
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
                {
                    break;
                }
                while !woken.0.load(SeqCst) {
                    std::thread::yield_now();
                }
            }
        }
        tx.commit().await.unwrap();
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM numbers");
        assert_eq!(
            count.fetch_one(&mut conn).await.unwrap(),
            1,
            "round {round}"
        );
    }
}

/// As a blocking guard does. No caller receives the error.
#[tokio::test]
async fn dropped_guard_records_a_release_that_fails() {
    for (fault, expected) in [
        (Fault::NotHeld, LockErrorKind::NotHeld),
        (Fault::SessionChanged, LockErrorKind::SessionChanged),
    ] {
        let (mut conn, locks) = (connect().await, TestLocks::enter());
        locks.inject_fault("key", fault);
        drop(conn.acquire_advisory_lock("key", QUIET).await.unwrap());
        let failed = Event::not_released("key", expected);
        assert_eq!(locks.events(), [Event::acquired("key"), failed]);
    }
}

/// The call with the shorter limit ends first, and may then release a lock that the other awaits.
#[tokio::test]
async fn limits_pass_in_order_on_a_paused_clock() {
    for strategy in BOTH {
        let locks = TestLocks::enter();
        locks.pause_clock();
        let _elsewhere = locks.hold_from_other_session("key");
        let (mut first, mut second) = (connect().await, connect().await);
        let ended = Mutex::new(Vec::new());
        let call = async |conn: &mut Sqlite, limit: Duration| {
            let waits = conn.acquire_advisory_lock("key", wait(limit, strategy));
            let outcome = waits.await.map(drop);
            assert_eq!(outcome.unwrap_err().kind(), LockErrorKind::TimedOut);
            ended.lock().unwrap().push(limit);
        };
        let (long, short) = (Duration::from_secs(3600), Duration::from_secs(10));
        tokio::join!(call(&mut first, long), call(&mut second, short));
        assert_eq!(*ended.lock().unwrap(), [short, long], "{strategy:?}");
    }
}

#[tokio::test]
async fn clock_paused_during_a_wait_ends_it() {
    for strategy in BOTH {
        let (locks, mut conn) = (TestLocks::enter(), connect().await);
        let _elsewhere = locks.hold_from_other_session("key");
        let hour = Duration::from_secs(3600);
        let waits = conn.acquire_advisory_lock("key", wait(hour, strategy));
        let pauses = async {
            until_contended(&locks, "key", 1).await;
            locks.pause_clock();
        };
        let both = async { tokio::join!(waits, pauses).0.map(drop) };
        let ended = tokio::time::timeout(LONG, both).await;
        let error = ended.expect("the limit has passed").unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut, "{strategy:?}");
    }
}

/// Otherwise the call would wait for an hour.
#[tokio::test]
async fn resumed_clock_does_not_run_backwards() {
    let (locks, began) = (TestLocks::enter(), Instant::now());
    let (mut first, mut second) = (connect().await, connect().await);
    let _elsewhere = locks.hold_from_other_session("key");
    locks.pause_clock();
    let hour = Duration::from_secs(3600);
    let passed = first.acquire_advisory_lock("key", wait(hour, WaitStrategy::Poll));
    assert!(passed.await.is_err());
    let short = wait(Duration::from_millis(30), WaitStrategy::Poll);
    let mut waits = pin!(second.acquire_advisory_lock("key", short));
    poll_fn(|context| {
        assert!(waits.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    locks.resume_clock();
    let ended = tokio::time::timeout(LONG, waits).await;
    assert!(ended.expect("the limit has passed").is_err());
    assert!(began.elapsed() < LONG);
}
