//! Events of each outcome, on each client, on a PostgreSQL server.

use std::time::Duration;

use advisory_locking::lock_manager::{LockManager, OwnedLockGuard};
use advisory_locking::observer::{HoldOutcome, RequestOutcome};
use advisory_locking::session::AsyncLockPool;
use advisory_locking::{
    AdvisoryLocking, AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions,
    PooledAdvisoryLocking, RawLockKey,
};
use diesel::Connection;
use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::result::Error;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8, deadpool, mobc};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};
use sqlx::PgPool;
use testkit::observer::Observe;
use testkit::server::{connect, eventually, fresh_key, pool_of, url};
use tracing::Level;

use crate::NO_WAIT;
use crate::recorder::{Call, Event, calls_of, events_of, record};

const SHORT: LockOptions = LockOptions::wait_up_to(Duration::from_secs(1));

const REQUESTED: &str = "requesting an advisory lock";
const WAITING: &str = "waiting for an advisory lock";
const GRANTED: &str = "an advisory lock is granted";
const CONTENDED: &str = "an advisory lock is contended";
const TIMED_OUT: &str = "the limit of an advisory lock passed";
const FAILED: &str = "the request for an advisory lock failed";
const DROPPED: &str = "the request for an advisory lock was dropped";
const OVERDUE: &str = "an advisory lock is held for long";
const RELEASED: &str = "an advisory lock is released";
const QUEUED: &str = "the release of an advisory lock is queued";
const TERMINATED: &str = "the session of an advisory lock is being terminated";
const NOT_RELEASED: &str = "an advisory lock was not released";
const LOST: &str = "an advisory lock was lost";
const RELEASE_FAILED: &str = "the release of an advisory lock failed";

#[track_caller]
fn assert_events(key: &LockKey, expected: &[&str]) {
    let events = events_of(key);
    let messages: Vec<_> = events.iter().map(Event::message).collect();
    assert_eq!(messages, expected);
    assert_observed(key, expected);
    for event in &events {
        let level = match event.message() {
            RELEASE_FAILED => Level::ERROR,
            OVERDUE => Level::WARN,
            _ => Level::DEBUG,
        };
        assert_eq!(event.level, level, "{event:?}");
    }
}

/// The observer received what was logged, and each request and each hold has one end.
#[track_caller]
fn assert_observed(key: &LockKey, expected: &[&str]) {
    let calls = calls_of(key);
    let messages: Vec<_> = calls.iter().filter_map(Call::message).collect();
    let logged = expected
        .iter()
        .filter(|message| **message != RELEASE_FAILED);
    assert_eq!(messages, logged.copied().collect::<Vec<_>>());
    let (mut waiting, mut held) = (0, 0);
    for call in &calls {
        match call {
            Call::Requested(_) => waiting += 1,
            Call::Waiting(_) | Call::Overdue(_) => {}
            Call::RequestEnded(lock, end) => {
                waiting -= 1;
                held += i32::from(end.outcome == RequestOutcome::Granted);
                assert_eq!(lock.db_system_name(), Some("postgresql"), "{call:?}");
                let is_granted = end.outcome == RequestOutcome::Granted;
                assert_eq!(lock.pid().is_some(), is_granted, "{call:?}");
                let request = lock.request();
                let has_waited = calls
                    .iter()
                    .any(|call| matches!(call, Call::Waiting(lock) if lock.request() == request));
                let is_refused = matches!(
                    end.outcome,
                    RequestOutcome::HeldElsewhere | RequestOutcome::TimedOut
                );
                assert_eq!(end.contended, has_waited || is_refused, "{call:?}");
                let has_kind = end.error_kind.is_some();
                assert_eq!(has_kind, end.outcome == RequestOutcome::Failed, "{call:?}");
            }
            Call::HoldEnded(_, end) => {
                held -= 1;
                let has_error = matches!(end.outcome, HoldOutcome::Lost | HoldOutcome::NotReleased);
                assert_eq!(end.error_kind.is_some(), has_error, "{call:?}");
            }
        }
    }
    assert_eq!((waiting, held), (0, 0), "{calls:?}");
}

/// Waits for the last event, which a task of the client sends.
#[track_caller]
fn assert_eventual_events(key: &LockKey, expected: &[&str]) {
    eventually("the last event", || {
        let events = events_of(key);
        events.last().map(Event::message) == expected.last().copied()
    });
    assert_events(key, expected);
}

#[track_caller]
fn assert_scope(key: &LockKey, scope: &str) {
    for event in events_of(key) {
        assert_eq!(event.field("lock.scope"), Some(scope), "{event:?}");
    }
}

/// An error of a body.
fn failure() -> Result<(), Error> {
    Err(Error::RollbackTransaction)
}

mod blocking {
    use super::*;

    #[test]
    fn release_is_logged() {
        record();
        let (mut conn, key) = (connect(), fresh_key());
        let pid = conn.pid().to_string();
        conn.with_advisory_lock(&key, NO_WAIT, |_| Ok::<_, LockError>(()))
            .unwrap();
        assert_events(&key, &[REQUESTED, GRANTED, RELEASED]);
        assert_eq!(events_of(&key)[2].field("lock.pid"), Some(pid.as_str()));
        drop(conn.acquire_advisory_lock(&key, NO_WAIT).unwrap());
        assert_events(&key, &[[REQUESTED, GRANTED, RELEASED]; 2].concat());
    }

    #[test]
    fn end_of_a_transaction_is_logged() {
        record();
        let (pool, key) = (pool_of(1), fresh_key());
        pool.with_advisory_xact_lock(&key, NO_WAIT, |_| Ok::<_, LockError>(()))
            .unwrap();
        pool.with_advisory_xact_lock(&key, NO_WAIT, |_| failure())
            .unwrap_err();
        assert_events(&key, &[[REQUESTED, GRANTED, RELEASED]; 2].concat());
        assert_scope(&key, "transaction");
    }

    #[test]
    fn long_hold_is_warned_about() {
        record();
        let (mut conn, key) = (connect(), fresh_key());
        let options = NO_WAIT.warn_after(Duration::from_millis(1));
        let body = |_: &mut _| {
            assert_eventual_warning(&key);
            Ok::<_, LockError>(())
        };
        conn.with_advisory_lock(&key, options, body).unwrap();
        assert_events(&key, &[REQUESTED, GRANTED, OVERDUE, RELEASED]);
    }

    #[test]
    fn released_lock_is_not_warned_about() {
        record();
        let (mut conn, released, held) = (connect(), fresh_key(), fresh_key());
        // Longer than a release takes on a loaded machine.
        let options = NO_WAIT.warn_after(Duration::from_secs(3));
        let guard = conn.acquire_advisory_lock(&released, options).unwrap();
        guard.release().unwrap();
        // Warnings are sent in the order of their times.
        let body = |_: &mut _| {
            assert_eventual_warning(&held);
            Ok::<_, LockError>(())
        };
        conn.with_advisory_lock(&held, options, body).unwrap();
        assert_events(&released, &[REQUESTED, GRANTED, RELEASED]);
    }

    #[test]
    fn body_runs_in_a_span() {
        record();
        let (mut conn, key) = (connect(), fresh_key());
        let body = |key: &LockKey| {
            send_in_body(key);
            Ok::<_, LockError>(())
        };
        conn.with_advisory_lock(&key, NO_WAIT, |_| body(&key))
            .unwrap();
        assert_spans(&key);
        let (pool, key) = (pool_of(1), fresh_key());
        pool.with_advisory_xact_lock(&key, NO_WAIT, |_| body(&key))
            .unwrap();
        assert_spans(&key);
    }

    #[test]
    fn lock_in_a_transaction_of_the_caller_is_unobserved() {
        record();
        let (mut conn, key) = (connect(), fresh_key());
        conn.transaction(|conn| {
            conn.acquire_advisory_xact_lock(&key, NO_WAIT).unwrap();
            diesel::QueryResult::Ok(())
        })
        .unwrap();
        // The commit of the caller ends the lock, and the crate does not see it.
        assert_events(&key, &[REQUESTED, GRANTED]);
        let last = calls_of(&key).pop();
        let is_unobserved = matches!(last, Some(Call::HoldEnded(_, end))
            if end.outcome == HoldOutcome::Unobserved);
        assert!(is_unobserved);
    }

    #[test]
    fn contention_and_limit_are_logged() {
        record();
        let (mut conn, mut other, key) = (connect(), connect(), fresh_key());
        let guard = other.acquire_advisory_lock(&key, NO_WAIT).unwrap();
        assert!(
            conn.try_acquire_advisory_lock(&key, NO_WAIT)
                .unwrap()
                .is_none()
        );
        conn.acquire_advisory_lock(&key, SHORT).unwrap_err();
        conn.transaction(|conn| conn.with_advisory_lock(&key, NO_WAIT, |_| failure()))
            .unwrap_err();
        guard.release().unwrap();
        assert_events(
            &key,
            &[
                REQUESTED, GRANTED, REQUESTED, CONTENDED, REQUESTED, WAITING, TIMED_OUT, REQUESTED,
                FAILED, RELEASED,
            ],
        );
    }

    #[test]
    fn failed_release_is_logged() {
        record();
        let (mut conn, key) = (connect(), fresh_key());
        let mut guard = conn.acquire_advisory_lock(&key, NO_WAIT).unwrap();
        AnsiTransactionManager::begin_transaction(&mut *guard).unwrap();
        let error = guard.release().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TransactionLeftOpen);
        assert_events(&key, &[REQUESTED, GRANTED, NOT_RELEASED]);
    }

    #[test]
    fn lost_lock_is_logged() {
        record();
        let (mut conn, key) = (connect(), fresh_key());
        let guard = conn.acquire_advisory_lock(&key, NO_WAIT).unwrap();
        connect().terminate_holder(&key);
        assert!(guard.release().unwrap_err().is_lost());
        assert_events(&key, &[REQUESTED, GRANTED, LOST]);
        let (mut conn, key) = (connect(), fresh_key());
        let guard = conn.acquire_advisory_lock(&key, NO_WAIT).unwrap();
        connect().terminate_holder(&key);
        drop(guard);
        assert_events(&key, &[REQUESTED, GRANTED, LOST, RELEASE_FAILED]);
    }
}

/// A client whose pool has async locks.
trait Client: AsyncLockPool + Sync {
    /// The event of a dropped guard.
    const DROPPED_GUARD: &str;

    /// The event of a dropped body in a transaction of the library.
    const DROPPED_TRANSACTION: &str = TERMINATED;

    async fn open() -> Self;

    /// Runs a statement, which fails if the session has ended.
    async fn run(session: &mut Self::Session) -> bool;
}

macro_rules! diesel_async_pools {
    ($($pool:ty: $open:expr;)*) => {$(
        impl Client for $pool {
            // diesel-async does not show the reply to a message whose future was dropped.
            const DROPPED_GUARD: &str = QUEUED;

            async fn open() -> Self {
                let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
                ($open)(manager).await
            }

            async fn run(session: &mut AsyncPgConnection) -> bool {
                session.batch_execute("SELECT 1").await.is_ok()
            }
        }
    )*};
}

diesel_async_pools! {
    bb8::Pool<AsyncPgConnection>: async |manager| {
        bb8::Pool::builder().max_size(2).build(manager).await.unwrap()
    };
    deadpool::Pool<AsyncPgConnection>: async |manager| {
        deadpool::Pool::builder(manager).max_size(2).build().unwrap()
    };
    mobc::Pool<AsyncPgConnection>: async |manager| {
        mobc::Pool::builder().max_open(2).build(manager)
    };
}

impl Client for deadpool_postgres::Pool {
    const DROPPED_GUARD: &str = QUEUED;

    async fn open() -> Self {
        let config = url().parse().unwrap();
        let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
        Self::builder(manager).max_size(2).build().unwrap()
    }

    async fn run(session: &mut Self::Session) -> bool {
        session.batch_execute("SELECT 1").await.is_ok()
    }
}

impl Client for DatabaseConnection {
    const DROPPED_GUARD: &str = RELEASED;

    async fn open() -> Self {
        let mut options = ConnectOptions::new(url());
        options.max_connections(2).sqlx_logging(false);
        Database::connect(options).await.unwrap()
    }

    async fn run(session: &mut Self::Session) -> bool {
        session.execute_unprepared("SELECT 1").await.is_ok()
    }
}

impl Client for PgPool {
    // sqlx reads the reply when the connection returns to the pool.
    const DROPPED_GUARD: &str = QUEUED;
    const DROPPED_TRANSACTION: &str = QUEUED;

    async fn open() -> Self {
        Self::connect(&url()).await.unwrap()
    }

    async fn run(session: &mut Self::Session) -> bool {
        // The first statement returns the server's error, the second one sees the closed socket.
        for _ in 0..2 {
            let ran = sqlx::query("SELECT 1").execute(&mut **session).await;
            if ran.is_ok() {
                return true;
            }
        }
        false
    }
}

async fn release_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    guard.release().await.unwrap();
    assert_events(&key, &[REQUESTED, GRANTED, RELEASED]);
}

async fn dropped_guard_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    drop(pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap());
    connect().assert_free(&key, "the drop").await;
    assert_eventual_events(&key, &[REQUESTED, GRANTED, P::DROPPED_GUARD]);
}

async fn dropped_body_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let body = async |_: &mut P::Session| -> Result<(), LockError> { std::future::pending().await };
    let call = pool.with_advisory_lock(&key, NO_WAIT, body);
    tokio::select! {
        result = call => panic!("{result:?}"),
        () = granted(&key) => {}
    }
    assert_eventual_events(&key, &[REQUESTED, GRANTED, P::DROPPED_GUARD]);
    let key = fresh_key();
    let call = pool.with_advisory_xact_lock(&key, NO_WAIT, body);
    tokio::select! {
        result = call => panic!("{result:?}"),
        () = granted(&key) => {}
    }
    assert_events(&key, &[REQUESTED, GRANTED, P::DROPPED_TRANSACTION]);
}

/// Waits for the event of the grant.
async fn granted(key: &LockKey) {
    while events_of(key)
        .iter()
        .all(|event| event.message() != GRANTED)
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn end_of_a_transaction_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    pool.with_advisory_xact_lock(&key, NO_WAIT, async |_| Ok::<_, LockError>(()))
        .await
        .unwrap();
    let error = || LockError::new(LockErrorKind::Closed);
    let body = async |_: &mut P::Session| -> Result<(), LockError> { Err(error()) };
    pool.with_advisory_xact_lock(&key, NO_WAIT, body)
        .await
        .unwrap_err();
    assert_events(&key, &[[REQUESTED, GRANTED, RELEASED]; 2].concat());
    assert_scope(&key, "transaction");
}

async fn contention_and_limit_are_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let refused = pool.try_acquire_advisory_lock(&key, NO_WAIT).await;
    assert!(refused.unwrap().is_none());
    pool.acquire_advisory_lock(&key, SHORT).await.unwrap_err();
    let wait = LockOptions::wait_forever();
    let waiting = pool.acquire_advisory_lock(&key, wait);
    let mut waiting = Box::pin(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("granted"),
        () = waits(&key, 2) => {}
    }
    drop(waiting);
    guard.release().await.unwrap();
    assert_events(
        &key,
        &[
            REQUESTED, GRANTED, REQUESTED, CONTENDED, REQUESTED, WAITING, TIMED_OUT, REQUESTED,
            WAITING, DROPPED, RELEASED,
        ],
    );
}

/// Waits until this many requests wait.
async fn waits(key: &LockKey, count: usize) {
    let is_waiting = |event: &Event| event.message() == WAITING;
    while events_of(key)
        .iter()
        .filter(|event| is_waiting(event))
        .count()
        < count
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// An event that a body sends.
const IN_BODY: &str = "in the body";

fn send_in_body(key: &LockKey) {
    let id = match key.raw() {
        RawLockKey::Single(number) => number.to_string(),
        RawLockKey::Pair(..) => unreachable!("a fresh key is one number"),
    };
    tracing::event!(target: "advisory_locking_tests", Level::DEBUG, lock.id = id, "in the body");
}

/// The grant belongs to the span of the request, and the body to that of the hold.
#[track_caller]
fn assert_spans(key: &LockKey) {
    let events = events_of(key);
    let span_of = |message| {
        let event = events.iter().find(|event| event.message() == message);
        event
            .unwrap_or_else(|| panic!("no {message:?}: {events:?}"))
            .span
    };
    assert_eq!(span_of(GRANTED), Some("advisory_lock.acquire"));
    assert_eq!(span_of(IN_BODY), Some("advisory_lock.held"));
    assert_eq!(span_of(RELEASED), None);
}

async fn body_runs_in_a_span<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let body = async |_: &mut P::Session| {
        // The span is entered at each poll.
        tokio::time::sleep(Duration::from_millis(1)).await;
        send_in_body(&key);
        Ok::<_, LockError>(())
    };
    pool.with_advisory_lock(&key, NO_WAIT, body).await.unwrap();
    assert_spans(&key);
    let key = fresh_key();
    let body = async |_: &mut P::Session| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        send_in_body(&key);
        Ok::<_, LockError>(())
    };
    pool.with_advisory_xact_lock(&key, NO_WAIT, body)
        .await
        .unwrap();
    assert_spans(&key);
}

/// The warning appears while the body runs, and not for a hold that ended before.
async fn long_hold_is_warned_about<P: Client>() {
    let (pool, key, soon) = (P::open().await, fresh_key(), Duration::from_millis(1));
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT.warn_after(soon));
    let guard = guard.await.unwrap();
    assert_eventual_warning(&key);
    guard.release().await.unwrap();
    let late = NO_WAIT.warn_after(Duration::from_secs(3600));
    let body = async |_: &mut P::Session| Ok::<_, LockError>(());
    pool.with_advisory_lock(&key, late, body).await.unwrap();
    let warned = [REQUESTED, GRANTED, OVERDUE, RELEASED];
    assert_events(
        &key,
        &[&warned[..], &[REQUESTED, GRANTED, RELEASED]].concat(),
    );
    let key = fresh_key();
    let body = async |_: &mut P::Session| {
        assert_eventual_warning(&key);
        Ok::<_, LockError>(())
    };
    let options = NO_WAIT.warn_after(soon);
    pool.with_advisory_xact_lock(&key, options, body)
        .await
        .unwrap();
    assert_events(&key, &warned);
}

#[track_caller]
fn assert_eventual_warning(key: &LockKey) {
    eventually("the warning", || {
        events_of(key)
            .iter()
            .any(|event| event.message() == OVERDUE)
    });
}

async fn lost_lock_is_logged<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    connect().terminate_holder(&key);
    assert!(guard.release().await.unwrap_err().is_lost());
    assert_events(&key, &[REQUESTED, GRANTED, LOST]);
}

async fn lost_lock_of_a_dropped_guard_is_an_error<P: Client>() {
    let (pool, key) = (P::open().await, fresh_key());
    let mut guard = pool.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    connect().terminate_holder(&key);
    // The client learns of the end of the session: first from the server's error, which precedes
    // the end of the connection.
    for _ in 0..2 {
        assert!(!P::run(&mut guard).await);
    }
    drop(guard);
    assert_eventual_events(&key, &[REQUESTED, GRANTED, LOST, RELEASE_FAILED]);
}

macro_rules! on_every_client {
    ($($case:ident),*) => {
        on_every_client!(@ through_bb8, bb8::Pool<AsyncPgConnection>, $($case),*);
        on_every_client!(@ through_deadpool, deadpool::Pool<AsyncPgConnection>, $($case),*);
        on_every_client!(@ through_mobc, mobc::Pool<AsyncPgConnection>, $($case),*);
        on_every_client!(@ through_sea_orm, DatabaseConnection, $($case),*);
        on_every_client!(@ through_sqlx, PgPool, $($case),*);
        on_every_client!(@ through_tokio_postgres, deadpool_postgres::Pool, $($case),*);
    };
    (@ $module:ident, $pool:ty, $($case:ident),*) => {
        mod $module {
            use super::*;

            $(
                #[test]
                fn $case() {
                    run(super::$case::<$pool>());
                }
            )*
        }
    };
}

on_every_client!(
    release_is_logged,
    dropped_guard_is_logged,
    dropped_body_is_logged,
    end_of_a_transaction_is_logged,
    contention_and_limit_are_logged,
    body_runs_in_a_span,
    long_hold_is_warned_about,
    lost_lock_is_logged,
    lost_lock_of_a_dropped_guard_is_an_error
);

/// Runs a case with threads for the tasks of its client.
fn run(case: impl Future<Output = ()>) {
    record();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(case);
}

mod lock_manager {
    use super::*;

    fn manager() -> LockManager {
        LockManager::over_blocking_pool(pool_of(1)).unwrap()
    }

    #[test]
    fn release_is_logged() {
        record();
        let (manager, key) = (manager(), fresh_key());
        let guard = manager.acquire_blocking(&key, NO_WAIT).unwrap();
        manager.acquire_blocking(&key, NO_WAIT).unwrap_err();
        manager.acquire_blocking(&key, SHORT).unwrap_err();
        guard.release_blocking().unwrap();
        let events = [
            REQUESTED, GRANTED, REQUESTED, CONTENDED, REQUESTED, WAITING, TIMED_OUT, RELEASED,
        ];
        assert_events(&key, &events);
        drop(manager.acquire_blocking(&key, NO_WAIT).unwrap());
        assert_events(&key, &[&events[..], &[REQUESTED, GRANTED, QUEUED]].concat());
        // A release starts before its future is polled, and so goes on without it.
        let key = fresh_key();
        drop(manager.acquire_blocking(&key, NO_WAIT).unwrap().release());
        assert_events(&key, &[REQUESTED, GRANTED, QUEUED]);
    }

    #[test]
    fn body_runs_in_a_span() {
        record();
        let (manager, key) = (manager(), fresh_key());
        let body = |_: &_| {
            send_in_body(&key);
            Ok::<_, LockError>(())
        };
        manager.with_lock_blocking(&key, NO_WAIT, body).unwrap();
        assert_spans(&key);
        let key = fresh_key();
        let body = async |_: &OwnedLockGuard| {
            send_in_body(&key);
            Ok::<_, LockError>(())
        };
        run(async {
            manager
                .with_lock_while_held(&key, NO_WAIT, body)
                .await
                .unwrap()
        });
        assert_spans(&key);
    }

    #[test]
    fn long_hold_is_warned_about() {
        record();
        let (manager, key) = (manager(), fresh_key());
        let options = NO_WAIT.warn_after(Duration::from_millis(1));
        let guard = manager.acquire_blocking(&key, options).unwrap();
        assert_eventual_warning(&key);
        guard.release_blocking().unwrap();
        assert_events(&key, &[REQUESTED, GRANTED, OVERDUE, RELEASED]);
    }

    #[cfg(all(feature = "diesel-sqlite", feature = "testing"))]
    #[test]
    fn refusal_of_the_unit_test_kit_is_no_grant() {
        record();
        let pool = diesel::r2d2::Pool::builder()
            .max_size(1)
            .build(diesel::r2d2::ConnectionManager::<diesel::SqliteConnection>::new(":memory:"));
        let manager = LockManager::over_blocking_pool(pool.unwrap()).unwrap();
        let (locks, key) = (advisory_locking::testing::TestLocks::enter(), fresh_key());
        let quiet = NO_WAIT.on_missing_lock(advisory_locking::OnMissingLock::Ignore);
        let other = locks.hold_from_other_session(&key);
        manager.acquire_blocking(&key, quiet).unwrap_err();
        drop(other);
        let guard = manager.acquire_blocking(&key, quiet).unwrap();
        guard.release_blocking().unwrap();
        let calls = calls_of(&key);
        let messages: Vec<_> = calls.iter().filter_map(Call::message).collect();
        let expected = [REQUESTED, CONTENDED, REQUESTED, GRANTED, RELEASED];
        assert_eq!(messages, expected);
    }

    #[test]
    fn lost_lock_is_logged() {
        record();
        let (manager, key) = (manager(), fresh_key());
        let guard = manager.acquire_blocking(&key, NO_WAIT).unwrap();
        connect().terminate_holder(&key);
        assert!(guard.release_blocking().unwrap_err().is_lost());
        assert_events(&key, &[REQUESTED, GRANTED, LOST]);

        let key = fresh_key();
        let guard = manager.acquire_blocking(&key, NO_WAIT).unwrap();
        connect().terminate_holder(&key);
        // Another call learns of the end of the session, before any of its own.
        eventually("the loss", || {
            drop(manager.acquire_blocking(fresh_key(), NO_WAIT));
            guard.is_lost()
        });
        drop(guard);
        assert_events(&key, &[REQUESTED, GRANTED, LOST, RELEASE_FAILED]);

        // The caller receives the error, so no failed release is logged.
        let key = fresh_key();
        let body = async |_: &OwnedLockGuard| -> Result<(), LockError> {
            connect().terminate_holder(&key);
            loop {
                drop(manager.acquire(fresh_key(), NO_WAIT).await);
            }
        };
        run(async {
            let outcome = manager.with_lock_while_held(&key, NO_WAIT, body).await;
            assert!(outcome.unwrap_err().is_lost());
        });
        assert_events(&key, &[REQUESTED, GRANTED, LOST]);
    }
}
