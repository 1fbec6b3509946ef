//! Recorded events: [`Event`] and [`EventKind`].

use std::fmt;

use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::options::{LockMode, LockScope};

/// Kind of an [`Event`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventKind {
    /// A call was granted the lock.
    Acquired,
    /// A call that does not wait found the lock contended.
    HeldElsewhere,
    /// A call failed or was rejected with an error of this kind.
    NotAcquired(LockErrorKind),
    /// The lock was lost, or its release failed.
    NotReleased(LockErrorKind),
    /// The lock was released.
    Released,
    /// The limit of a call passed.
    TimedOut,
}

/// Recorded event of a lock: kind, key, mode and lock scope.
///
/// Tests compare recorded events with expected ones from the constructors. The constructors create
/// events of an exclusive session-level lock; [`shared`](Self::shared) and
/// [`in_transaction`](Self::in_transaction) change that.
///
/// # Examples
///
/// ```
/// use advisory_locking::testing::Event;
///
/// let event = Event::acquired(("signup", "a@b.c")).in_transaction();
/// assert_ne!(event, Event::acquired(("signup", "a@b.c")));
/// let text = event.to_string();
/// assert!(text.starts_with("acquired (exclusive, transaction-level): \"signup/a@b.c\" = "));
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    kind: EventKind,
    key: LockKey,
    mode: LockMode,
    scope: LockScope,
}

impl Event {
    pub(super) const fn new(
        kind: EventKind,
        key: LockKey,
        mode: LockMode,
        scope: LockScope,
    ) -> Self {
        Self {
            kind,
            key,
            mode,
            scope,
        }
    }

    fn expected(kind: EventKind, key: impl Into<LockKey>) -> Self {
        Self::new(kind, key.into(), LockMode::Exclusive, LockScope::Session)
    }

    /// Creates the event of a granted call.
    #[must_use]
    pub fn acquired(key: impl Into<LockKey>) -> Self {
        Self::expected(EventKind::Acquired, key)
    }

    /// Creates the event of a call that does not wait and found the lock contended.
    #[must_use]
    pub fn held_elsewhere(key: impl Into<LockKey>) -> Self {
        Self::expected(EventKind::HeldElsewhere, key)
    }

    /// Creates the event of a call whose limit passed.
    #[must_use]
    pub fn timed_out(key: impl Into<LockKey>) -> Self {
        Self::expected(EventKind::TimedOut, key)
    }

    /// Creates the event of a call that failed or was rejected with an error of this kind.
    #[must_use]
    pub fn not_acquired(key: impl Into<LockKey>, kind: LockErrorKind) -> Self {
        Self::expected(EventKind::NotAcquired(kind), key)
    }

    /// Creates the event of a release.
    #[must_use]
    pub fn released(key: impl Into<LockKey>) -> Self {
        Self::expected(EventKind::Released, key)
    }

    /// Creates the event of a lost lock or a failed release.
    #[must_use]
    pub fn not_released(key: impl Into<LockKey>, kind: LockErrorKind) -> Self {
        Self::expected(EventKind::NotReleased(kind), key)
    }

    /// Changes the mode to shared.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.mode = LockMode::Shared;
        self
    }

    /// Changes the lock scope to transaction-level.
    #[must_use]
    pub fn in_transaction(mut self) -> Self {
        self.scope = LockScope::Transaction;
        self
    }

    /// Returns the kind of the event.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// Returns the key of the lock.
    #[must_use]
    pub const fn key(&self) -> &LockKey {
        &self.key
    }

    /// Returns the requested mode.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    /// Returns `true` for a transaction-level lock.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        self.scope == LockScope::Transaction
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            EventKind::Acquired => formatter.write_str("acquired")?,
            EventKind::HeldElsewhere => formatter.write_str("held elsewhere")?,
            EventKind::NotAcquired(kind) => write!(formatter, "not acquired ({kind:?})")?,
            EventKind::NotReleased(kind) => write!(formatter, "not released ({kind:?})")?,
            EventKind::Released => formatter.write_str("released")?,
            EventKind::TimedOut => formatter.write_str("timed out")?,
        }
        let (mode, scope) = (self.mode.name(), self.scope.name());
        write!(formatter, " ({mode}, {scope}-level): {}", self.key)
    }
}

/// Returns the event kind of a call that failed with an error of this kind.
pub(super) const fn not_acquired(kind: LockErrorKind) -> EventKind {
    match kind {
        LockErrorKind::HeldElsewhere => EventKind::HeldElsewhere,
        LockErrorKind::TimedOut => EventKind::TimedOut,
        _ => EventKind::NotAcquired(kind),
    }
}
