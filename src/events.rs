//! Events of lock operations, sent through [`tracing`](https://docs.rs/tracing) and to the observer
//! of the process.
//!
//! # Implementation details
//!
//! Every event is a [`LockEvent`] of a [`Subject`], the lock. [`Subject::emit`] is the only place
//! that sends one. The driver creates a [`RequestRecord`] before it sends anything. A grant
//! turns it into a [`GrantRecord`], which the release consumes. So each request has one end, and
//! each observed release has one event, whichever client runs it.
//!
//! The drivers pass the time, by the clock of the session. A destructor has none, so it reads that
//! of the operating system.

mod notice;
mod overdue;
mod records;
mod spans;

use std::error::Error as StdError;
use std::time::Duration;

use tracing::Level;
#[cfg(feature = "lock-manager")]
use tracing::level_filters::LevelFilter;

use crate::error::LockError;
use crate::key::{LockKey, RawLockKey};
use crate::observer::{
    HoldEnd, HoldOutcome, LockObserver, ObservedLock, RequestEnd, RequestOutcome, contained,
};

#[cfg(feature = "lock-manager")]
pub(crate) use notice::Notice;
pub(crate) use records::{GrantRecord, RequestRecord};
pub(crate) use spans::LockSpan;

/// Target of all events.
const TARGET: &str = "advisory_locking";

/// Returns `true` if a subscriber or a logger may receive events of level debug.
#[cfg(feature = "lock-manager")]
fn is_logged() -> bool {
    LevelFilter::current() >= Level::DEBUG || log::max_level() >= log::LevelFilter::Debug
}

/// Logs the error of a release that no caller receives, with its chain of causes.
pub(crate) fn release_failed(error: &LockError) {
    contained(|| {
        tracing::error!(
            target: TARGET,
            error = error as &(dyn StdError + 'static),
            "the release of an advisory lock failed"
        )
    });
}

/// Warns that a body runs without mutual exclusion, on a backend without locks.
pub(crate) fn runs_without_exclusion(key: &LockKey) {
    contained(|| {
        tracing::event!(
            target: TARGET,
            Level::WARN,
            lock.key = key.text(),
            lock.id = %Id(key.raw()),
            "SQLite has no advisory locks: running without mutual exclusion; PostgreSQL has them, and \
             LockOptions::on_missing_lock silences or refuses this"
        )
    });
}

/// Warns that further keys are not warned about.
pub(crate) fn no_more_warnings(keys: usize) {
    contained(|| {
        tracing::warn!(
            target: TARGET,
            keys,
            "no further keys are warned about in this process; they are not locked either"
        )
    });
}

/// Lock of an event, and the observer that receives the events of its request.
#[derive(Clone)]
struct Subject {
    lock: ObservedLock,
    observer: Option<&'static dyn LockObserver>,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = formatter.debug_struct("Subject");
        text.field("lock", &self.lock).finish_non_exhaustive()
    }
}

impl Subject {
    /// Sends an event, with the error that ended the request or the hold.
    fn emit(&self, event: LockEvent, error: Option<&LockError>) {
        contained(|| event.trace(&self.lock, error));
        if let Some(observer) = self.observer {
            contained(|| event.observe(&self.lock, observer));
        }
    }
}

/// Event of a lock.
#[derive(Clone, Copy, Debug)]
enum LockEvent {
    /// A call requests the lock. Nothing has been sent.
    Requested,
    /// The lock is contended, and the call waits.
    Waiting,
    RequestEnded(RequestEnd),
    HoldEnded(HoldEnd),
    /// The lock is held for longer than its warning time.
    Overdue {
        held: Duration,
    },
}

impl LockEvent {
    fn observe(self, lock: &ObservedLock, observer: &dyn LockObserver) {
        match self {
            Self::Requested => observer.requested(lock),
            Self::Waiting => observer.waiting(lock),
            Self::RequestEnded(end) => observer.request_ended(lock, &end),
            Self::HoldEnded(end) => observer.hold_ended(lock, &end),
            Self::Overdue { held } => observer.overdue(lock, held),
        }
    }

    fn trace(self, lock: &ObservedLock, error: Option<&LockError>) {
        // tracing needs the names of the fields at compile time, so each shape is a macro call.
        macro_rules! event {
            ($message:expr $(, $field:ident = $value:expr)*) => {
                event!(Level::DEBUG; $message $(, $field = $value)*)
            };
            ($level:expr; $message:expr $(, $field:ident = $value:expr)*) => {{
                let ObservedLock { key, label, scope, mode, pid, request, .. } = lock;
                tracing::event!(
                    target: TARGET,
                    $level,
                    lock.key = key.text(),
                    lock.id = %Id(key.raw()),
                    lock.label = (!label.is_empty()).then_some(*label),
                    lock.scope = scope.name(),
                    lock.mode = mode.name(),
                    lock.pid = *pid,
                    lock.request = *request,
                    $($field = $value,)*
                    $message
                )
            }};
        }
        let error = error.map(|error| error as &(dyn StdError + 'static));
        match self {
            Self::Requested => event!("requesting an advisory lock"),
            Self::Waiting => event!("waiting for an advisory lock"),
            Self::Overdue { held } => event!(
                Level::WARN;
                "an advisory lock is held for long",
                held_ms = millis(held)
            ),
            Self::RequestEnded(end) => {
                let waited_ms = millis(end.waited);
                match end.outcome {
                    RequestOutcome::Granted => {
                        event!("an advisory lock is granted", waited_ms = waited_ms)
                    }
                    RequestOutcome::HeldElsewhere => {
                        event!("an advisory lock is contended", waited_ms = waited_ms)
                    }
                    RequestOutcome::TimedOut => event!(
                        "the limit of an advisory lock passed",
                        waited_ms = waited_ms
                    ),
                    RequestOutcome::Failed => event!(
                        "the request for an advisory lock failed",
                        waited_ms = waited_ms,
                        error = error
                    ),
                    RequestOutcome::Dropped => event!(
                        "the request for an advisory lock was dropped",
                        waited_ms = waited_ms
                    ),
                }
            }
            Self::HoldEnded(end) => {
                let held_ms = millis(end.held);
                match end.outcome {
                    HoldOutcome::Released => {
                        event!("an advisory lock is released", held_ms = held_ms)
                    }
                    HoldOutcome::ReleaseQueued => event!(
                        "the release of an advisory lock is queued",
                        held_ms = held_ms
                    ),
                    HoldOutcome::Terminated => event!(
                        "the session of an advisory lock is being terminated",
                        held_ms = held_ms
                    ),
                    HoldOutcome::Lost => event!(
                        "an advisory lock was lost",
                        held_ms = held_ms,
                        error = error
                    ),
                    HoldOutcome::NotReleased => event!(
                        "an advisory lock was not released",
                        held_ms = held_ms,
                        error = error
                    ),
                    // It may be held still, so there is nothing to report.
                    HoldOutcome::Unobserved => {}
                }
            }
        }
    }
}

/// Raw key as an event shows it: one number, or two with a comma between them.
struct Id(RawLockKey);

impl std::fmt::Display for Id {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            RawLockKey::Single(number) => write!(formatter, "{number}"),
            RawLockKey::Pair(first, second) => write!(formatter, "{first},{second}"),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
