//! The public API of the lock manager: [`LockManager`].
//!
//! # Implementation details
//!
//! Every call is a future over [`Shared`](super::shared::Shared), whatever the pool. An async
//! method returns that future; its `*_blocking` twin runs it with `pollster` on the caller's
//! thread. Sessions of an async pool run on tasks of a tokio runtime. Sessions of a blocking pool
//! run on threads of their own, with [`BlockingPool`] as the adapter.
//!
//! A call may poll the session that it sends a statement to, which saves two context switches (see
//! [`SessionTask`]). Over a blocking pool that poll runs the whole statement. So only a blocking
//! caller may do it there: an async caller would block its executor.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use futures_util::future::{Either, select};
#[cfg(feature = "async-lock-manager")]
use tokio::runtime::Handle as RuntimeHandle;

use super::blocking_adapter::BlockingPool;
use super::core::RequestKind;
use super::guard::{OwnedLockGuard, OwnedLockGuards};
use super::options::LockManagerOptions;
use super::request::{Handle, contended_to_none};
use super::session_loop::run_session;
use super::session_task::SessionTask;
use super::shared::{Caller, Shared};
#[cfg(feature = "async-lock-manager")]
use crate::backends::RuntimeBound;
use crate::combine_results::combine_results;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
#[cfg(feature = "async-lock-manager")]
use crate::session::AsyncLockPool;
use crate::session::{AsyncBody, LockPool};

/// A lock manager for a whole process: locks of many callers and many keys over few sessions.
///
/// A lock on a connection occupies one connection per holder and per waiter. A lock manager owns a
/// few sessions of a pool and serves all its callers with them:
///
/// * Callers that want the same key queue in memory, in order of arrival. Only the first requests
///   the lock from the server. A released lock is handed off to the next waiter without a round
///   trip, up to the [hand-off limit](LockManagerOptions::hand_off_limit). Then it is released to
///   the server, for other processes.
/// * Locks of different keys share a session. Concurrent requests are sent in one statement.
/// * A guard is `'static` and `Send`. It has no connection: work on a connection of your pool.
/// * Loss of a session marks the guards of its locks ([`is_lost`](OwnedLockGuard::is_lost),
///   [`lost`](OwnedLockGuard::lost)). The lock manager opens a new session and serves the waiters
///   on it. It never re-acquires a lost lock by itself.
///
/// The locks are ordinary advisory locks: they exclude every other client of the database.
///
/// Cloning is cheap; all clones are one lock manager.
///
/// # Contract
///
/// * Locks are not re-entrant: a caller that requests a key that it holds waits for itself. (The
///   server counts repeated locks of one connection.)
/// * `Ok` from a release is confirmed by the server: the lock was held until then, also if it was
///   handed off.
/// * Dropping the last clone releases all locks in the background. Guards that still exist then
///   report a loss.
/// * On SQLite every request is granted, or the locks exclude within this lock manager:
///   [`LockManagerOptions::on_no_lock_backend`]. Fencing tokens count within the lock manager
///   there.
///
/// # Pools
///
/// | constructor | pools | sessions run on |
/// |---|---|---|
/// | `over_async_pool` | bb8, deadpool and mobc of diesel-async, SeaORM's `DatabaseConnection`; feature `async-lock-manager` | tasks of the current tokio runtime |
/// | `over_blocking_pool` | Diesel's r2d2; feature `lock-manager` | threads of their own |
///
/// Each pool serves both kinds of callers:
///
/// | caller | async pool | blocking pool |
/// |---|---|---|
/// | async: `acquire(…).await` | on any executor | on any executor, without tokio as well |
/// | blocking: `acquire_blocking(…)` | while the pool's runtime runs | on any thread |
///
/// A blocking client cannot cancel a statement. So a session of a blocking pool whose network fails
/// silently is replaced after the [keep-alive](LockManagerOptions::keep_alive), and a wait ends at
/// its limit. But its thread lasts until the operating system closes the connection, and so does a
/// blocking call that does not wait or that releases. TCP keep-alive settings of the client bound
/// that time.
///
/// # Blocking callers
///
/// The methods named `*_blocking` block their thread, as tokio's `blocking_*` methods do.
///
/// * In a task of a tokio runtime, or in its `block_on`, they **panic** before they request
///   anything. Call the async method there, or use [`spawn_blocking`] or [`block_in_place`].
///   Without the feature `async-lock-manager` the crate does not know of tokio, and they block the
///   executor.
/// * Over an async pool they need the runtime of that pool to run. If it is a `current_thread`
///   runtime and no thread drives it, they wait until one does, also beyond their limit.
///
/// [`spawn_blocking`]: https://docs.rs/tokio/1/tokio/task/fn.spawn_blocking.html
/// [`block_in_place`]: https://docs.rs/tokio/1/tokio/task/fn.block_in_place.html
///
/// # Examples
///
#[cfg_attr(
    all(
        feature = "async-lock-manager",
        feature = "diesel-async-sqlite",
        feature = "bb8"
    ),
    doc = "```"
)]
#[cfg_attr(
    not(all(
        feature = "async-lock-manager",
        feature = "diesel-async-sqlite",
        feature = "bb8"
    )),
    doc = "```ignore"
)]
/// use std::time::Duration;
/// use advisory_locking::{LockOptions, lock_manager::LockManager};
/// use diesel::sqlite::SqliteConnection;
/// use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8::Pool};
/// use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production, a pool of `AsyncPgConnection`s, or SeaORM's `DatabaseConnection`.
/// type Connection = SyncConnectionWrapper<SqliteConnection>;
/// let connections = AsyncDieselConnectionManager::<Connection>::new(":memory:");
/// let pool = Pool::builder().max_size(2).build(connections).await?;
/// let manager = LockManager::over_async_pool(pool.clone())?;
///
/// let wait = LockOptions::wait_up_to(Duration::from_secs(5));
/// let guard = manager.acquire(("sync", 42), wait).await?;
/// // … the work, on a connection of `pool` …
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
///
/// With threads:
///
#[cfg_attr(all(feature = "diesel-sqlite", feature = "r2d2"), doc = "```")]
#[cfg_attr(
    not(all(feature = "diesel-sqlite", feature = "r2d2")),
    doc = "```ignore"
)]
/// use std::time::Duration;
/// use advisory_locking::{LockOptions, lock_manager::LockManager};
/// use diesel::r2d2::{ConnectionManager, Pool};
/// use diesel::sqlite::SqliteConnection;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production, a pool of `PgConnection`s.
/// let connections = ConnectionManager::<SqliteConnection>::new(":memory:");
/// let pool = Pool::builder().max_size(2).build(connections)?;
/// let manager = LockManager::over_blocking_pool(pool.clone())?;
///
/// let wait = LockOptions::wait_up_to(Duration::from_secs(5));
/// let guard = manager.acquire_blocking(("sync", 42), wait)?;
/// // … the work, on a connection of `pool` …
/// guard.release_blocking()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LockManager {
    pub(super) handle: Arc<Handle>,
}

impl LockManager {
    /// Creates a lock manager with the default [options](LockManagerOptions) over an async pool.
    ///
    /// Its sessions run on the current tokio runtime. It opens no connection before the first call.
    ///
    /// # Errors
    ///
    /// As [`over_async_pool_with`](Self::over_async_pool_with).
    #[cfg(feature = "async-lock-manager")]
    pub fn over_async_pool<P>(pool: P) -> Result<Self, LockError>
    where
        P: AsyncLockPool<Connection: 'static> + Send + 'static,
    {
        Self::over_async_pool_with(pool, LockManagerOptions::new())
    }

    /// Creates a lock manager with options over an async pool.
    ///
    /// Its sessions run on the current tokio runtime. It opens no connection before the first call.
    ///
    /// # Errors
    ///
    /// [`InvalidOptions`](LockErrorKind::InvalidOptions): the options cannot work, or the caller is
    /// outside a tokio runtime.
    #[cfg(feature = "async-lock-manager")]
    pub fn over_async_pool_with<P>(pool: P, options: LockManagerOptions) -> Result<Self, LockError>
    where
        P: AsyncLockPool<Connection: 'static> + Send + 'static,
    {
        options.validate()?;
        // The handle is kept, because a call may start a session on a thread outside the runtime.
        let runtime = RuntimeHandle::try_current().map_err(|error| {
            let context = "a lock manager over an async pool is created in a tokio runtime";
            let invalid = LockError::new(LockErrorKind::InvalidOptions);
            invalid.with_context(context).with_source(error)
        })?;
        let pool = Arc::new(pool);
        let sessions = runtime.clone();
        let accepted = options.0.accepted_servers;
        let shared = Shared::new(
            options.0,
            false,
            Box::new(move |shared, id, commands| {
                let session = run_session(shared, Arc::clone(&pool), accepted, id, commands);
                let session = RuntimeBound::new(Box::pin(session), Some(sessions.clone()), drop);
                let task = SessionTask::new(session);
                sessions.spawn(Arc::clone(&task).run());
                Some(task)
            }),
        );
        runtime.spawn(Arc::clone(&shared).run_timer());
        Ok(Self::new(shared))
    }

    /// Creates a lock manager with the default [options](LockManagerOptions) over a blocking pool.
    ///
    /// It opens no connection before the first call.
    ///
    /// # Errors
    ///
    /// As [`over_blocking_pool_with`](Self::over_blocking_pool_with).
    pub fn over_blocking_pool<P>(pool: P) -> Result<Self, LockError>
    where
        P: LockPool<Connection: Send + 'static> + Send + Sync + 'static,
    {
        Self::over_blocking_pool_with(pool, LockManagerOptions::new())
    }

    /// Creates a lock manager with options over a blocking pool.
    ///
    /// Each session runs on a thread of its own, and so does the timer. It opens no connection
    /// before the first call.
    ///
    /// # Errors
    ///
    /// * [`InvalidOptions`](LockErrorKind::InvalidOptions): the options cannot work.
    /// * [`Pool`](LockErrorKind::Pool): the operating system did not start the timer's thread.
    pub fn over_blocking_pool_with<P>(
        pool: P,
        options: LockManagerOptions,
    ) -> Result<Self, LockError>
    where
        P: LockPool<Connection: Send + 'static> + Send + Sync + 'static,
    {
        options.validate()?;
        let pool = Arc::new(BlockingPool(pool));
        let accepted = options.0.accepted_servers;
        let shared = Shared::new(
            options.0,
            true,
            Box::new(move |shared, id, commands| {
                let task = SessionTask::new(run_session(
                    shared,
                    Arc::clone(&pool),
                    accepted,
                    id,
                    commands,
                ));
                // If no thread starts, the session future is dropped, which reports it to the core.
                spawn_thread(Arc::clone(&task).run()).ok().map(|()| task)
            }),
        );
        spawn_thread(Arc::clone(&shared).run_timer())
            .map_err(|error| LockError::new(LockErrorKind::Pool).with_source(error))?;
        Ok(Self::new(shared))
    }

    fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle::new(shared)),
        }
    }

    /// Acquires the lock on `key`; the guard holds it.
    ///
    /// # Errors
    ///
    /// The lock is not held.
    ///
    /// | kind | meaning |
    /// |---|---|
    /// | [`HeldElsewhere`](LockErrorKind::HeldElsewhere) | contended, and the options do not wait; another caller of this process may be the holder |
    /// | [`TimedOut`](LockErrorKind::TimedOut) | the limit of the wait elapsed |
    /// | [`Pool`](LockErrorKind::Pool) | no session could be opened, or not within the limit; after a loss, waiters retry until their limit |
    /// | [`InvalidOptions`](LockErrorKind::InvalidOptions) | the options contradict each other, allow a transaction, or accept a server |
    /// | [`Closed`](LockErrorKind::Closed) | the lock manager is closed, or its runtime has ended |
    /// | [`TooManyLocks`](LockErrorKind::TooManyLocks), [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion), [`Standby`](LockErrorKind::Standby), [`Deadlock`](LockErrorKind::Deadlock), [`Unsupported`](LockErrorKind::Unsupported), [`Database`](LockErrorKind::Database) | see [`LockErrorKind`] |
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
        let lock = self
            .handle
            .acquire(key.into(), options, RequestKind::Plain, Caller::Async);
        lock.await.map(OwnedLockGuard::new)
    }

    /// Acquires as [`acquire`](Self::acquire) does, and blocks the thread until the response.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). The lock is not held.
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
        block_on(|| {
            self.handle
                .acquire(key, options, RequestKind::Plain, Caller::Blocking)
        })
        .map(OwnedLockGuard::new)
    }

    /// Acquires the lock on `key`, or returns `None` if it is contended or the limit elapsed.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), except for `HeldElsewhere` and `TimedOut`. The lock is not
    /// held.
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
    /// As [`try_acquire`](Self::try_acquire). The lock is not held.
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
    /// As [`acquire`](Self::acquire). Also [`InvalidOptions`](LockErrorKind::InvalidOptions) if the
    /// configured sequence does not strictly increase. The lock is not held.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_fenced(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<OwnedLockGuard, LockError> {
        let lock = self
            .handle
            .acquire(key.into(), options, RequestKind::Fenced, Caller::Async);
        lock.await.map(OwnedLockGuard::new)
    }

    /// Acquires as [`acquire_fenced`](Self::acquire_fenced) does, and blocks the thread until the
    /// response.
    ///
    /// # Errors
    ///
    /// As [`acquire_fenced`](Self::acquire_fenced). The lock is not held.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers).
    #[track_caller]
    pub fn acquire_fenced_blocking(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<OwnedLockGuard, LockError> {
        let key = key.into();
        block_on(|| {
            self.handle
                .acquire(key, options, RequestKind::Fenced, Caller::Blocking)
        })
        .map(OwnedLockGuard::new)
    }

    /// Acquires as [`try_acquire`](Self::try_acquire) does, with a
    /// [fencing token](OwnedLockGuard::fencing_token).
    ///
    /// # Errors
    ///
    /// As [`acquire_fenced`](Self::acquire_fenced), except for `HeldElsewhere` and `TimedOut`. The
    /// lock is not held.
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
    /// As [`try_acquire_fenced`](Self::try_acquire_fenced). The lock is not held.
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
    /// As [`acquire`](Self::acquire), for the first key that was not granted. None is held.
    /// [`TooManyLocks`](LockErrorKind::TooManyLocks) also for more than 10,000 keys, before
    /// anything is requested.
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
        locks.await.map(OwnedLockGuards::new)
    }

    /// Acquires as [`acquire_all`](Self::acquire_all) does, and blocks the thread until the
    /// response.
    ///
    /// # Errors
    ///
    /// As [`acquire_all`](Self::acquire_all). None is held.
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
        block_on(|| self.handle.acquire_all(keys, options, Caller::Blocking))
            .map(OwnedLockGuards::new)
    }

    /// Acquires the locks on all the keys, or returns `None` if one is contended or the limit
    /// elapsed.
    ///
    /// # Errors
    ///
    /// As [`acquire_all`](Self::acquire_all), except for `HeldElsewhere` and `TimedOut`. None is
    /// held.
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
    /// As [`try_acquire_all`](Self::try_acquire_all). None is held.
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

    /// Runs `body` under the lock on `key`. Write the body as `async |guard| { … }`.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`release`](OwnedLockGuard::release). The body's error has
    /// precedence. The lock is not held afterwards.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire). Dropping the future while the body runs drops the body and
    /// releases the lock.
    pub fn with_lock<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
            + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let guard = self.acquire(key, options).await?;
            let result = body(&guard).await;
            combine_results(result, guard.release().await)
        }
    }

    /// Runs `body` under the lock on `key` on this thread, and blocks it meanwhile.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock). The lock is not held afterwards.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers). A panic of the
    /// body releases the lock.
    #[track_caller]
    pub fn with_lock_blocking<T, E: From<LockError>>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&OwnedLockGuard) -> Result<T, E>,
    ) -> Result<T, E> {
        let guard = self.acquire_blocking(key, options)?;
        let result = body(&guard);
        combine_results(result, guard.release_blocking())
    }

    /// Runs `body` under the lock on `key`, or returns `None` if it is contended or the limit
    /// elapsed. Then the body did not run.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock), except for `HeldElsewhere` and `TimedOut`. The lock is
    /// not held afterwards.
    ///
    /// # Cancel safety
    ///
    /// As [`with_lock`](Self::with_lock).
    pub fn try_with_lock<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
            + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let Some(guard) = self.try_acquire(key, options).await? else {
                return Ok(None);
            };
            let result = body(&guard).await;
            combine_results(result, guard.release().await).map(Some)
        }
    }

    /// Runs `body` as [`with_lock_blocking`](Self::with_lock_blocking) does, or returns `None` if
    /// the lock is contended or the limit elapsed. Then the body did not run.
    ///
    /// # Errors
    ///
    /// As [`try_with_lock`](Self::try_with_lock). The lock is not held afterwards.
    ///
    /// # Panics
    ///
    /// As [`with_lock_blocking`](Self::with_lock_blocking).
    #[track_caller]
    pub fn try_with_lock_blocking<T, E: From<LockError>>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&OwnedLockGuard) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let Some(guard) = self.try_acquire_blocking(key, options)? else {
            return Ok(None);
        };
        let result = body(&guard);
        combine_results(result, guard.release_blocking()).map(Some)
    }

    /// Runs `body` as [`with_lock`](Self::with_lock) does, and drops it when the lock is lost.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock). [`Lost`](LockErrorKind::Lost) as soon as the loss is
    /// known. The lock is not held afterwards.
    ///
    /// # Cancel safety
    ///
    /// As [`with_lock`](Self::with_lock).
    pub fn with_lock_while_held<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r OwnedLockGuard) -> Result<T, E>
            + AsyncBody<&'r OwnedLockGuard, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let guard = self.acquire(key, options).await?;
            // The body is polled first, so its result counts if the loss becomes known with it.
            let result = match select(pin!(body(&guard)), pin!(guard.lost())).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            };
            match result {
                Some(result) => combine_results(result, guard.release().await),
                None => Err(LockError::new(LockErrorKind::Lost)
                    .with_key(guard.key())
                    .into()),
            }
        }
    }

    /// Closes the lock manager for all its clones.
    ///
    /// It rejects the waiters and all later calls with [`Closed`](LockErrorKind::Closed), waits for
    /// the holders to release, and returns the connections to the pool. A caller that holds a guard
    /// waits for itself here. To release all locks at once, drop the last clone.
    ///
    /// A connection that the pool has not yet returned is not awaited. Closing the pool first has
    /// the same effect if the pool reports it
    /// ([`AsyncLockPool::closed`](crate::session::AsyncLockPool::closed)): SeaORM's does.
    ///
    /// Over a blocking pool it does not wait for a session that waits on the server or whose server
    /// does not reply. The thread of that session ends with its statement, and releases a lock that
    /// was granted too late.
    ///
    /// # Cancel safety
    ///
    /// The lock manager is closed from the first poll on. Dropping the future only ends the wait.
    pub async fn close(&self) {
        self.handle.close().await;
    }

    /// Closes as [`close`](Self::close) does, and blocks the thread until the holders have
    /// released.
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](Self#blocking-callers).
    #[track_caller]
    pub fn close_blocking(&self) {
        block_on(|| self.handle.close());
    }
}

/// Runs a call to its end on this thread.
///
/// The call is created in here, so that nothing was requested if this panics.
#[track_caller]
pub(super) fn block_on<F: Future>(call: impl FnOnce() -> F) -> F::Output {
    // A parked executor thread stalls its tasks, which may be the sessions that this call needs.
    // `Handle::block_on` panics on such a thread, but not in `spawn_blocking` or `block_in_place`.
    #[cfg(feature = "async-lock-manager")]
    if let Ok(runtime) = RuntimeHandle::try_current() {
        runtime.block_on(std::future::ready(()));
    }
    pollster::block_on(call())
}

/// Runs a future on a thread of its own.
fn spawn_thread(future: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let thread = thread::Builder::new().name("advisory-locking".to_owned());
    thread.spawn(|| pollster::block_on(future)).map(drop)
}

impl fmt::Debug for LockManager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LockManager")
            .finish_non_exhaustive()
    }
}
