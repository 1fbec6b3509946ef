//! Log events: of each outcome, on each client, and with a subscriber that panics.
//!
//! A separate program with one subscriber for the process. tracing caches whether an event is
//! enabled, and a thread without a subscriber could disable it for all.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod observer;
mod own_fields;
mod recorder;
mod subscriber_panics;

#[cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-async-postgres",
    feature = "bb8",
    feature = "deadpool",
    feature = "mobc",
    feature = "r2d2",
    feature = "sea-orm",
    feature = "async-lock-manager"
))]
mod clients;

use advisory_locking::session::{LockPool, LockSession, SessionError};
use advisory_locking::{
    AdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions, PooledAdvisoryLocking,
    WaitStrategy,
};
#[cfg(feature = "diesel-async-sqlite")]
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;

use testkit::model::{Model, ModelSession};

use crate::recorder::{Event, events_of, record};

const NO_WAIT: LockOptions = LockOptions::no_wait();

#[test]
fn events_have_fields_for_filters() {
    record();
    let (model, key) = (Model::default(), LockKey::from(("events", "fields")));
    let mut session = model.connect();
    session
        .with_advisory_lock(&key, NO_WAIT.shared(), |_| Ok::<_, LockError>(()))
        .unwrap();
    let events = events_of(&key);
    let names: Vec<_> = events.iter().map(Event::message).collect();
    assert_eq!(
        names,
        [
            "requesting an advisory lock",
            "an advisory lock is granted",
            "an advisory lock is released"
        ]
    );
    for event in &events {
        assert_eq!(event.target, "advisory_locking");
        assert_eq!(event.field("lock.key"), Some("events/fields"));
        assert_eq!(event.field("lock.scope"), Some("session"));
        assert_eq!(event.field("lock.mode"), Some("shared"));
        assert_eq!(event.field("lock.request"), events[0].field("lock.request"));
        // A JSON formatter writes the level of the event under this name.
        assert_eq!(event.field("level"), None);
    }
    assert!(events[0].field("lock.pid").is_none() && events[0].field("waited_ms").is_none());
    assert!(events[1].field("lock.pid").is_some() && events[1].field("waited_ms").is_some());
    assert_eq!(events[2].field("lock.pid"), events[1].field("lock.pid"));
    assert!(events[2].field("held_ms").is_some());
}

#[test]
fn integer_keys_have_no_text() {
    record();
    for (key, id) in [
        (LockKey::from(-790_126_053), "-790126053"),
        (LockKey::from((790, -126)), "790,-126"),
    ] {
        let (model, mut other) = (Model::default(), None);
        let mut session = model.connect();
        let guard = session.acquire_advisory_lock(&key, NO_WAIT).unwrap();
        let refused = other
            .get_or_insert_with(|| model.connect())
            .try_acquire_advisory_lock(&key, NO_WAIT);
        assert!(refused.unwrap().is_none());
        drop(guard);
        let events = events_of(&key);
        assert_eq!(events.len(), 5, "{events:?}");
        for event in events {
            assert_eq!(event.field("lock.id"), Some(id));
            assert_eq!(event.field("lock.key"), None);
        }
    }
}

const NO_CONNECTION: &str = "the pool returned no connection";

/// A pool whose server is gone.
struct ClosedPool;

impl LockPool for ClosedPool {
    type Session = ModelSession;
    type Connection = Box<ModelSession>;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        Err(SessionError::new("the server is gone"))
    }
}

#[cfg(feature = "diesel-async-sqlite")]
impl advisory_locking::session::AsyncLockPool for ClosedPool {
    type Session = SyncConnectionWrapper<diesel::SqliteConnection>;
    type Connection = Box<Self::Session>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        Err(SessionError::new("the server is gone"))
    }
}

fn assert_failed_request(key: &LockKey, scope: &str, text: &str) {
    let events = events_of(key);
    let messages: Vec<_> = events.iter().map(Event::message).collect();
    assert_eq!(
        messages,
        [
            "requesting an advisory lock",
            "the request for an advisory lock failed"
        ]
    );
    let failed = events.last().unwrap();
    assert_eq!(failed.field("lock.scope"), Some(scope));
    assert!(failed.field("waited_ms").is_some() && failed.field("lock.pid").is_none());
    let error = failed.field("error").unwrap();
    assert!(error.starts_with(text), "{error}");
}

/// An outage looks like one in the log and in metrics, and not like a program without requests.
#[test]
fn request_without_a_connection_is_logged() {
    record();
    let key = LockKey::from("events/no-connection");
    let refused = PooledAdvisoryLocking::try_acquire_advisory_lock(&ClosedPool, &key, NO_WAIT);
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Pool);
    assert_failed_request(&key, "session", NO_CONNECTION);

    let key = LockKey::from("events/no-connection-xact");
    let refused =
        PooledAdvisoryLocking::with_advisory_xact_lock(&ClosedPool, &key, NO_WAIT, |_| {
            Ok::<_, LockError>(())
        });
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Pool);
    assert_failed_request(&key, "transaction", NO_CONNECTION);
}

/// On a connection, through a pool and through a lock manager.
#[test]
fn request_with_invalid_options_is_logged() {
    record();
    let invalid = NO_WAIT.strategy(WaitStrategy::Block);
    let text = "the options are not valid";
    let key = LockKey::from("events/invalid");
    let mut session = Model::default().connect();
    let refused = session.try_acquire_advisory_lock(&key, invalid);
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::InvalidOptions);
    assert_failed_request(&key, "session", text);

    let key = LockKey::from("events/invalid-pool");
    let refused = PooledAdvisoryLocking::try_acquire_advisory_lock(&ClosedPool, &key, invalid);
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::InvalidOptions);
    assert_failed_request(&key, "session", text);

    let key = LockKey::from("events/invalid-pool-xact");
    let allowed = NO_WAIT.allow_in_transaction();
    let refused: Result<(), LockError> =
        PooledAdvisoryLocking::with_advisory_xact_lock(&ClosedPool, &key, allowed, |_| Ok(()));
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::InvalidOptions);
    assert_failed_request(&key, "transaction", text);

    #[cfg(feature = "lock-manager")]
    {
        use advisory_locking::lock_manager::LockManager;

        let key = LockKey::from("events/invalid-manager");
        let locks = LockManager::over_blocking_pool(ClosedPool).unwrap();
        let refused = locks.acquire_blocking(&key, invalid);
        assert_eq!(refused.unwrap_err().kind(), LockErrorKind::InvalidOptions);
        assert_failed_request(&key, "session", text);
    }
}

/// Least duration of a checkout.
const CHECKOUT: std::time::Duration = std::time::Duration::from_millis(30);

/// Pool that fails, slowly.
struct SlowlyFailingPool;

impl LockPool for SlowlyFailingPool {
    type Session = <ClosedPool as LockPool>::Session;
    type Connection = <ClosedPool as LockPool>::Connection;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        std::thread::sleep(CHECKOUT);
        Err(SessionError::new(NO_CONNECTION))
    }
}

#[test]
fn failed_request_has_the_time_of_its_checkout() {
    record();
    let key = LockKey::from("events/slow-checkout");
    let refused = PooledAdvisoryLocking::acquire_advisory_lock(&SlowlyFailingPool, &key, NO_WAIT);
    assert_eq!(refused.map(drop).unwrap_err().kind(), LockErrorKind::Pool);
    let events = events_of(&key);
    let waited_ms: u128 = events[1].field("waited_ms").unwrap().parse().unwrap();
    assert!(waited_ms >= CHECKOUT.as_millis());
}

#[cfg(feature = "diesel-async-sqlite")]
#[test]
fn async_request_without_a_connection_is_logged() {
    use advisory_locking::AsyncPooledAdvisoryLocking;

    record();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let key = LockKey::from("events/no-async-connection");
        let refused =
            AsyncPooledAdvisoryLocking::acquire_advisory_lock(&ClosedPool, &key, NO_WAIT).await;
        assert_eq!(refused.map(drop).unwrap_err().kind(), LockErrorKind::Pool);
        assert_failed_request(&key, "session", NO_CONNECTION);

        let key = LockKey::from("events/no-async-connection-xact");
        let refused = AsyncPooledAdvisoryLocking::try_with_advisory_xact_lock(
            &ClosedPool,
            &key,
            NO_WAIT,
            async |_| Ok::<_, LockError>(()),
        );
        assert_eq!(refused.await.unwrap_err().kind(), LockErrorKind::Pool);
        assert_failed_request(&key, "transaction", NO_CONNECTION);
    });
}

/// A pool whose connections are all in use.
#[cfg(feature = "diesel-async-sqlite")]
struct ExhaustedPool;

#[cfg(feature = "diesel-async-sqlite")]
impl advisory_locking::session::AsyncLockPool for ExhaustedPool {
    type Session = SyncConnectionWrapper<diesel::SqliteConnection>;
    type Connection = Box<Self::Session>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        std::future::pending().await
    }
}

/// Drops a call that waits for its connection. Before its first poll, a call is no request.
#[cfg(feature = "diesel-async-sqlite")]
#[test]
fn request_dropped_in_its_checkout_is_logged() {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use advisory_locking::AsyncPooledAdvisoryLocking;

    record();
    let key = LockKey::from("events/dropped-checkout");
    let options = LockOptions::wait_forever();
    let call = || AsyncPooledAdvisoryLocking::acquire_advisory_lock(&ExhaustedPool, &key, options);
    drop(call());
    assert_eq!(events_of(&key).len(), 0);
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut call = pin!(call());
        assert!(call.as_mut().poll(&mut context).is_pending());
        std::thread::sleep(CHECKOUT);
    }
    let events = events_of(&key);
    let messages: Vec<_> = events.iter().map(Event::message).collect();
    assert_eq!(
        messages,
        [
            "requesting an advisory lock",
            "the request for an advisory lock was dropped"
        ]
    );
    assert_eq!(events[1].field("lock.scope"), Some("session"));
    let waited_ms: u128 = events[1].field("waited_ms").unwrap().parse().unwrap();
    assert!(waited_ms >= CHECKOUT.as_millis());
}

#[cfg(feature = "lock-manager")]
#[test]
fn request_for_too_many_keys_is_logged() {
    use advisory_locking::lock_manager::LockManager;

    record();
    let locks = LockManager::over_blocking_pool(ClosedPool).unwrap();
    let keys = (0..10_001).map(|number| LockKey::from(("events/too-many", number)));
    let mut keys: Vec<_> = keys.collect();
    let refused = locks.acquire_all_blocking(keys.clone(), NO_WAIT);
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::TooManyLocks);
    // One request of the call, for its least key, because none of them has been sent.
    keys.sort_by_key(LockKey::raw);
    assert_failed_request(&keys[0], "session", "too many locks");
    assert_eq!(events_of(&keys[1]).len(), 0);
}

/// The caller receives the error of the body, so the log has that of the release or commit.
#[test]
fn failed_release_after_a_failed_body_is_logged() {
    record();
    let body = |session: &mut ModelSession| {
        session.terminate();
        Err::<(), _>(LockError::new(LockErrorKind::Closed))
    };
    let (model, lock) = (Model::default(), LockKey::from("events/both-failed"));
    let outcome = model.connect().with_advisory_lock(&lock, NO_WAIT, body);
    assert_eq!(outcome.unwrap_err().kind(), LockErrorKind::Closed);
    let xact_lock = LockKey::from("events/both-failed-xact");
    let mut session = model.connect();
    let outcome = session.with_advisory_xact_lock(&xact_lock, NO_WAIT, body);
    assert_eq!(outcome.unwrap_err().kind(), LockErrorKind::Closed);
    for key in [lock, xact_lock] {
        let events = events_of(&key);
        let messages: Vec<_> = events.iter().map(Event::message).collect();
        assert_eq!(
            messages,
            [
                "requesting an advisory lock",
                "an advisory lock is granted",
                "an advisory lock was lost",
                "the release of an advisory lock failed"
            ]
        );
        assert_eq!(events[3].level, tracing::Level::ERROR);
    }
}

/// The end of the caller's transaction is not observed, so its locks have no release.
#[test]
fn locks_in_the_callers_transaction_are_granted_only() {
    record();
    let (model, key) = (Model::default(), LockKey::from("events/caller"));
    let mut session = model.connect();
    session.session_begin().unwrap();
    session.acquire_advisory_xact_lock(&key, NO_WAIT).unwrap();
    let again = session.try_acquire_advisory_xact_lock(&key, NO_WAIT);
    assert!(again.unwrap());
    // A savepoint inside it does not release the lock either.
    session
        .with_advisory_xact_lock(&key, NO_WAIT, |_| Ok::<_, LockError>(()))
        .unwrap();
    let messages = events_of(&key);
    let messages: Vec<_> = messages.iter().map(Event::message).collect();
    let request = ["requesting an advisory lock", "an advisory lock is granted"];
    assert_eq!(messages, [request; 3].concat());
    session.session_commit(None).unwrap();
}

/// An adapter for a backend without locks, async.
#[cfg(feature = "diesel-async-sqlite")]
#[test]
fn no_op_is_logged_by_async_guards() {
    use advisory_locking::AsyncAdvisoryLocking;
    use diesel_async::AsyncConnection;

    record();
    let key = LockKey::from("events/no-op");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut conn = SyncConnectionWrapper::<diesel::SqliteConnection>::establish(":memory:")
            .await
            .unwrap();
        drop(conn.acquire_advisory_lock(&key, NO_WAIT).await.unwrap());
    });
    let messages = events_of(&key);
    let messages = messages.iter().map(Event::message);
    let messages: Vec<_> = messages
        .map(|message| message.split("; ").next().unwrap())
        .collect();
    assert_eq!(
        messages,
        [
            "requesting an advisory lock",
            "SQLite has no advisory locks: running without mutual exclusion",
            "an advisory lock is granted",
            "an advisory lock is released"
        ]
    );
}
