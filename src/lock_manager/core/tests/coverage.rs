//! Coverage of the simulation: proves that each kind of event has occurred.

use std::collections::BTreeMap;

use crate::error::LockErrorKind;

/// Number of occurrences of each event.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Coverage {
    pub(super) steps: u64,
    counts: BTreeMap<String, u64>,
}

/// Events that must occur in every run of the seeds.
const REQUIRED: [&str; 41] = [
    "waits",
    "late reply",
    "cancelled",
    "closed",
    "closed early",
    "pool closed",
    "session exchanged",
    "failed SessionChanged",
    "granted after cancellation",
    "granted",
    "granted of several keys",
    "granted on a dedicated session",
    "granted with a token",
    "granted with a token of a sequence",
    "granted without locks",
    "granted in the process",
    "handed off",
    "lost holder",
    "lost session",
    "open failure",
    "pinged",
    "failed Closed",
    "failed Database",
    "failed HeldElsewhere",
    "failed InvalidOptions",
    "failed Pool",
    "failed TimedOut",
    "failed TooManyLocks",
    "released",
    "released Lost",
    "batch",
    "batch of many",
    "batch that releases and reacquires",
    "shut down",
    "shut down with holders",
    "silent session terminated",
    "terminated before it was open",
    "compensated",
    "connection checked",
    "connection found closed",
    "waited on the server",
];

impl Coverage {
    pub(super) fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
    }

    pub(super) fn failed(&mut self, kind: LockErrorKind) {
        self.count(&format!("failed {kind:?}"));
    }

    pub(super) fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
    }

    /// Returns the required events that occurred less often than `at_least`.
    pub(super) fn missing(&self, at_least: u64) -> Vec<(&'static str, u64)> {
        let counts = REQUIRED.iter().map(|what| (*what, self.of(what)));
        counts.filter(|(_, count)| *count < at_least).collect()
    }
}
