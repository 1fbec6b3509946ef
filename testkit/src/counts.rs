//! Observer that counts the requests and holds of each key: [`assert_none_left`].

use std::collections::HashMap;
use std::sync::{Mutex, Once, PoisonError};

use advisory_locking::observer::{
    HoldEnd, LockObserver, ObservedLock, RequestEnd, RequestOutcome, observe,
};
use advisory_locking::{LockKey, RawLockKey};

use crate::server::eventually;

/// Numbers of requests without an end, of holds without an end, and of requests and waits in total.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Requests that have not ended.
    pub waiting: i64,
    /// Locks that are held.
    pub held: i64,
    /// All requests.
    pub requests: u64,
    /// Requests that have begun to wait for a holder.
    pub waits: u64,
}

static COUNTS: Mutex<Option<HashMap<RawLockKey, Counts>>> = Mutex::new(None);

struct Counter;

impl Counter {
    fn count(lock: &ObservedLock, count: impl FnOnce(&mut Counts)) {
        let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.get_or_insert_default();
        count(counts.entry(lock.key().raw()).or_default());
    }
}

impl LockObserver for Counter {
    fn requested(&self, lock: &ObservedLock) {
        Self::count(lock, |counts| {
            counts.waiting += 1;
            counts.requests += 1;
        });
    }

    fn waiting(&self, lock: &ObservedLock) {
        Self::count(lock, |counts| counts.waits += 1);
    }

    fn request_ended(&self, lock: &ObservedLock, end: &RequestEnd) {
        Self::count(lock, |counts| {
            counts.waiting -= 1;
            counts.held += i64::from(end.outcome == RequestOutcome::Granted);
        });
    }

    fn hold_ended(&self, lock: &ObservedLock, _end: &HoldEnd) {
        Self::count(lock, |counts| counts.held -= 1);
    }
}

/// Starts to count, in the whole process.
pub fn count() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| observe(Counter).expect("no other observer"));
}

/// Returns the counts of a key.
pub fn counts_of(key: &LockKey) -> Counts {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let counts = counts.as_ref().and_then(|counts| counts.get(&key.raw()));
    counts.copied().unwrap_or_default()
}

/// Waits until every request and every hold of the key has ended. Some end on a background task.
#[track_caller]
pub fn assert_none_left(key: &LockKey, what: &str) {
    eventually(&format!("{what}: no request and no hold is left"), || {
        let counts = counts_of(key);
        assert!(
            counts.waiting >= 0 && counts.held >= 0,
            "{what}: {counts:?}"
        );
        (counts.waiting, counts.held) == (0, 0)
    });
}
