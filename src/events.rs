//! Events of lock operations, sent through [`tracing`](https://docs.rs/tracing).
//!
//! # Implementation details
//!
//! Every event is a [`LockEvent`]: a lock, and what happened to it. [`LockEvent::emit`] is the only
//! place that sends one. The driver creates a [`RequestRecord`] before it sends anything. A grant
//! turns it into a [`GrantRecord`], which the release consumes. So each request has one end, and
//! each observed release has one event, whichever client runs it.
//!
//! The drivers pass the time, by the clock of the session. A destructor has none, so it reads that
//! of the operating system.

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::error::{LockError, LockErrorKind};
use crate::key::{LockKey, RawLockKey};
use crate::options::{LockMode, LockScope};

/// Target of all events.
const TARGET: &str = "advisory_locking";

/// Runs a log call and ignores a panic of the subscriber. Events are sent between a grant and its
/// release, and during a panic, where a second panic would abort the process.
fn log(event: impl FnOnce()) {
    // The panic hook has already reported the panic.
    let _ = catch_unwind(AssertUnwindSafe(event));
}

/// Logs the error of a release that no caller receives, with its chain of causes.
pub(crate) fn release_failed(error: &LockError) {
    log(|| {
        tracing::error!(
            target: TARGET,
            error = error as &(dyn StdError + 'static),
            "the release of an advisory lock failed"
        )
    });
}

/// Warns that a body runs without mutual exclusion, on a backend without locks.
pub(crate) fn runs_without_exclusion(key: &LockKey) {
    log(|| {
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
    log(|| {
        tracing::warn!(
            target: TARGET,
            keys,
            "no further keys are warned about in this process; they are not locked either"
        )
    });
}

/// Lock of an event.
#[derive(Clone, Debug)]
pub(crate) struct LockInfo {
    key: LockKey,
    scope: LockScope,
    mode: LockMode,
    /// Process id of the server session, once a reply has shown it.
    pid: Option<i32>,
    /// Number of the request, unique in this process.
    request: u64,
}

/// Event of a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockEvent<'a> {
    lock: &'a LockInfo,
    kind: LockEventKind<'a>,
}

/// Kind of a [`LockEvent`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum LockEventKind<'a> {
    /// A call requests the lock. Nothing has been sent.
    Requested,
    Granted {
        waited: Duration,
    },
    /// Contended, and the call does not wait.
    Contended {
        waited: Duration,
    },
    TimedOut {
        waited: Duration,
    },
    /// The call failed with an error, which its caller receives.
    Failed {
        waited: Duration,
        error: &'a LockError,
    },
    /// The call was dropped, or panicked, before its end.
    Dropped,
    Released {
        held: Duration,
    },
    /// The release was sent by a destructor, which waits for no reply.
    #[cfg(feature = "_async")]
    ReleaseQueued {
        held: Duration,
    },
    /// The termination of the session was started, and no task waits for it.
    Terminated {
        held: Duration,
    },
    /// The lock was lost, or its release failed.
    NotReleased {
        held: Duration,
        error: &'a LockError,
    },
}

impl LockEvent<'_> {
    /// Sends the event.
    fn emit(self) {
        log(|| self.trace());
    }

    fn trace(self) {
        // tracing needs the names of the fields at compile time, so each kind is a macro call.
        macro_rules! event {
            ($message:expr $(, $field:ident = $value:expr)*) => {{
                let LockInfo { key, scope, mode, pid, request } = self.lock;
                tracing::event!(
                    target: TARGET,
                    Level::DEBUG,
                    lock.key = key.text(),
                    lock.id = %Id(key.raw()),
                    lock.scope = scope_name(*scope),
                    lock.mode = mode_name(*mode),
                    lock.pid = *pid,
                    lock.request = *request,
                    $($field = $value,)*
                    $message
                )
            }};
        }
        use LockEventKind as Kind;
        match self.kind {
            Kind::Requested => event!("requesting an advisory lock"),
            Kind::Granted { waited } => {
                event!("an advisory lock is granted", waited_ms = millis(waited))
            }
            Kind::Contended { waited } => {
                event!("an advisory lock is contended", waited_ms = millis(waited))
            }
            Kind::TimedOut { waited } => event!(
                "the limit of an advisory lock passed",
                waited_ms = millis(waited)
            ),
            Kind::Failed { waited, error } => event!(
                "the request for an advisory lock failed",
                waited_ms = millis(waited),
                error = error as &(dyn StdError + 'static)
            ),
            Kind::Dropped => event!("the request for an advisory lock was dropped"),
            Kind::Released { held } => {
                event!("an advisory lock is released", held_ms = millis(held))
            }
            #[cfg(feature = "_async")]
            Kind::ReleaseQueued { held } => event!(
                "the release of an advisory lock is queued",
                held_ms = millis(held)
            ),
            Kind::Terminated { held } => event!(
                "the session of an advisory lock is being terminated",
                held_ms = millis(held)
            ),
            Kind::NotReleased { held, error } if error.is_lost() => event!(
                "an advisory lock was lost",
                held_ms = millis(held),
                error = error as &(dyn StdError + 'static)
            ),
            Kind::NotReleased { held, error } => event!(
                "an advisory lock was not released",
                held_ms = millis(held),
                error = error as &(dyn StdError + 'static)
            ),
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

const fn scope_name(scope: LockScope) -> &'static str {
    match scope {
        LockScope::Session => "session",
        LockScope::Transaction => "transaction",
    }
}

const fn mode_name(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Exclusive => "exclusive",
        LockMode::Shared => "shared",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Outcome of a request that was not granted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotGranted<'a> {
    Contended,
    TimedOut,
    Failed(&'a LockError),
}

impl<'a> From<&'a LockError> for NotGranted<'a> {
    fn from(error: &'a LockError) -> Self {
        match error.kind() {
            LockErrorKind::HeldElsewhere => Self::Contended,
            LockErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Failed(error),
        }
    }
}

/// Request of a lock that has not ended. Sends an event when it begins and when it ends.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    /// `None` after the end.
    lock: Option<LockInfo>,
    since: Instant,
}

impl RequestRecord {
    /// Begins a request.
    pub(crate) fn new(key: &LockKey, mode: LockMode, scope: LockScope, now: Instant) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let lock = LockInfo {
            key: key.clone(),
            scope,
            mode,
            pid: None,
            request: LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
        };
        let kind = LockEventKind::Requested;
        LockEvent { lock: &lock, kind }.emit();
        Self {
            lock: Some(lock),
            since: now,
        }
    }

    /// Ends the request with a grant. `pid` is the process id of the session.
    pub(crate) fn granted(mut self, pid: Option<i32>, now: Instant) -> Option<GrantRecord> {
        let lock = LockInfo {
            pid,
            ..self.lock.take()?
        };
        let waited = now.saturating_duration_since(self.since);
        let kind = LockEventKind::Granted { waited };
        LockEvent { lock: &lock, kind }.emit();
        Some(GrantRecord { lock, since: now })
    }

    /// Ends the request without a grant.
    pub(crate) fn not_granted(mut self, outcome: NotGranted<'_>, now: Instant) {
        let Some(lock) = self.lock.take() else { return };
        let waited = now.saturating_duration_since(self.since);
        let kind = match outcome {
            NotGranted::Contended => LockEventKind::Contended { waited },
            NotGranted::TimedOut => LockEventKind::TimedOut { waited },
            NotGranted::Failed(error) => LockEventKind::Failed { waited, error },
        };
        LockEvent { lock: &lock, kind }.emit();
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            let kind = LockEventKind::Dropped;
            LockEvent { lock, kind }.emit();
        }
    }
}

/// Lock that was granted and is not released yet.
///
/// Dropping it sends no event: the end of a transaction that the caller began is not observed.
#[derive(Debug)]
pub(crate) struct GrantRecord {
    lock: LockInfo,
    since: Instant,
}

impl GrantRecord {
    /// Begins the release.
    pub(crate) const fn releasing(self) -> ReleaseRecord {
        ReleaseRecord { grant: Some(self) }
    }

    fn emit<'e>(&self, now: Instant, kind: impl FnOnce(Duration) -> LockEventKind<'e>) {
        let kind = kind(now.saturating_duration_since(self.since));
        let lock = &self.lock;
        LockEvent { lock, kind }.emit();
    }
}

/// Release that has not ended. Dropping it sends the event of a terminated session: the drop guard
/// of the driver terminates the session then.
#[derive(Debug)]
pub(crate) struct ReleaseRecord {
    /// `None` after the end.
    grant: Option<GrantRecord>,
}

impl ReleaseRecord {
    /// Ends the release with its result, whose error the caller receives.
    pub(crate) fn ended(mut self, result: &Result<(), LockError>, now: Instant) {
        let Some(grant) = self.grant.take() else {
            return;
        };
        grant.emit(now, |held| match result {
            // A failed commit has ended the transaction, which released the lock.
            Err(error) if error.kind() != LockErrorKind::CommitFailed => {
                LockEventKind::NotReleased { held, error }
            }
            Ok(()) | Err(_) => LockEventKind::Released { held },
        });
    }

    /// Ends the release with its result, and logs the error, because no caller receives it.
    #[cfg(feature = "_async")]
    pub(crate) fn ended_without_caller(self, result: Result<(), LockError>) {
        let Some(grant) = &self.grant else { return };
        let result = result.map_err(|error| error.with_key(&grant.lock.key));
        self.ended(&result, Instant::now());
        if let Err(error) = &result {
            release_failed(error);
        }
    }

    /// Ends with a release whose reply no task reads.
    #[cfg(feature = "_async")]
    pub(crate) fn queued(mut self) {
        if let Some(grant) = self.grant.take() {
            grant.emit(Instant::now(), |held| LockEventKind::ReleaseQueued { held });
        }
    }
}

impl Drop for ReleaseRecord {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            grant.emit(Instant::now(), |held| LockEventKind::Terminated { held });
        }
    }
}
