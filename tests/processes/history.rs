//! NemesisAction a process writes down, so that it is there whatever becomes of the process: one line, one write, for each event.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock, the same in all its processes.
pub(crate) type Moment = u64;

pub(crate) fn now() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Ok,
    /// The lock's release reported that it cannot be vouched for.
    Lost,
    /// The body failed, or the release did, or the commit.
    Failed,
    /// The lock was not had: held elsewhere to the end of the limit.
    TimedOut,
    /// The lock was not had, because something failed.
    NotHad,
    /// The future was dropped.
    Dropped,
}

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Ok, "ok"),
    (Outcome::Lost, "lost"),
    (Outcome::Failed, "failed"),
    (Outcome::TimedOut, "timed-out"),
    (Outcome::NotHad, "not-had"),
    (Outcome::Dropped, "dropped"),
];

/// NemesisAction happened in one call, whose number in its process comes with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// The lock is known to be granted since `at`.
    Granted {
        key: usize,
        mode: Mode,
        pid: i32,
        at: Moment,
    },
    /// It is a locker's lock: the session of that generation has it, and the work is done on another.
    OfLocker {
        generation: u64,
    },
    /// The number is about to be written to the database.
    Writes {
        number: u64,
    },
    /// The number was written, and that was acknowledged.
    Wrote {
        number: u64,
    },
    /// The number was written to the file.
    Filed {
        number: u64,
    },
    /// The file has seen a higher token.
    Stale,
    /// Two readings differ.
    Differed,
    /// The lock is held no longer than this: it is about to be given back, or may be dropped.
    Until {
        at: Moment,
    },
    Ended {
        outcome: Outcome,
        at: Moment,
    },
}

/// The record of a process.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    calls: AtomicU64,
}

impl Recorder {
    /// Of a file that is there already: its process may be killed before it comes to this.
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
            Event::OfLocker { generation } => format!("of-locker {generation}"),
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

/// The events of a record, in their order.
pub(crate) fn read(path: &Path) -> Vec<(u64, Event)> {
    let text = std::fs::read_to_string(path).expect("a record can be read");
    // A line that was cut off has not happened.
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
        "of-locker" => Event::OfLocker {
            generation: number(2)?,
        },
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
