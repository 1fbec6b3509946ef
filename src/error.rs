//! What went wrong: [`LockError`].

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::key::LockKey;

/// What went wrong, in terms a caller can act on. Every kind says whether the lock is held.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LockErrorKind {
    /// The server cancelled the statement: someone called `pg_cancel_backend`, or the application's `statement_timeout`
    /// passed before a statement that does not wait had run. The lock is not held.
    Canceled,
    /// The locker (module `locker`) is closed, or was closed while this call waited. The lock is not held.
    Closed,
    /// The body succeeded, but the transaction begun for it did not commit. The work is rolled back and the
    /// transaction-level lock is not held.
    CommitFailed,
    /// The driver or the database failed. The lock is not held: where that could not be made sure of, the session was
    /// ended.
    Database,
    /// The server found that this wait and others wait for each other, and ended this one. The lock is not held; locks
    /// taken before still are.
    Deadlock,
    /// Another session holds the lock in a conflicting mode. The lock is not held. The `try_*` methods report this as a
    /// value.
    HeldElsewhere,
    /// A session-level lock was asked for inside an open transaction. Nothing was sent; the lock is not held.
    ///
    /// Releasing it before the commit would let the next holder read old data. Take a transaction-level lock
    /// ([`with_advisory_xact_lock`](crate::AdvisoryLocking::with_advisory_xact_lock),
    /// [`acquire_advisory_xact_lock`](crate::AdvisoryLocking::acquire_advisory_xact_lock)), or say
    /// [`allow_in_transaction`](crate::LockOptions::allow_in_transaction).
    InTransaction,
    /// The name is none in the system whose keys were asked for, which refuses it too. Nothing was sent; no lock is held.
    ///
    /// From the feature `schemes` alone: every text is a [`LockKey`].
    InvalidKey,
    /// The options contradict each other. Nothing was sent; the lock is not held.
    InvalidOptions,
    /// The session ended while the lock was thought to be held, so the lock is not held, and another session may have held
    /// it before the body was done.
    Lost,
    /// The backend has no locks and the caller asked for [`OnMissingLock::Error`](crate::OnMissingLock::Error). The lock is
    /// not held; the body did not run.
    NoMutualExclusion,
    /// The server says that this session does not hold the lock: something else on the same connection released it. The
    /// lock is not held, and another session may have held it before the body was done.
    NotHeld,
    /// A transaction-level lock was asked for outside a transaction, where it would be gone at once. Nothing was sent; the
    /// lock is not held.
    NotInTransaction,
    /// The pool gave no connection. Nothing was sent; the lock is not held.
    Pool,
    /// Another session answered than the one that was granted the lock: a pooler that pools transactions stands in
    /// between, or the connection behind the guard was exchanged.
    ///
    /// Whether the lock is still held, and by which session, cannot be known from here: it may stay with a session of the
    /// pooler until the pooler closes it. Session-level locks need a direct connection or session pooling;
    /// transaction-level locks also work where transactions are pooled, if the pooler knows prepared statements.
    SessionChanged,
    /// The limit passed before the lock was granted. The lock is not held. The `try_*` methods report this as a value.
    TimedOut,
    /// The server's lock table is full. The lock is not held. Asking again makes it worse; see `max_locks_per_transaction`.
    TooManyLocks,
    /// The transaction is aborted: a statement in it has failed, and the server refuses everything but a rollback. The
    /// lock is not held, or no longer once the transaction is rolled back.
    ///
    /// With Diesel, which hides the server's code, also reported when the lock statement itself was the one that failed;
    /// the source tells.
    TransactionAborted,
    /// The body or the holder of the guard left a transaction open that began under the lock. The connection was closed,
    /// which rolled that transaction back (on SQLite it was rolled back, and the connection stays); the lock is not held.
    TransactionLeftOpen,
    /// The server has no such lock functions, or the adapter no such backend. The lock is not held.
    Unsupported,
}

impl LockErrorKind {
    const fn message(self) -> &'static str {
        match self {
            Self::Canceled => "the server cancelled the lock statement",
            Self::Closed => "the locker is closed",
            Self::CommitFailed => "the transaction under the lock was not committed",
            Self::Database => "the database failed",
            Self::Deadlock => "waiting for the lock would be a deadlock",
            Self::HeldElsewhere => "another session holds the lock",
            Self::InTransaction => {
                "a session-level lock inside an open transaction would be released before the commit: \
                 use a transaction-level lock, or allow it with LockOptions::allow_in_transaction"
            }
            Self::InvalidKey => "the name makes no key in that scheme",
            Self::InvalidOptions => "the lock options contradict each other",
            Self::Lost => "the session ended while the lock was thought to be held",
            Self::NoMutualExclusion => {
                "the backend has no locks, and the caller does not accept that"
            }
            Self::NotHeld => "the session no longer holds the lock: something else released it",
            Self::NotInTransaction => {
                "a transaction-level lock outside a transaction would protect nothing"
            }
            Self::Pool => "the pool gave no connection",
            Self::SessionChanged => {
                "another session answered than the one that was granted the lock: is a transaction pooler in between?"
            }
            Self::TimedOut => "the limit passed before the lock was granted",
            Self::TooManyLocks => "the server's lock table is full",
            Self::TransactionAborted => "the transaction is aborted",
            Self::TransactionLeftOpen => {
                "a transaction begun under the lock was left open, and was rolled back"
            }
            Self::Unsupported => "the server does not have these locks",
        }
    }
}

/// A lock that could not be taken, kept or released.
///
/// [`kind`](Self::kind) tells what happened and whether the lock is held. `Display` prints the kind, the key and the
/// circumstances on one line; the driver's own error is the [`source`](StdError::source).
///
/// Converts into the error type of each client library, so that `?` works in a body that knows only that. The `LockError`
/// can be taken out again:
///
/// | client | arrives as | except |
/// |---|---|---|
/// | Diesel | `diesel::result::Error::QueryBuilderError`, whose box downcasts to `LockError` | a failed commit, which arrives as Diesel's own error |
/// | SeaORM | `sea_orm::DbErr::TryIntoErr`, whose source downcasts to `LockError` | a failed commit, which arrives as SeaORM's own error |
/// | rusqlite | `rusqlite::Error::ToSqlConversionFailure`, whose box downcasts to `LockError` | a failed commit, which arrives as rusqlite's own error |
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockError, LockErrorKind};
///
/// let error = LockError::new(LockErrorKind::TimedOut);
/// assert!(error.kind() == LockErrorKind::TimedOut && !error.is_lost());
/// assert_eq!(error.to_string(), "the limit passed before the lock was granted");
/// ```
pub struct LockError(Box<Inner>);

struct Inner {
    kind: LockErrorKind,
    key: Option<LockKey>,
    because: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl LockError {
    /// An error of a kind, for the author of an adapter or of a test.
    #[must_use]
    pub fn new(kind: LockErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            key: None,
            because: None,
            source: None,
        }))
    }

    /// Adds the key.
    #[must_use]
    pub fn with_key(mut self, key: &LockKey) -> Self {
        self.0.key = Some(key.clone());
        self
    }

    /// Adds the driver's error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds the circumstances.
    #[must_use]
    pub fn with_context(mut self, circumstances: impl Into<Cow<'static, str>>) -> Self {
        self.0.because = Some(circumstances.into());
        self
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> LockErrorKind {
        self.0.kind
    }

    /// The key, where the error is about one.
    #[must_use]
    pub fn key(&self) -> Option<&LockKey> {
        self.0.key.as_ref()
    }

    /// Whether the lock was granted but cannot be vouched for until its release, so that another session may have run at
    /// the same time: [`Lost`](LockErrorKind::Lost), [`NotHeld`](LockErrorKind::NotHeld) and
    /// [`SessionChanged`](LockErrorKind::SessionChanged).
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(
            self.kind(),
            LockErrorKind::Lost | LockErrorKind::NotHeld | LockErrorKind::SessionChanged
        )
    }

    /// The client library's error behind this one, by value; this one again if the source is no `E`.
    ///
    /// # Errors
    ///
    /// This error, unchanged, if its source is no `E`.
    pub fn into_client_error<E: StdError + 'static>(mut self) -> Result<E, Self> {
        match self.0.source.take().map(|source| source.downcast::<E>()) {
            Some(Ok(error)) => Ok(*error),
            Some(Err(source)) => Err(self.with_source(source)),
            None => Err(self),
        }
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.kind.message())?;
        if let Some(because) = &self.0.because {
            write!(formatter, ": {because}")?;
        }
        if let Some(key) = &self.0.key {
            write!(formatter, ": {key}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        formatter
            .debug_struct("LockError")
            .field("kind", &inner.kind)
            .field("key", &inner.key)
            .field("because", &inner.because)
            .field("source", &inner.source)
            .finish()
    }
}

impl StdError for LockError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}
