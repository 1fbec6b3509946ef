//! Events as records of the crate `log`, in a process without a subscriber of tracing.
//!
//! A separate program: as soon as a thread has a subscriber, tracing writes no records.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use advisory_locking::lock_manager::LockManager;
use advisory_locking::session::{LockPool, SessionError};
use advisory_locking::{AdvisoryLocking, LockError, LockKey, LockOptions, RawLockKey};
use log::{Level, LevelFilter, Log, Metadata, Record};
use testkit::model::{Model, ModelSession};
use testkit::server::fresh_key;

const NO_WAIT: LockOptions = LockOptions::no_wait();

const REQUESTED: &str = "requesting an advisory lock";
const GRANTED: &str = "an advisory lock is granted";
const RELEASED: &str = "an advisory lock is released";

static RECORDS: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

/// Logger of the process, which keeps the records of the crate and those of its spans.
struct Recorder;

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let targets = ["advisory_locking", "tracing::span"];
        targets
            .iter()
            .any(|target| metadata.target().starts_with(target))
    }

    fn log(&self, record: &Record<'_>) {
        let mut records = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
        records.push((record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

fn record() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(LevelFilter::Debug);
    });
}

/// Asserts the messages of a key, in order, with its fields, and that there is no record of a span.
#[track_caller]
fn assert_records(key: &LockKey, expected: &[&str]) {
    let id = match key.raw() {
        RawLockKey::Single(number) => format!("lock.id={number} "),
        RawLockKey::Pair(..) => unreachable!("a fresh key is one number"),
    };
    let records = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
    let of_key = records.iter().filter(|(_, text)| text.contains(&id));
    let of_key: Vec<_> = of_key.collect();
    assert_eq!(of_key.len(), expected.len(), "{of_key:?}");
    for ((level, text), message) in of_key.into_iter().zip(expected) {
        assert_eq!(*level, Level::Debug, "{text}");
        let name = format!("lock.key={:?}", key.text().unwrap());
        for part in [*message, name.as_str(), "lock.scope=\"session\""] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let of_spans = |(_, text): &&(Level, String)| text.contains("advisory_lock.");
    assert_eq!(records.iter().find(of_spans), None);
}

#[test]
fn events_are_records_without_a_subscriber() {
    record();
    let (mut session, key) = (Model::default().connect(), fresh_key());
    session
        .with_advisory_lock(&key, NO_WAIT, |_| Ok::<_, LockError>(()))
        .unwrap();
    assert_records(&key, &[REQUESTED, GRANTED, RELEASED]);
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

/// A lock manager reports a wait only if an observer, a subscriber or a logger receives it.
#[test]
fn wait_in_a_lock_manager_is_a_record_without_a_subscriber() {
    record();
    let key = fresh_key();
    let manager = LockManager::over_blocking_pool(Connects(Model::default())).unwrap();
    let guard = manager.acquire_blocking(&key, NO_WAIT).unwrap();
    let limit = LockOptions::wait_up_to(Duration::from_millis(10));
    manager.acquire_blocking(&key, limit).unwrap_err();
    guard.release_blocking().unwrap();
    assert_records(
        &key,
        &[
            REQUESTED,
            GRANTED,
            REQUESTED,
            "waiting for an advisory lock",
            "the limit of an advisory lock passed",
            RELEASED,
        ],
    );
}
