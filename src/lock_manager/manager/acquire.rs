//! Methods of [`LockManager`] that return a guard.

use super::{LockManager, block_on};
use crate::error::{LockError, contended_to_none};
use crate::key::LockKey;
use crate::lock_manager::core::RequestKind;
use crate::lock_manager::guard::{OwnedLockGuard, OwnedLockGuards};
use crate::lock_manager::shared::Caller;
use crate::options::LockOptions;

impl LockManager {
    /// Acquires the lock on `key`; the guard holds it.
    ///
    /// # Errors
    ///
    /// The lock is not held, with one exception in this table.
    ///
    /// | kind | meaning |
    /// |---|---|
    /// | [`HeldElsewhere`](crate::LockErrorKind::HeldElsewhere) | contended, and the options do not wait; another caller of this process may be the holder |
    /// | [`TimedOut`](crate::LockErrorKind::TimedOut) | the limit of the wait passed |
    /// | [`Pool`](crate::LockErrorKind::Pool) | no session could be opened, or not within the limit; after a loss, waiters retry until their limit. Also in place of `Unsupported` if the client hides the SQLSTATE, as Diesel does |
    /// | [`InvalidOptions`](crate::LockErrorKind::InvalidOptions) | the options are not valid, allow a transaction, or accept a server |
    /// | [`Closed`](crate::LockErrorKind::Closed) | the lock manager is closed, or its runtime has ended |
    /// | [`SessionChanged`](crate::LockErrorKind::SessionChanged) | another server session replied. This is the exception: a session of a pooler may hold the lock |
    /// | [`TooManyLocks`](crate::LockErrorKind::TooManyLocks), [`NoMutualExclusion`](crate::LockErrorKind::NoMutualExclusion), [`Standby`](crate::LockErrorKind::Standby), [`Deadlock`](crate::LockErrorKind::Deadlock), [`Canceled`](crate::LockErrorKind::Canceled), [`Unsupported`](crate::LockErrorKind::Unsupported), [`Database`](crate::LockErrorKind::Database) | see [`LockErrorKind`](crate::LockErrorKind) |
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point removes the request from its queue; its position is lost.
    /// A lock that was just granted is released.
    pub async fn acquire(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<OwnedLockGuard, LockError> {
        let (kind, caller) = (RequestKind::Plain, Caller::Async);
        self.handle.acquire(key.into(), options, kind, caller).await
    }

    /// Acquires as [`acquire`](Self::acquire) does, and blocks the thread until the response.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). The lock is not held, with the exception stated there.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers).
    #[track_caller]
    pub fn acquire_blocking(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<OwnedLockGuard, LockError> {
        let key = key.into();
        let (kind, caller) = (RequestKind::Plain, Caller::Blocking);
        block_on(|| self.handle.acquire(key, options, kind, caller))
    }

    /// Acquires the lock on `key`, or returns `None` if it is contended or the limit passed.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), except for `HeldElsewhere` and `TimedOut`. The lock is not
    /// held, with the exception stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuard>, LockError> {
        contended_to_none(self.acquire(key, options).await)
    }

    /// Acquires as [`try_acquire`](Self::try_acquire) does, and blocks the thread until the
    /// response.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire). The lock is not held, with the exception stated
    /// there.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers).
    #[track_caller]
    pub fn try_acquire_blocking(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuard>, LockError> {
        contended_to_none(self.acquire_blocking(key, options))
    }

    /// Acquires as [`acquire`](Self::acquire) does, with a
    /// [fencing token](OwnedLockGuard::fencing_token).
    ///
    /// The statement that grants the lock also issues the token. After a hand-off, the token costs
    /// a round trip.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). Also [`InvalidOptions`](crate::LockErrorKind::InvalidOptions)
    /// if the configured sequence does not strictly increase. The lock is not held, with the
    /// exception stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Examples
    ///
    /// See [`acquire_fenced_blocking`](Self::acquire_fenced_blocking).
    pub async fn acquire_fenced(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<OwnedLockGuard, LockError> {
        let (kind, caller) = (RequestKind::Fenced, Caller::Async);
        self.handle.acquire(key.into(), options, kind, caller).await
    }

    /// Acquires as [`acquire_fenced`](Self::acquire_fenced) does, and blocks the thread until the
    /// response.
    ///
    /// # Errors
    ///
    /// As [`acquire_fenced`](Self::acquire_fenced). The lock is not held, with the exception stated
    /// there.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers).
    ///
    /// # Examples
    ///
    #[cfg_attr(all(feature = "diesel-sqlite", feature = "r2d2"), doc = "```")]
    #[cfg_attr(
        not(all(feature = "diesel-sqlite", feature = "r2d2")),
        doc = "```ignore"
    )]
    /// use advisory_locking::LockOptions;
    /// use advisory_locking::lock_manager::{LockManager, LockManagerOptions, NoLockBackend};
    /// use diesel::r2d2::{ConnectionManager, Pool};
    /// use diesel::sqlite::SqliteConnection;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // In production the pool of a PostgreSQL client.
    /// let pool = Pool::new(ConnectionManager::<SqliteConnection>::new(":memory:"))?;
    /// let options = LockManagerOptions::new().on_no_lock_backend(NoLockBackend::InProcess);
    /// let locks = LockManager::over_blocking_pool_with(pool, options)?;
    /// let first = locks.acquire_fenced_blocking("fenced", LockOptions::no_wait())?;
    /// let token = first.fencing_token();
    /// first.release_blocking()?;
    /// let second = locks.acquire_fenced_blocking("fenced", LockOptions::no_wait())?;
    /// assert!(second.fencing_token() > token); // the storage rejects writes with the first one
    /// second.release_blocking()?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn acquire_fenced_blocking(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<OwnedLockGuard, LockError> {
        let key = key.into();
        let (kind, caller) = (RequestKind::Fenced, Caller::Blocking);
        block_on(|| self.handle.acquire(key, options, kind, caller))
    }

    /// Acquires as [`try_acquire`](Self::try_acquire) does, with a
    /// [fencing token](OwnedLockGuard::fencing_token).
    ///
    /// # Errors
    ///
    /// As [`acquire_fenced`](Self::acquire_fenced), except for `HeldElsewhere` and `TimedOut`. The
    /// lock is not held, with the exception stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire_fenced(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuard>, LockError> {
        contended_to_none(self.acquire_fenced(key, options).await)
    }

    /// Acquires as [`try_acquire_fenced`](Self::try_acquire_fenced) does, and blocks the thread
    /// until the response.
    ///
    /// # Errors
    ///
    /// As [`try_acquire_fenced`](Self::try_acquire_fenced). The lock is not held, with the
    /// exception stated there.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers).
    #[track_caller]
    pub fn try_acquire_fenced_blocking(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuard>, LockError> {
        contended_to_none(self.acquire_fenced_blocking(key, options))
    }

    /// Acquires the locks on all the keys, or none of them; a repeated key counts once.
    ///
    /// The lock manager requests the keys in ascending order of their raw keys. So callers that
    /// name them in different orders cannot deadlock. Up to 1,000 free keys are granted in one
    /// round trip. A call acquires at most 10,000 keys. The limit applies to the whole call.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), for the first key that was not granted. None is held, with
    /// the exception stated there. [`TooManyLocks`](crate::LockErrorKind::TooManyLocks) also for
    /// more than 10,000 keys, before anything is requested.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire): none is held.
    pub async fn acquire_all<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: LockOptions,
    ) -> Result<OwnedLockGuards, LockError> {
        let keys = keys.into_iter().map(Into::into).collect();
        let locks = self.handle.acquire_all(keys, options, Caller::Async);
        locks.await.map(OwnedLockGuards)
    }

    /// Acquires as [`acquire_all`](Self::acquire_all) does, and blocks the thread until the
    /// response.
    ///
    /// # Errors
    ///
    /// As [`acquire_all`](Self::acquire_all). None is held, with the exception stated there.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers).
    #[track_caller]
    pub fn acquire_all_blocking<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: LockOptions,
    ) -> Result<OwnedLockGuards, LockError> {
        let keys = keys.into_iter().map(Into::into).collect();
        block_on(|| self.handle.acquire_all(keys, options, Caller::Blocking)).map(OwnedLockGuards)
    }

    /// Acquires the locks on all the keys, or returns `None` if one is contended or the limit
    /// elapsed.
    ///
    /// # Errors
    ///
    /// As [`acquire_all`](Self::acquire_all), except for `HeldElsewhere` and `TimedOut`. None is
    /// held, with the exception stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire): none is held.
    pub async fn try_acquire_all<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuards>, LockError> {
        contended_to_none(self.acquire_all(keys, options).await)
    }

    /// Acquires as [`try_acquire_all`](Self::try_acquire_all) does, and blocks the thread until the
    /// response.
    ///
    /// # Errors
    ///
    /// As [`try_acquire_all`](Self::try_acquire_all). None is held, with the exception stated
    /// there.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers).
    #[track_caller]
    pub fn try_acquire_all_blocking<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuards>, LockError> {
        contended_to_none(self.acquire_all_blocking(keys, options))
    }
}
