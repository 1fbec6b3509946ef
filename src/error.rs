//! Errors of lock operations: [`LockError`] and its kinds.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::key::LockKey;
use crate::lock_report::LockHolder;

/// Kind of a [`LockError`]. Each kind states whether the lock is held.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LockErrorKind {
    /// The server cancelled the statement. Either
    /// [`pg_cancel_backend`](https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL)
    /// was called, or the application's
    /// [`statement_timeout`](https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-STATEMENT-TIMEOUT)
    /// passed during a statement that does not wait. The lock is not held.
    Canceled,
    /// The lock manager was closed before or during this call. The lock is not held.
    Closed,
    /// The body succeeded, but the commit of its transaction failed. The work is rolled back and
    /// the transaction-level lock is not held.
    ///
    /// Either the server rejected the commit, or it ended the session before the commit.
    CommitFailed,
    /// The body succeeded, and the session was lost during the commit. The work may be committed or
    /// rolled back. The transaction-level lock is not held once the server has noticed the loss.
    ///
    /// A retry may do the work twice. A body that needs the answer stores the value of
    /// `pg_current_xact_id()` outside the database. Later,
    /// [`pg_xact_status`](https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT)
    /// returns whether that transaction was committed.
    ///
    /// Diesel and diesel-async hide the SQLSTATE. So with them this kind is also reported if the
    /// server ended the session just before the commit.
    CommitUnknown,
    /// The client library or the database failed. The lock is not held. If the release could not be
    /// confirmed, the session was terminated.
    Database,
    /// The server detected a
    /// [deadlock](https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-DEADLOCKS)
    /// and ended this wait. The lock is not held. Locks acquired earlier are still held.
    Deadlock,
    /// Another session holds the lock in a conflicting mode. The lock is not held. The `try_*`
    /// methods return `None` or `false` instead.
    HeldElsewhere,
    /// A session-level lock was requested inside an open transaction. Nothing was sent. The lock is
    /// not held.
    ///
    /// A release before the commit would let the next holder read old data. Acquire a
    /// transaction-level lock
    /// ([`with_advisory_xact_lock`](crate::AdvisoryLocking::with_advisory_xact_lock),
    /// [`acquire_advisory_xact_lock`](crate::AdvisoryLocking::acquire_advisory_xact_lock)), or set
    /// [`allow_in_transaction`](crate::LockOptions::allow_in_transaction).
    InTransaction,
    /// The system whose scheme was used rejects this name. Nothing was sent. No lock is held.
    ///
    /// Returned only by functions of the module `schemes`. Every text is a valid [`LockKey`].
    InvalidKey,
    /// The options contradict each other. Nothing was sent. The lock is not held.
    InvalidOptions,
    /// The session ended before the release. The lock is not held. Another session may have held it
    /// before the body ended.
    Lost,
    /// The lock would exclude no other session. The lock is not held. The body did not run.
    ///
    /// * The backend has no locks and the options contain
    ///   [`OnMissingLock::Error`](crate::OnMissingLock::Error).
    /// * The server is known to grant every lock to every session: CockroachDB, or a YugabyteDB
    ///   whose error about missing advisory locks is silenced. The option
    ///   [`trust_server`](crate::LockOptions::trust_server) accepts it.
    NoMutualExclusion,
    /// The server reports that this session does not hold the lock: another statement on the same
    /// connection released it, such as [`DISCARD ALL`]. The lock is not held. Another session may
    /// have held it before the body ended.
    ///
    /// [`DISCARD ALL`]: https://www.postgresql.org/docs/current/sql-discard.html
    ///
    /// For a transaction-level lock, the body ended the transaction itself. What the body committed
    /// stays committed. A transaction that the body began afterwards is rolled back.
    NotHeld,
    /// A transaction-level lock was requested outside a transaction, where it would be released at
    /// once. Nothing was sent. The lock is not held.
    NotInTransaction,
    /// The pool returned no connection within its own timeout or within the limit of the call.
    /// Nothing was sent. The lock is not held. The `try_*` methods return this error too: whether
    /// the lock is free is unknown.
    ///
    /// Each held lock and each waiting call keeps one connection of the pool.
    Pool,
    /// Another session replied than the session that was granted the lock. Either a transaction
    /// pooler multiplexes the connection, or the connection behind the guard was exchanged.
    ///
    /// The client cannot tell which session holds the lock. A session of the pooler may hold it
    /// until the pooler closes that session. Session-level locks need a direct connection or
    /// session pooling. Transaction-level locks also work with transaction pooling, if the pooler
    /// supports prepared statements.
    SessionChanged,
    /// The server is a hot standby, whose locks are not those of its primary. The lock is not held.
    /// The body did not run.
    ///
    /// Connect to the primary. If only sessions of this standby use the lock, set
    /// [`allow_standby`](crate::LockOptions::allow_standby).
    Standby,
    /// The limit passed before the lock was granted. The lock is not held. The `try_*` methods
    /// return `None` or `false` instead.
    TimedOut,
    /// The server's lock table is full. The lock is not held. Do not retry at once; raise
    /// [`max_locks_per_transaction`](https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-MAX-LOCKS-PER-TRANSACTION).
    TooManyLocks,
    /// The transaction is aborted: a statement in it failed, and the server accepts only a
    /// rollback. The lock is not held after that rollback.
    ///
    /// Diesel hides the SQLSTATE, so this kind is also reported if the lock statement itself
    /// failed. The source has the details.
    TransactionAborted,
    /// The body prepared its transaction for two-phase commit. The prepared transaction holds the
    /// lock until
    /// [`COMMIT PREPARED` or `ROLLBACK PREPARED`](https://www.postgresql.org/docs/current/sql-prepare-transaction.html).
    ///
    /// The work is neither committed nor rolled back.
    TransactionPrepared,
    /// The body or the holder of the guard left open a transaction that began under the lock. On
    /// PostgreSQL the session was terminated, which rolled the transaction back. On SQLite the
    /// transaction was rolled back and the connection stays usable. The lock is not held.
    TransactionLeftOpen,
    /// The server lacks the lock functions, or the adapter does not support the backend; the error
    /// says which backend it is. The lock is not held.
    Unsupported,
}

impl LockErrorKind {
    const fn message(self) -> &'static str {
        match self {
            Self::Canceled => {
                "the server cancelled the lock statement (pg_cancel_backend, or statement_timeout)"
            }
            Self::Closed => "the lock manager is closed",
            Self::CommitFailed => "the transaction under the lock was not committed",
            Self::CommitUnknown => {
                "the session was lost during the commit under the lock: whether the work was committed is unknown"
            }
            Self::Database => "the database or the client library failed",
            Self::Deadlock => {
                "waiting for the lock would be a deadlock: acquire locks in the same order everywhere"
            }
            Self::HeldElsewhere => "another session holds the lock",
            Self::InTransaction => {
                "a session-level lock inside an open transaction would be released before the commit: \
                 use with_advisory_xact_lock, or set LockOptions::allow_in_transaction"
            }
            Self::InvalidKey => "the name is not valid in this key scheme",
            Self::InvalidOptions => "the lock options contradict each other",
            Self::Lost => {
                "the session ended before the lock was released: another session may have held it"
            }
            Self::NoMutualExclusion => "the lock would exclude no other session",
            Self::NotHeld => "the session no longer holds the lock: another statement released it",
            Self::NotInTransaction => {
                "a transaction-level lock outside a transaction would protect nothing: \
                 begin one, or use with_advisory_xact_lock"
            }
            Self::Pool => {
                "the pool returned no connection; each held lock and each waiter keeps one"
            }
            Self::SessionChanged => {
                "another session replied than the one that was granted the lock: is there a \
                 transaction pooler? Use transaction-level locks, or a direct connection"
            }
            Self::Standby => {
                "the server is a hot standby, whose locks are not those of its primary"
            }
            Self::TimedOut => "the limit passed before the lock was granted",
            Self::TooManyLocks => {
                "the server's lock table is full: hold fewer locks, or raise max_locks_per_transaction"
            }
            Self::TransactionAborted => "the transaction is aborted: roll it back",
            Self::TransactionPrepared => {
                "the body prepared the transaction, which holds the lock until COMMIT PREPARED or ROLLBACK PREPARED"
            }
            Self::TransactionLeftOpen => {
                "a transaction begun under the lock was left open, and was rolled back: \
                 commit it before the lock is released"
            }
            Self::Unsupported => "this connection is not PostgreSQL or SQLite with these locks",
        }
    }
}

/// Error of an acquire, of a release, or of a held lock that was lost.
///
/// [`kind`](Self::kind) states what happened and whether the lock is held. `Display` prints the
/// kind with a hint, the context, the limit with the time waited, and the key, on one line.
/// [`source`](StdError::source) is the error of the client library. The [text of the
/// key](LockKey::text) may be personal data: see [`LockKey::redacted`].
///
/// Converts into the error type of each client library, so that `?` works in a body with that error
/// type. [`find`](Self::find) gets the `LockError` back, from these errors and from all that
/// contain one:
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
    context: Option<Cow<'static, str>>,
    limit: Option<Duration>,
    waited: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    holders: Vec<LockHolder>,
}

impl LockError {
    /// Creates an error of a kind. Intended for adapters and tests.
    #[must_use]
    pub fn new(kind: LockErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            key: None,
            context: None,
            limit: None,
            waited: None,
            source: None,
            holders: Vec::new(),
        }))
    }

    /// Adds the key of the lock.
    #[must_use]
    pub fn with_key(mut self, key: &LockKey) -> Self {
        self.0.key = Some(key.clone());
        self
    }

    /// Sets the source, usually the error of the client library.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds context, which `Display` prints after the kind.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Cow<'static, str>>) -> Self {
        self.0.context = Some(context.into());
        self
    }

    /// Adds the sessions that hold the lock.
    #[must_use]
    pub(crate) fn with_holders(mut self, holders: Vec<LockHolder>) -> Self {
        self.0.holders = holders;
        self
    }

    /// Returns the sessions that held the lock just after the request failed.
    ///
    /// Empty if the error is none of those that
    /// [`report_holders`](crate::LockOptions::report_holders) lists, if the holder had released the
    /// lock in the meantime, and if the server did not reply. `Display` prints the first one.
    #[must_use]
    pub fn holders(&self) -> &[LockHolder] {
        &self.0.holders
    }

    /// Adds the limit of the call, if it has one, and the time that it waited.
    pub(crate) fn with_wait(mut self, limit: Option<Duration>, waited: Duration) -> Self {
        (self.0.limit, self.0.waited) = (limit, Some(waited));
        self
    }

    /// Returns the limit of the call that timed out: that of
    /// [`wait_up_to`](crate::LockOptions::wait_up_to). `None` for most other kinds.
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        self.0.limit
    }

    /// Returns the time that the call waited, for a connection of its pool and for the lock. `None`
    /// unless the kind is [`TimedOut`](LockErrorKind::TimedOut) or [`Pool`](LockErrorKind::Pool).
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        self.0.waited
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> LockErrorKind {
        self.0.kind
    }

    /// Returns the key of the lock; `None` if the error concerns no single key.
    #[must_use]
    pub fn key(&self) -> Option<&LockKey> {
        self.0.key.as_ref()
    }

    /// Returns `true` if the lock was granted but not held without interruption until its release.
    /// Another session may have run at the same time. True for [`Lost`](LockErrorKind::Lost),
    /// [`NotHeld`](LockErrorKind::NotHeld) and [`SessionChanged`](LockErrorKind::SessionChanged).
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(
            self.kind(),
            LockErrorKind::Lost | LockErrorKind::NotHeld | LockErrorKind::SessionChanged
        )
    }

    /// Returns the source as the client library's error type `E`.
    ///
    /// # Errors
    ///
    /// This error, unchanged, if its source is not an `E`.
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
        if let Some(context) = &self.0.context {
            write!(formatter, ": {context}")?;
        }
        match (self.0.limit, self.0.waited) {
            (Some(limit), Some(waited)) => {
                write!(
                    formatter,
                    ": limit {}, waited {}",
                    Shown(limit),
                    Shown(waited)
                )?;
            }
            (None, Some(waited)) => write!(formatter, ": waited {}", Shown(waited))?,
            (_, None) => {}
        }
        if let Some(key) = &self.0.key {
            write!(formatter, ": {key}")?;
        }
        if let [first, others @ ..] = self.holders() {
            write!(formatter, ", held by {}", first.session)?;
            if !others.is_empty() {
                write!(formatter, " and {} more", others.len())?;
            }
        }
        Ok(())
    }
}

/// A time for a message, in whole milliseconds.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = Duration::new(self.0.as_secs(), self.0.subsec_millis() * 1_000_000);
        // A time below a millisecond would show as zero.
        let shown = if millis.is_zero() { self.0 } else { millis };
        write!(formatter, "{shown:?}")
    }
}

impl fmt::Debug for LockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        formatter
            .debug_struct("LockError")
            .field("kind", &inner.kind)
            .field("key", &inner.key)
            .field("context", &inner.context)
            .field("limit", &inner.limit)
            .field("waited", &inner.waited)
            .field("holders", &inner.holders)
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
