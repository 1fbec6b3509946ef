//! What happened in the worlds, so that it is seen that everything did.

use std::collections::BTreeMap;

use crate::error::LockErrorKind;

/// How often each kind of thing has happened.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Met {
    pub(super) steps: u64,
    counts: BTreeMap<String, u64>,
}

/// What must have happened in every run of the seeds.
const EXPECTED: [&str; 33] = [
    "answer too late",
    "cancelled",
    "closed",
    "dropped before it was granted",
    "granted",
    "granted of several keys",
    "granted on a session of its own",
    "granted with a token",
    "granted with a token of a sequence",
    "granted without locks",
    "granted in the process",
    "handed on",
    "lost holder",
    "lost session",
    "no session",
    "pinged",
    "refused Closed",
    "refused Database",
    "refused HeldElsewhere",
    "refused InvalidOptions",
    "refused Pool",
    "refused TimedOut",
    "refused TooManyLocks",
    "released",
    "released Lost",
    "round",
    "round of many",
    "round that gives back and takes again",
    "shut down",
    "shut down with holders",
    "silent session given up",
    "undone",
    "waited on the server",
];

impl Met {
    pub(super) fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
    }

    pub(super) fn refused(&mut self, kind: LockErrorKind) {
        self.count(&format!("refused {kind:?}"));
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

    /// Whatever should have happened, and has not at least so often.
    pub(super) fn missing(&self, at_least: u64) -> Vec<(&'static str, u64)> {
        let counts = EXPECTED.iter().map(|what| (*what, self.of(what)));
        counts.filter(|(_, count)| *count < at_least).collect()
    }
}
