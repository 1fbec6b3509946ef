//! Observers of lock operations, for metrics: [`LockObserver`].
//!
//! A program sets one observer with [`observe`]. It receives every request and every hold of the
//! process, on each client and database, blocking or async. SQLite's no-op is observed too, so that
//! dashboards work in development.
//!
//! | event | method |
//! |---|---|
//! | a call requests a lock | [`requested`](LockObserver::requested) |
//! | the lock is contended, and the call waits from now on | [`waiting`](LockObserver::waiting) |
//! | the request has ended, by a grant or otherwise | [`request_ended`](LockObserver::request_ended) |
//! | the hold has ended, by a release or otherwise | [`hold_ended`](LockObserver::hold_ended) |
//! | a lock is held for longer than its warning time | [`overdue`](LockObserver::overdue) |
//!
//! Each `requested` is followed by one `request_ended`. Each `request_ended` with
//! [`RequestOutcome::Granted`] is followed by one `hold_ended`. So the difference of their numbers
//! is the number of requests that wait, and of locks that are held. A guard that is leaked
//! ([`std::mem::forget`]) has no `hold_ended`.
//!
//! # Examples
//!
//! ```
//! # #[cfg(feature = "rusqlite")] {
//! use std::sync::atomic::{AtomicI64, Ordering};
//! use advisory_locking::observer::{HoldEnd, LockObserver, ObservedLock, RequestEnd, observe};
//! use advisory_locking::observer::RequestOutcome;
//! use advisory_locking::{AdvisoryLocking, LockOptions};
//!
//! static HELD: AtomicI64 = AtomicI64::new(0);
//!
//! struct CountsHolds;
//!
//! impl LockObserver for CountsHolds {
//!     fn request_ended(&self, _lock: &ObservedLock, end: &RequestEnd) {
//!         if end.outcome == RequestOutcome::Granted {
//!             HELD.fetch_add(1, Ordering::Relaxed);
//!         }
//!     }
//!
//!     fn hold_ended(&self, _lock: &ObservedLock, _end: &HoldEnd) {
//!         HELD.fetch_sub(1, Ordering::Relaxed);
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! observe(CountsHolds)?;
//! let mut conn = rusqlite::Connection::open_in_memory()?;
//! // The label is text of the program, so it has few values. The key may have many.
//! let options = LockOptions::no_wait().label("nightly-report");
//! let guard = conn.acquire_advisory_lock(("report", "2026-11-29"), options)?;
//! assert_eq!(HELD.load(Ordering::Relaxed), 1);
//! guard.release()?;
//! assert_eq!(HELD.load(Ordering::Relaxed), 0);
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```
//!
//! # Implementation details
//!
//! The observer is a [`OnceLock`]. A request loads it once, with acquire ordering, and passes it on
//! to its hold. So without an observer a lock costs one atomic load. The drivers call it outside
//! every mutex of the crate, and a panic of the observer is caught.
//!
//! Consequence for users: an observer sees the whole of a request and its hold, or nothing of them.

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod instruments;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "opentelemetry")]
mod opentelemetry;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;
use std::{error, fmt};

use crate::backend::Backend;
use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::lock_mode::LockMode;
use crate::options::{LockScope, WaitStrategy};

#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
#[cfg(feature = "opentelemetry")]
pub use self::opentelemetry::OpenTelemetryObserver;

/// Observer of all lock operations of the process.
///
/// # Contract
///
/// * The methods run on the thread of the call, in destructors too. [`waiting`](Self::waiting),
///   [`hold_ended`](Self::hold_ended) and [`overdue`](Self::overdue) may run on another thread:
///   that of a session, of a clean-up, or of the crate's timer. So they return soon, and do not
///   block.
/// * They acquire no lock of this crate.
/// * A panic is caught and has no effect on the lock. The panic hook reports it.
pub trait LockObserver: Send + Sync {
    /// Receives that a call requests a lock. Nothing has been sent.
    fn requested(&self, lock: &ObservedLock) {
        let _ = lock;
    }

    /// Receives that the lock is contended, and that the call begins to wait for it. At most once
    /// for each request.
    ///
    /// A call that does not wait ends with [`RequestOutcome::HeldElsewhere`] instead.
    fn waiting(&self, lock: &ObservedLock) {
        let _ = lock;
    }

    /// Receives the end of the request.
    fn request_ended(&self, lock: &ObservedLock, end: &RequestEnd) {
        let _ = (lock, end);
    }

    /// Receives that the lock of a granted request is no longer held, or no longer observed.
    fn hold_ended(&self, lock: &ObservedLock, end: &HoldEnd) {
        let _ = (lock, end);
    }

    /// Receives that the lock is held for longer than
    /// [`LockOptions::warn_after`](crate::LockOptions::warn_after). At most once for each hold.
    fn overdue(&self, lock: &ObservedLock, held: Duration) {
        let _ = (lock, held);
    }
}

/// Two observers, of which each receives every call, also if the other one panics.
impl<A: LockObserver, B: LockObserver> LockObserver for (A, B) {
    fn requested(&self, lock: &ObservedLock) {
        contained(|| self.0.requested(lock));
        self.1.requested(lock);
    }

    fn waiting(&self, lock: &ObservedLock) {
        contained(|| self.0.waiting(lock));
        self.1.waiting(lock);
    }

    fn request_ended(&self, lock: &ObservedLock, end: &RequestEnd) {
        contained(|| self.0.request_ended(lock, end));
        self.1.request_ended(lock, end);
    }

    fn hold_ended(&self, lock: &ObservedLock, end: &HoldEnd) {
        contained(|| self.0.hold_ended(lock, end));
        self.1.hold_ended(lock, end);
    }

    fn overdue(&self, lock: &ObservedLock, held: Duration) {
        contained(|| self.0.overdue(lock, held));
        self.1.overdue(lock, held);
    }
}

/// Runs a call of a subscriber, an observer, a waker or a destructor, and ignores its panic. Events
/// are sent between a grant and its release, and during a panic, where a second panic would abort
/// the process.
pub(crate) fn contained(call: impl FnOnce()) {
    // The panic hook has already reported the panic.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        // The destructor of the payload may panic, too; that payload is not dropped.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        dropped.unwrap_or_else(std::mem::forget);
    }
}

static OBSERVER: OnceLock<Box<dyn LockObserver>> = OnceLock::new();

/// Sets the observer of the process.
///
/// Requests that have begun before are not observed. A pair of observers is an observer, too.
///
/// # Errors
///
/// [`ObserverAlreadySet`] after the first call. The first observer stays.
pub fn observe(observer: impl LockObserver + 'static) -> Result<(), ObserverAlreadySet> {
    OBSERVER
        .set(Box::new(observer))
        .map_err(|_| ObserverAlreadySet(()))
}

/// Returns the observer of the process.
pub(crate) fn observer() -> Option<&'static dyn LockObserver> {
    OBSERVER.get().map(AsRef::as_ref)
}

/// Error of [`observe`]: the process has an observer already.
#[derive(Debug)]
pub struct ObserverAlreadySet(());

impl fmt::Display for ObserverAlreadySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the process has an observer of advisory locks already")
    }
}

impl error::Error for ObserverAlreadySet {}

/// Lock of a request, as an observer sees it.
#[derive(Clone, Debug)]
pub struct ObservedLock {
    pub(crate) key: LockKey,
    pub(crate) label: &'static str,
    pub(crate) scope: LockScope,
    pub(crate) mode: LockMode,
    pub(crate) strategy: Option<WaitStrategy>,
    pub(crate) backend: Option<Backend>,
    pub(crate) pid: Option<i32>,
    pub(crate) request: u64,
}

impl ObservedLock {
    /// Returns the key.
    ///
    /// Keys are often made from data. So a metric that has the key as an attribute has as many
    /// series as there are keys; use the [label](Self::label) instead.
    #[must_use]
    pub const fn key(&self) -> &LockKey {
        &self.key
    }

    /// Returns the label of [`LockOptions::label`](crate::LockOptions::label). Empty by default.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.label
    }

    /// Returns the scope of the lock. That of a lock manager's lock is
    /// [`Session`](LockScope::Session).
    #[must_use]
    pub const fn scope(&self) -> LockScope {
        self.scope
    }

    /// Returns the requested mode.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    /// Returns the way to wait. `None`: the request does not wait.
    #[must_use]
    pub const fn strategy(&self) -> Option<WaitStrategy> {
        self.strategy
    }

    /// Returns the value of OpenTelemetry's attribute [`db.system.name`]: `postgresql` or `sqlite`.
    ///
    /// `None` while the backend is unknown: a request of a lock manager before its end, or one that
    /// ended without a connection.
    ///
    /// [`db.system.name`]: https://opentelemetry.io/docs/specs/semconv/registry/attributes/db/
    #[must_use]
    pub const fn db_system_name(&self) -> Option<&'static str> {
        match self.backend {
            Some(Backend::Postgres) => Some("postgresql"),
            Some(Backend::Sqlite) => Some("sqlite"),
            None => None,
        }
    }

    /// Returns the process id of the server session, from the grant on. `None` on a backend without
    /// locks.
    #[must_use]
    pub const fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Returns the number of the request, unique in the process. The log events of the request have
    /// it in the field `lock.request`.
    #[must_use]
    pub const fn request(&self) -> u64 {
        self.request
    }
}

/// End of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RequestEnd {
    /// Outcome of the request.
    pub outcome: RequestOutcome,
    /// Time since [`requested`](LockObserver::requested), which follows the checkout from a pool.
    /// If the checkout failed, its time.
    pub waited: Duration,
    /// `true` if another holder delayed the grant or prevented it.
    pub contended: bool,
    /// Number of pauses between two attempts of this request. 0 with a lock manager, which polls
    /// once for all waiters of a key.
    pub polls: u32,
    /// Kind of the error, with [`RequestOutcome::Failed`].
    pub error_kind: Option<LockErrorKind>,
}

/// Outcome of a request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RequestOutcome {
    /// The lock is held.
    Granted,
    /// Another session holds the lock, and the call does not wait.
    HeldElsewhere,
    /// Another session held the lock until the limit.
    TimedOut,
    /// The call failed with an error.
    Failed,
    /// The future of the call was dropped, or the client library panicked.
    Dropped,
}

impl RequestOutcome {
    /// Returns the name in snake case, such as `held_elsewhere`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::HeldElsewhere => "held_elsewhere",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// End of a hold: the time between a grant and the end of the lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HoldEnd {
    /// Outcome of the hold.
    pub outcome: HoldOutcome,
    /// Time since the grant. It includes the release.
    pub held: Duration,
    /// Kind of the error, with [`HoldOutcome::Lost`] and [`HoldOutcome::NotReleased`].
    pub error_kind: Option<LockErrorKind>,
}

/// Outcome of a hold.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HoldOutcome {
    /// The server has confirmed the release, or the transaction has ended.
    Released,
    /// A guard, or a release of a lock manager, was dropped, and no task reads the reply. With sqlx
    /// also: a body in a transaction was dropped.
    ReleaseQueued,
    /// The session is being terminated: any other release, or body in a transaction, was dropped.
    Terminated,
    /// The lock was lost before its release. The error kind says how.
    Lost,
    /// The release failed, or the transaction was left open or prepared, or the outcome of its
    /// commit is unknown. The error kind says whether the lock is held.
    NotReleased,
    /// The crate does not see the end of the lock: it ends with a transaction of the caller. The
    /// time is that until the return of the call.
    Unobserved,
}

impl HoldOutcome {
    /// Returns the name in snake case, such as `release_queued`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::ReleaseQueued => "release_queued",
            Self::Terminated => "terminated",
            Self::Lost => "lost",
            Self::NotReleased => "not_released",
            Self::Unobserved => "unobserved",
        }
    }
}

#[cfg(test)]
mod tests;
