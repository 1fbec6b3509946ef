//! Each event has the fields of its row in docs/events.md.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use advisory_locking::lock_manager::LockManager;
use advisory_locking::session::{LockPool, LockSession, SessionError};
use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockKey, LockOptions};
use testkit::model::{Fault, Model, ModelSession};
use testkit::server::eventually;

use crate::NO_WAIT;
use crate::recorder::{Event, events_of, record};

const PAGE: &str = include_str!("../../docs/events.md");

/// Long enough for an attempt on the model, also if the thread loses its processor meanwhile.
const LIMIT: Duration = Duration::from_secs(1);

const REQUESTED: &str = "requesting an advisory lock";
const GRANTED: &str = "an advisory lock is granted";
const RELEASED: &str = "an advisory lock is released";

fn key(name: &str) -> LockKey {
    LockKey::from(("events/own-fields", name))
}

#[track_caller]
fn assert_events(key: &LockKey, expected: &[&str]) {
    let events = events_of(key);
    let messages: Vec<_> = events.iter().map(Event::message).collect();
    assert_eq!(messages, expected);
    for event in &events {
        let begin = format!("| {} |", event.message());
        let row = PAGE.lines().find(|line| line.starts_with(&begin));
        let listed = row.and_then(|row| row.rsplit('|').nth(1)).unwrap();
        for field in ["waited_ms", "held_ms", "error"] {
            let is_listed = listed.contains(&format!("`{field}`"));
            assert_eq!(
                event.field(field).is_some(),
                is_listed,
                "{field}: {event:?}"
            );
        }
    }
}

#[test]
fn requests_have_the_fields_of_the_page() {
    record();
    let (model, key) = (Model::default(), key("requests"));
    let (mut holder, mut other) = (model.connect(), model.connect());
    let guard = holder.acquire_advisory_lock(&key, NO_WAIT).unwrap();
    let refused = other.try_acquire_advisory_lock(&key, NO_WAIT);
    assert!(refused.unwrap().is_none());
    let short = LockOptions::wait_up_to(LIMIT);
    other.acquire_advisory_lock(&key, short).unwrap_err();
    other.session_begin().unwrap();
    other.acquire_advisory_lock(&key, NO_WAIT).unwrap_err();
    let mut panics = model.connect();
    panics.faults.plan(0, Fault::Panics);
    let call = || panics.acquire_advisory_lock(&key, NO_WAIT).map(drop);
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    guard.release().unwrap();
    assert_events(
        &key,
        &[
            REQUESTED,
            GRANTED,
            REQUESTED,
            "an advisory lock is contended",
            REQUESTED,
            "waiting for an advisory lock",
            "the limit of an advisory lock passed",
            REQUESTED,
            "the request for an advisory lock failed",
            REQUESTED,
            "the request for an advisory lock was dropped",
            RELEASED,
        ],
    );
}

#[test]
fn long_hold_has_the_fields_of_the_page() {
    const OVERDUE: &str = "an advisory lock is held for long";

    record();
    let (model, key) = (Model::default(), key("long hold"));
    let options = NO_WAIT.warn_after(Duration::from_millis(1));
    let is_warned = || {
        events_of(&key)
            .iter()
            .any(|event| event.message() == OVERDUE)
    };
    let body = |_: &mut ModelSession| {
        eventually("the warning", is_warned);
        Ok::<_, LockError>(())
    };
    let mut session = model.connect();
    session.with_advisory_lock(&key, options, body).unwrap();
    assert_events(&key, &[REQUESTED, GRANTED, OVERDUE, RELEASED]);
}

#[test]
fn failed_releases_have_the_fields_of_the_page() {
    record();
    let (model, lost) = (Model::default(), key("lost"));
    let mut session = model.connect();
    let mut guard = session.acquire_advisory_lock(&lost, NO_WAIT).unwrap();
    guard.terminate();
    drop(guard);
    assert_events(
        &lost,
        &[
            REQUESTED,
            GRANTED,
            "an advisory lock was lost",
            "the release of an advisory lock failed",
        ],
    );

    let left_open = key("left open");
    let mut session = model.connect();
    let mut guard = session.acquire_advisory_lock(&left_open, NO_WAIT).unwrap();
    guard.session_begin().unwrap();
    let error = guard.release().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TransactionLeftOpen);
    let not_released = "an advisory lock was not released";
    assert_events(&left_open, &[REQUESTED, GRANTED, not_released]);

    let terminated = key("terminated");
    let mut session = model.connect();
    let mut guard = session.acquire_advisory_lock(&terminated, NO_WAIT).unwrap();
    // After the attempt.
    guard.faults.plan(1, Fault::Panics);
    let release = || guard.release();
    assert!(catch_unwind(AssertUnwindSafe(release)).is_err());
    let terminates = "the session of an advisory lock is being terminated";
    assert_events(&terminated, &[REQUESTED, GRANTED, terminates]);
}

/// Pool that connects for each checkout.
struct Connects(Model);

impl LockPool for Connects {
    type Session = ModelSession;
    type Connection = Box<ModelSession>;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        Ok(Box::new(self.0.connect()))
    }
}

#[test]
fn queued_release_has_the_fields_of_the_page() {
    record();
    let key = key("queued");
    let manager = LockManager::over_blocking_pool(Connects(Model::default())).unwrap();
    drop(manager.acquire_blocking(&key, NO_WAIT).unwrap());
    let queued = "the release of an advisory lock is queued";
    assert_events(&key, &[REQUESTED, GRANTED, queued]);
}
