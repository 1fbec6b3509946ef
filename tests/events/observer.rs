//! The observer of the process: attributes of a lock, and the rule that there is one.

use std::time::Duration;

use advisory_locking::observer::{HoldOutcome, LockObserver, RequestOutcome, observe};
use advisory_locking::{
    AdvisoryLocking, LockError, LockKey, LockMode, LockOptions, LockScope, WaitStrategy,
};
use testkit::model::Model;

use crate::recorder::{Call, calls_of, events_of, record};

struct Second;

impl LockObserver for Second {}

#[test]
fn second_observer_is_refused() {
    record();
    let error = observe((Second, Second)).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
}

#[test]
fn observer_receives_label_strategy_and_polls() {
    // Long enough for an attempt on the model, also if the thread loses its processor meanwhile.
    const LIMIT: Duration = Duration::from_secs(1);

    record();
    let (model, key) = (Model::default(), LockKey::from("events/observer"));
    let (mut holder, mut waiter) = (model.connect(), model.connect());
    let options = LockOptions::no_wait().label("holder");
    let guard = holder.acquire_advisory_lock(&key, options).unwrap();
    let options = LockOptions::wait_up_to(LIMIT)
        .interval(Duration::from_millis(5))
        .label("waiter")
        .shared();
    waiter.acquire_advisory_lock(&key, options).unwrap_err();
    guard.release().unwrap();
    let calls = calls_of(&key);
    let [
        Call::Requested(first),
        Call::RequestEnded(granted, grant),
        Call::Requested(second),
        Call::Waiting(_),
        Call::RequestEnded(_, refusal),
        Call::HoldEnded(held, hold),
    ] = &calls[..]
    else {
        panic!("{calls:?}");
    };
    assert_eq!(
        (first.label(), second.label(), held.label()),
        ("holder", "waiter", "holder")
    );
    assert_eq!(
        (first.strategy(), second.strategy()),
        (None, Some(WaitStrategy::Poll))
    );
    assert_eq!(
        (first.mode(), second.mode()),
        (LockMode::Exclusive, LockMode::Shared)
    );
    assert_eq!((first.scope(), second.key()), (LockScope::Session, &key));
    assert_eq!(first.request(), granted.request());
    assert_eq!(
        (grant.outcome, grant.contended, grant.polls),
        (RequestOutcome::Granted, false, 0)
    );
    assert_eq!(
        (refusal.outcome, refusal.contended),
        (RequestOutcome::TimedOut, true)
    );
    assert!(refusal.polls > 0 && refusal.waited >= LIMIT, "{refusal:?}");
    assert_eq!(
        (hold.outcome, hold.error_kind),
        (HoldOutcome::Released, None)
    );
    assert!(hold.held >= refusal.waited, "{hold:?}");
    let events = events_of(&key);
    assert_eq!(events[0].field("lock.label"), Some("holder"));
}

#[cfg(feature = "rusqlite")]
#[test]
fn no_op_on_sqlite_is_observed() {
    record();
    let key = LockKey::from("events/observed-no-op");
    let mut conn = rusqlite::Connection::open_in_memory().unwrap();
    let guard = conn
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .unwrap();
    guard.release().unwrap();
    let calls = calls_of(&key);
    assert_eq!(calls.len(), 3, "{calls:?}");
    for call in &calls {
        assert_eq!(call.lock().db_system_name(), Some("sqlite"));
        assert_eq!((call.lock().label(), call.lock().pid()), ("", None));
    }
}

/// The transaction of the caller would keep the lock on PostgreSQL.
#[cfg(feature = "rusqlite")]
#[test]
fn savepoint_on_sqlite_reports_no_release() {
    record();
    let key = LockKey::from("events/savepoint-on-sqlite");
    let mut conn = rusqlite::Connection::open_in_memory().unwrap();
    let mut transaction = conn.transaction().unwrap();
    transaction
        .with_advisory_xact_lock(&key, LockOptions::no_wait(), |_| Ok::<_, LockError>(()))
        .unwrap();
    let last = calls_of(&key).pop();
    let is_unobserved = matches!(&last, Some(Call::HoldEnded(_, end))
        if end.outcome == HoldOutcome::Unobserved);
    assert!(is_unobserved, "{last:?}");
}
