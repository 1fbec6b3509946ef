//! What two connections are to each other: [`PoolingMode`].

use crate::error::{LockError, LockErrorKind};

/// What a probe of two connections found out about the sessions behind them.
///
/// A pooler that pools transactions is invisible to the locks of one connection as long as nobody else uses the pooler. Two connections
/// bring it to light, so a program whose session-level locks matter probes when it starts.
///
/// # Examples
///
/// Refusing to start where session-level locks do not work:
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
/// # let manager = ConnectionManager::new(std::env::var("DATABASE_URL").expect("DATABASE_URL names a PostgreSQL server"));
/// # check(&Pool::builder().max_size(2).build(manager).unwrap()).unwrap();
/// # }
/// ```
#[non_exhaustive]
#[must_use = "a probe changes nothing by itself"]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PoolingMode {
    /// Each connection kept a session of its own, and a lock held on one was refused to the other. The connections are direct, or a
    /// pooler stands in between that keeps a session for a client as long as the client is connected. All locks work.
    Dedicated,
    /// A session was given to both, or one was given several, or took back what was set in it: a pooler stands in between that
    /// pools transactions or statements. Session-level locks do not work; transaction-level locks do, if it pools transactions.
    Multiplexed,
    /// A lock held on one was granted to the other: they are connected to different servers or databases. No lock works.
    DifferentServers,
    /// The backend has no locks.
    NoLocks,
}

impl PoolingMode {
    /// An error, unless session-level locks work.
    ///
    /// # Errors
    ///
    /// Nothing was locked.
    ///
    /// * [`SessionChanged`](LockErrorKind::SessionChanged): [`Shared`](Self::Multiplexed).
    /// * [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion): [`Apart`](Self::DifferentServers) and
    ///   [`WithoutLocks`](Self::NoLocks).
    pub fn require_dedicated_sessions(self) -> Result<(), LockError> {
        match self {
            Self::Dedicated => Ok(()),
            Self::Multiplexed => Err(LockError::new(LockErrorKind::SessionChanged)
                .with_context("two connections were probed; take transaction-level locks here")),
            Self::DifferentServers => Err(LockError::new(LockErrorKind::NoMutualExclusion)
                .with_context(
                    "two connections were probed, and reach different servers or databases",
                )),
            Self::NoLocks => Err(LockError::new(LockErrorKind::NoMutualExclusion)),
        }
    }
}
