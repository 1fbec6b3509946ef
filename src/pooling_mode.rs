//! Result of the pooler check: [`PoolingMode`].

use crate::error::{LockError, LockErrorKind};

/// Relation between the server sessions behind two connections, as `detect_pooler` finds it.
///
/// A transaction pooler assigns a server session to a client for one transaction at a time. A
/// single client cannot detect this while it is the only client of the pooler. The check therefore
/// uses two connections. Programs that rely on session-level locks call `detect_pooler` at startup.
///
/// # Examples
///
/// A program refuses to start if session-level locks do not work:
///
/// ```
/// # #[cfg(all(feature = "diesel-postgres", feature = "r2d2"))] {
/// use advisory_locking::{LockError, PooledAdvisoryLocking};
/// use diesel::pg::PgConnection;
/// use diesel::r2d2::{ConnectionManager, Pool};
///
/// fn check(pool: &Pool<ConnectionManager<PgConnection>>) -> Result<(), LockError> {
///     pool.detect_pooler()?.require_dedicated_sessions()
/// }
/// # let url = std::env::var("DATABASE_URL").expect("DATABASE_URL names a PostgreSQL server");
/// # let manager = ConnectionManager::new(url);
/// # check(&Pool::builder().max_size(2).build(manager).unwrap()).unwrap();
/// # }
/// ```
#[non_exhaustive]
#[must_use = "the result states whether session-level locks work"]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PoolingMode {
    /// Each connection keeps its own session, and the connections exclude each other. They are
    /// direct, or a pooler in session mode keeps one session for each client. All locks work.
    Dedicated,
    /// A pooler multiplexes clients over sessions, and keeps a session for its client while it sees
    /// that the client holds a lock. Session-level locks worked in the check, which polls.
    ///
    /// Such a pooler reads the statements of its clients. With Diesel and diesel-async, a wait with
    /// [`WaitStrategy::Block`](crate::WaitStrategy::Block) is inside a block of code, which the
    /// pooler does not read. The crate also sends the call in a column that the server never
    /// executes. No check shows that the pooler recognizes it, so session-level locks need
    /// [`WaitStrategy::Poll`](crate::WaitStrategy::Poll) here.
    Pinned,
    /// The connections do not keep their own sessions: a pooler multiplexes clients over sessions,
    /// in transaction or statement mode. Session-level locks do not work. Transaction-level locks
    /// work in transaction mode.
    Multiplexed,
    /// The connections do not exclude each other: they reach different servers or databases. No
    /// lock works.
    DifferentServers,
    /// The backend has no locks, for example SQLite.
    NoLocks,
}

impl PoolingMode {
    /// Returns an error unless all session-level locks work.
    ///
    /// A program that polls accepts [`Pinned`](Self::Pinned) before it calls this method.
    ///
    /// # Errors
    ///
    /// No lock is held.
    ///
    /// * [`SessionChanged`](LockErrorKind::SessionChanged) for [`Multiplexed`](Self::Multiplexed)
    ///   and [`Pinned`](Self::Pinned).
    /// * [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion) for
    ///   [`DifferentServers`](Self::DifferentServers) and [`NoLocks`](Self::NoLocks).
    pub fn require_dedicated_sessions(self) -> Result<(), LockError> {
        let pooled =
            |reason| Err(LockError::new(LockErrorKind::SessionChanged).with_context(reason));
        match self {
            Self::Dedicated => Ok(()),
            Self::Pinned => pooled(
                "the pooler check found a pooler that keeps sessions of lock holders; \
                 the check covers only locks that are acquired by polling",
            ),
            Self::Multiplexed => {
                pooled("the pooler check found a transaction pooler; use transaction-level locks")
            }
            Self::DifferentServers | Self::NoLocks => self.require_transaction_locks(),
        }
    }

    /// Returns an error unless transaction-level locks work.
    ///
    /// A pooler in statement mode refuses transactions, so there no body runs.
    ///
    /// # Errors
    ///
    /// [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion) for
    /// [`DifferentServers`](Self::DifferentServers) and [`NoLocks`](Self::NoLocks). No lock is
    /// held.
    ///
    /// # Examples
    ///
    /// ```
    /// use advisory_locking::PoolingMode;
    ///
    /// assert!(PoolingMode::Multiplexed.require_transaction_locks().is_ok());
    /// assert!(PoolingMode::DifferentServers.require_transaction_locks().is_err());
    /// ```
    pub fn require_transaction_locks(self) -> Result<(), LockError> {
        let error = LockError::new(LockErrorKind::NoMutualExclusion);
        match self {
            Self::Dedicated | Self::Pinned | Self::Multiplexed => Ok(()),
            Self::DifferentServers => {
                Err(error.with_context("the pooler check found two different servers or databases"))
            }
            Self::NoLocks => Err(error),
        }
    }
}
