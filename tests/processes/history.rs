//! The record file of a process: one line for each event, each in one `write`.
//!
//! A killed process loses no line that it has written.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
pub(crate) type MonotonicNanos = u64;

pub(crate) fn now() -> MonotonicNanos {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Ok,
    /// The release reported the lock as lost.
    Lost,
    /// The body, the release or the commit failed.
    Failed,
    /// The lock was held elsewhere until the limit.
    TimedOut,
    /// The lock was not acquired, because of an error.
    NotAcquired,
    /// The future was dropped.
    Dropped,
}

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Ok, "ok"),
    (Outcome::Lost, "lost"),
    (Outcome::Failed, "failed"),
    (Outcome::TimedOut, "timed-out"),
    (Outcome::NotAcquired, "not-acquired"),
    (Outcome::Dropped, "dropped"),
];

/// An event of one call. It is recorded with the number of the call in its process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// The lock is known to be granted since `at`.
    Granted {
        key: usize,
        mode: Mode,
        pid: i32,
        at: MonotonicNanos,
    },
    /// The lock is transaction-level.
    TransactionLevel,
    /// A lock manager's session of that generation holds the lock.
    HeldByLockManager { generation: u64 },
    /// The number is about to be written to the database.
    Writes { number: u64 },
    /// The database acknowledged the write of the number.
    Wrote { number: u64 },
    /// The number was written to the file.
    Filed { number: u64 },
    /// The file or the fenced counter has a higher token.
    Stale,
    /// Two reads of a shared holder differ.
    Differed,
    /// The end of the certain interval: the lock is about to be released or dropped.
    Until { at: MonotonicNanos },
    Ended {
        outcome: Outcome,
        at: MonotonicNanos,
    },
}

/// The writer of a record file.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    calls: AtomicU64,
}

impl Recorder {
    /// Opens a file that the parent has created: the process may be killed before it calls this.
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).open(path);
        Self {
            file: file.expect("a record can be written"),
            calls: AtomicU64::new(0),
        }
    }

    pub(crate) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn write(&self, call: u64, event: Event) {
        let text = match event {
            Event::Granted { key, mode, pid, at } => {
                format!(
                    "granted {key} {} {pid} {at}",
                    u8::from(mode == Mode::Shared)
                )
            }
            Event::Writes { number } => format!("writes {number}"),
            Event::Wrote { number } => format!("wrote {number}"),
            Event::Filed { number } => format!("filed {number}"),
            Event::HeldByLockManager { generation } => format!("lock-manager {generation}"),
            Event::TransactionLevel => "transaction-level".to_owned(),
            Event::Stale => "stale".to_owned(),
            Event::Differed => "differed".to_owned(),
            Event::Until { at } => format!("until {at}"),
            Event::Ended { outcome, at } => {
                let (_, name) = OUTCOMES
                    .iter()
                    .find(|(known, _)| *known == outcome)
                    .unwrap();
                format!("ended {name} {at}")
            }
        };
        (&self.file)
            .write_all(format!("{call} {text}\n").as_bytes())
            .expect("a line can be written");
    }
}

/// Reads the events of a record file, in their order.
pub(crate) fn read(path: &Path) -> Vec<(u64, Event)> {
    let text = std::fs::read_to_string(path).expect("a record can be read");
    // Ignore an incomplete last line.
    let (whole, _cut) = text.rsplit_once('\n').unwrap_or_default();
    whole
        .lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("no event: {line}")))
        .collect()
}

fn parse(line: &str) -> Option<(u64, Event)> {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| words.get(at)?.parse().ok();
    let event = match *words.get(1)? {
        "granted" => Event::Granted {
            key: words.get(2)?.parse().ok()?,
            mode: if number(3)? == 1 {
                Mode::Shared
            } else {
                Mode::Exclusive
            },
            pid: words.get(4)?.parse().ok()?,
            at: number(5)?,
        },
        "writes" => Event::Writes { number: number(2)? },
        "wrote" => Event::Wrote { number: number(2)? },
        "filed" => Event::Filed { number: number(2)? },
        "lock-manager" => Event::HeldByLockManager {
            generation: number(2)?,
        },
        "transaction-level" => Event::TransactionLevel,
        "stale" => Event::Stale,
        "differed" => Event::Differed,
        "until" => Event::Until { at: number(2)? },
        "ended" => Event::Ended {
            outcome: OUTCOMES
                .iter()
                .find(|(_, name)| Some(name) == words.get(2))?
                .0,
            at: number(3)?,
        },
        _ => return None,
    };
    Some((number(0)?, event))
}
