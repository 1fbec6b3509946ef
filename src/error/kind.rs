//! Kinds of errors, with their names and texts: [`LockErrorKind`].

use std::fmt;

#[cfg(doc)]
use super::LockError;

/// Kind of a [`LockError`]. Each kind states whether the lock is held.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LockErrorKind {
    /// The server cancelled the statement. Either
    /// [`pg_cancel_backend`](https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL)
    /// was called, or the application's
    /// [`statement_timeout`](https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-STATEMENT-TIMEOUT)
    /// passed during a statement that does not wait. The lock is not held; in an aborted
    /// transaction, after its rollback.
    Canceled,
    /// The lock manager was closed before or during this call. The lock is not held.
    Closed,
    /// The body succeeded, but the commit of its transaction failed. The work is rolled back and
    /// the transaction-level lock is not held.
    ///
    /// Either the server rejected the commit, or the session was lost before the commit. After such
    /// a loss, the lock is not held once the server has noticed it.
    CommitFailed,
    /// The body succeeded, and the session was lost during the commit. The work may be committed or
    /// rolled back. The transaction-level lock is not held once the server has noticed the loss.
    /// Inside an outer transaction the kind is [`CommitFailed`](Self::CommitFailed), because only
    /// the outer commit would keep the work.
    ///
    /// A retry may do the work twice. A body that needs the answer inserts a row with an id of the
    /// caller: later, the row exists if the work was committed. Or it stores the value of
    /// `pg_current_xact_id()` outside the database, for
    /// [`pg_xact_status`](https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT).
    /// After a crash or a failover of the server, that id may be of another transaction.
    ///
    /// This kind is also reported if the server ended the session before the commit, and the commit
    /// received no SQLSTATE. Diesel and diesel-async hide it. The crate postgres may return that of
    /// an end after the commit. With SeaORM and tokio-postgres, a statement of the body may have
    /// received it instead. sqlx checks the session before it sends the commit.
    CommitUnknown,
    /// The client library or the database failed. The lock is not held. If the release could not be
    /// confirmed, the session was terminated.
    Database,
    /// The server detected a
    /// [deadlock](https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-DEADLOCKS)
    /// and ended this wait. The lock is not held. Locks acquired earlier are still held.
    Deadlock,
    /// Another session holds the lock in a conflicting mode, or waits for that in the server's
    /// queue. The lock is not held. The `try_*` methods return `None` or `false` instead.
    ///
    /// With a lock manager, another caller of the same process may hold the lock or wait for it.
    HeldElsewhere,
    /// A session-level lock, `identify` or `detect_pooler` was requested inside an open
    /// transaction. Nothing was sent. The lock is not held.
    ///
    /// A release before the commit would let the next holder read old data. Acquire a
    /// transaction-level lock
    /// ([`with_advisory_xact_lock`](crate::AdvisoryLocking::with_advisory_xact_lock),
    /// [`acquire_advisory_xact_lock`](crate::AdvisoryLocking::acquire_advisory_xact_lock)), or set
    /// [`allow_in_transaction`](crate::LockOptions::allow_in_transaction).
    InTransaction,
    /// The system whose scheme was used rejects this name. Nothing was sent. No lock is held.
    ///
    /// Returned only by functions of the module `schemes`. Every text is a valid
    /// [`LockKey`](crate::LockKey).
    InvalidKey,
    /// The options contradict each other, one of them cannot work, or the call does not accept it.
    /// Or a lock manager over an async pool was created outside a tokio runtime. The lock is not
    /// held.
    ///
    /// Nothing was sent, with one exception. The server reports a sequence that cannot issue the
    /// fencing tokens of a lock manager.
    InvalidOptions,
    /// The session ended before the release. The lock is not held. Another session may have held it
    /// before the body ended.
    ///
    /// The crate postgres may also report a session that ended right after the release.
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
    /// The pool returned no connection: it could not open one, or all were in use until its own
    /// timeout or the limit of the call. No lock statement was sent. The lock is not held. The
    /// `try_*` methods return this error too: whether the lock is free is unknown.
    ///
    /// Each held lock and each waiting call keeps one connection of the pool. Those of a lock
    /// manager share its sessions.
    Pool,
    /// Another session replied than the session that was granted the lock, or that replied to the
    /// first attempt. Either a transaction pooler multiplexes the connection, or the connection
    /// behind the guard was exchanged.
    /// [`require_dedicated_sessions`](crate::PoolingMode::require_dedicated_sessions) reports a
    /// detected pooler with this kind, too.
    ///
    /// The client cannot tell which session holds the lock. A session of the pooler may hold it
    /// until the pooler closes that session. Session-level locks need a direct connection or
    /// session pooling. Transaction-level locks also work with transaction pooling. With most
    /// clients the pooler must then support prepared statements.
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
    /// The server's lock table is full, or a call of `acquire_all` names more than 10,000 keys. The
    /// lock is not held; in an aborted transaction, after its rollback. Do not retry at once; raise
    /// [`max_locks_per_transaction`](https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-MAX-LOCKS-PER-TRANSACTION).
    TooManyLocks,
    /// The transaction is aborted: a statement in it failed, and the server accepts only a
    /// rollback. The lock is not held after that rollback.
    ///
    /// This kind is also reported if an attempt for a transaction-level lock itself failed, because
    /// that aborts the transaction. The source has the details.
    TransactionAborted,
    /// The body prepared its transaction for two-phase commit. The prepared transaction holds the
    /// lock until
    /// [`COMMIT PREPARED` or `ROLLBACK PREPARED`](https://www.postgresql.org/docs/current/sql-prepare-transaction.html).
    ///
    /// The work is neither committed nor rolled back.
    TransactionPrepared,
    /// A transaction was still open when the lock was to be released. Either the body or the holder
    /// of the guard left it open. Or the lock was acquired in a transaction that the client library
    /// does not know of. On PostgreSQL the session was terminated, which rolled the transaction
    /// back. The lock is not held.
    ///
    /// On SQLite the transaction was rolled back. The connection stays usable with rusqlite and
    /// sqlx. SeaORM returns it to its pool. With Diesel and diesel-async it is marked as broken,
    /// and a pool replaces it.
    TransactionLeftOpen,
    /// The server lacks the lock functions, or the adapter does not support the backend; the error
    /// says which backend it is. The lock is not held.
    Unsupported,
}

/// Prints what happened, and a hint with some kinds: the first part of the text of a [`LockError`].
impl fmt::Display for LockErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.message())
    }
}

impl LockErrorKind {
    /// Returns the name in snake case, such as `held_elsewhere`. It does not change between
    /// releases.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Canceled => "canceled",
            Self::Closed => "closed",
            Self::CommitFailed => "commit_failed",
            Self::CommitUnknown => "commit_unknown",
            Self::Database => "database",
            Self::Deadlock => "deadlock",
            Self::HeldElsewhere => "held_elsewhere",
            Self::InTransaction => "in_transaction",
            Self::InvalidKey => "invalid_key",
            Self::InvalidOptions => "invalid_options",
            Self::Lost => "lost",
            Self::NoMutualExclusion => "no_mutual_exclusion",
            Self::NotHeld => "not_held",
            Self::NotInTransaction => "not_in_transaction",
            Self::Pool => "pool",
            Self::SessionChanged => "session_changed",
            Self::Standby => "standby",
            Self::TimedOut => "timed_out",
            Self::TooManyLocks => "too_many_locks",
            Self::TransactionAborted => "transaction_aborted",
            Self::TransactionPrepared => "transaction_prepared",
            Self::TransactionLeftOpen => "transaction_left_open",
            Self::Unsupported => "unsupported",
        }
    }

    /// Returns the text of the kind, with a hint.
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
            Self::InTransaction => "a transaction is open on the connection",
            Self::InvalidKey => "the name is not valid in this key scheme",
            Self::InvalidOptions => "the options are not valid",
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
                "the pool returned no connection: it could not open one, or all are in use; each \
                 held lock and each waiter keeps one"
            }
            Self::SessionChanged => {
                "the connection does not always keep its server session: is there a transaction \
                 pooler? Use transaction-level locks, or a direct connection"
            }
            Self::Standby => {
                "the server is a hot standby, whose locks are not those of its primary"
            }
            Self::TimedOut => "the limit passed before the lock was granted",
            Self::TooManyLocks => {
                "too many locks: hold fewer, or raise the server's max_locks_per_transaction"
            }
            Self::TransactionAborted => "the transaction is aborted: roll it back",
            Self::TransactionPrepared => {
                "the body prepared the transaction, which holds the lock until COMMIT PREPARED or ROLLBACK PREPARED"
            }
            Self::TransactionLeftOpen => {
                "a transaction was left open until the release of the lock, and was rolled back: \
                 commit it before the lock is released"
            }
            Self::Unsupported => "the server or the adapter of this connection has no such locks",
        }
    }
}
