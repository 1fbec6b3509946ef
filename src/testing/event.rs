//! EventKind is taken down.

use std::fmt;

use crate::error::LockErrorKind;
use crate::key::LockKey;
use crate::options::LockMode;
use crate::options::LockScope;
use crate::protocol::Acquired;

/// EventKind happened to a lock, in an [`Event`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventKind {
    /// A call was granted the lock.
    Acquired,
    /// A call that does not wait found it held elsewhere.
    HeldElsewhere,
    /// A call failed otherwise, or was refused.
    NotAcquired(LockErrorKind),
    /// The lock was gone before it could be given back, or that failed.
    NotReleased(LockErrorKind),
    /// The lock was given back.
    Released,
    /// The limit of a call passed.
    TimedOut,
}

/// Something that happened to a lock: what, and to which key, in which mode and at which level.
///
/// Made for comparing: the constructors make the events that a test expects. They stand for an exclusive session-level lock, unless
/// [`shared`](Self::shared) or [`in_transaction`](Self::in_transaction) say otherwise.
///
/// # Examples
///
/// ```
/// use advisory_locking::testing::Event;
///
/// let event = Event::acquired(("signup", "a@b.c")).in_transaction();
/// assert_ne!(event, Event::acquired(("signup", "a@b.c")));
/// assert!(event.to_string().starts_with("acquired (exclusive, transaction-level): \"signup/a@b.c\" = "));
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

    /// A call was granted the lock.
    #[must_use]
    pub fn acquired(key: impl Into<LockKey>) -> Self {
        Self::expected(EventKind::Acquired, key)
    }

    /// A call that does not wait found the lock held elsewhere.
    #[must_use]
    pub fn held_elsewhere(key: impl Into<LockKey>) -> Self {
        Self::expected(EventKind::HeldElsewhere, key)
    }

    /// The limit of a call passed.
    #[must_use]
    pub fn timed_out(key: impl Into<LockKey>) -> Self {
        Self::expected(EventKind::TimedOut, key)
    }

    /// A call failed, or was refused, with an error of this kind.
    #[must_use]
    pub fn not_acquired(key: impl Into<LockKey>, kind: LockErrorKind) -> Self {
        Self::expected(EventKind::NotAcquired(kind), key)
    }

    /// The lock was given back.
    #[must_use]
    pub fn released(key: impl Into<LockKey>) -> Self {
        Self::expected(EventKind::Released, key)
    }

    /// The lock was gone before it could be given back, or that failed.
    #[must_use]
    pub fn not_released(key: impl Into<LockKey>, kind: LockErrorKind) -> Self {
        Self::expected(EventKind::NotReleased(kind), key)
    }

    /// The same, of a lock in shared mode.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.mode = LockMode::Shared;
        self
    }

    /// The same, of a transaction-level lock.
    #[must_use]
    pub fn in_transaction(mut self) -> Self {
        self.scope = LockScope::Transaction;
        self
    }

    /// EventKind happened.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// The lock.
    #[must_use]
    pub const fn key(&self) -> &LockKey {
        &self.key
    }

    /// The mode that was asked for.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    /// Whether it is a transaction-level lock.
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
        let mode = match self.mode {
            LockMode::Exclusive => "exclusive",
            LockMode::Shared => "shared",
        };
        let level = match self.scope {
            LockScope::Session => "session-level",
            LockScope::Transaction => "transaction-level",
        };
        write!(formatter, " ({mode}, {level}): {}", self.key)
    }
}

/// How a call ended, unless it was granted the lock, which is taken down with the grant.
pub(super) fn not_granted(
    outcome: &Result<Acquired, crate::error::LockError>,
) -> Option<EventKind> {
    match outcome {
        Ok(Acquired::Granted(_)) => None,
        Ok(Acquired::HeldElsewhere) => Some(EventKind::HeldElsewhere),
        Ok(Acquired::TimedOut) => Some(EventKind::TimedOut),
        Err(error) => Some(EventKind::NotAcquired(error.kind())),
    }
}
