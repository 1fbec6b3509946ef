//! Events of each outcome, on each client, on a PostgreSQL server.

mod async_pools;
mod blocking;
mod lock_manager;

use std::time::Duration;

use advisory_locking::observer::{HoldOutcome, RequestOutcome};
use advisory_locking::{LockKey, LockOptions, RawLockKey};
use testkit::server::eventually;
use tracing::Level;

use crate::recorder::{Call, Event, calls_of, events_of, record};

const SHORT: LockOptions = LockOptions::wait_up_to(Duration::from_secs(1));

/// Limits in ascending order. On a stalled machine, a limit may pass before the wait begins.
const LIMITS: [LockOptions; 4] = [
    LockOptions::wait_up_to(Duration::from_millis(100)),
    LockOptions::wait_up_to(Duration::from_secs(1)),
    LockOptions::wait_up_to(Duration::from_secs(10)),
    LockOptions::wait_up_to(Duration::from_secs(100)),
];

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

fn has_waited(key: &LockKey) -> bool {
    events_of(key)
        .iter()
        .any(|event| event.message() == WAITING)
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

#[track_caller]
fn assert_eventual_warning(key: &LockKey) {
    eventually("the warning", || {
        events_of(key)
            .iter()
            .any(|event| event.message() == OVERDUE)
    });
}

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
