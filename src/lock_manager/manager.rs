//! The public API of the lock manager: [`LockManager`].
//!
//! # Implementation details
//!
//! Every call is a future over [`Shared`], whatever the pool. An async method returns that future;
//! its `*_blocking` twin runs it with `pollster` on the caller's thread. Sessions of an async pool
//! run on tasks of a tokio runtime. Sessions of a blocking pool run on threads of their own, with
//! [`BlockingPool`] as the adapter.
//!
//! A call may poll the session that it sends a statement to, which saves two context switches (see
//! [`SessionTask`]). Over a blocking pool that poll runs the whole statement. So only a blocking
//! caller may do it there: an async caller would block its executor.

mod acquire;
mod body;

use std::fmt;
use std::sync::Arc;
use std::thread;

#[cfg(feature = "async-lock-manager")]
use tokio::runtime::Handle as RuntimeHandle;

use super::blocking_adapter::BlockingPool;
use super::options::LockManagerOptions;
use super::request::Handle;
use super::session_loop::run_session;
use super::session_task::SessionTask;
use super::shared::Shared;
use super::snapshot::LockManagerSnapshot;
#[cfg(feature = "async-lock-manager")]
use crate::backends::RuntimeBound;
use crate::error::{LockError, LockErrorKind};
#[cfg(feature = "async-lock-manager")]
use crate::session::AsyncLockPool;
use crate::session::LockPool;

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
/// * Loss of a session marks the guards of its locks ([`is_lost`](super::OwnedLockGuard::is_lost),
///   [`lost`](super::OwnedLockGuard::lost)). The lock manager opens a new session and serves the
///   waiters on it. It never re-acquires a lost lock by itself.
///
/// The locks are ordinary advisory locks: they exclude every other client of the database.
///
/// Cloning is cheap; all clones are one lock manager.
///
/// # Contract
///
/// * Locks are not re-entrant: a caller that requests a key that it holds waits for itself. (The
///   server counts repeated locks of one connection.)
/// * The lock manager does not see the transactions of a caller. Commit before the release, so that
///   the next holder reads the data. If a body is dropped, the lock may be released while a
///   statement or a commit of the body still runs.
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
/// | pools | constructor | feature | sessions run on |
/// |---|---|---|---|
/// | bb8, deadpool and mobc of diesel-async; bb8-postgres, deadpool-postgres; SeaORM's `DatabaseConnection`; sqlx's `PgPool`, `SqlitePool` | `over_async_pool` | `async-lock-manager` | tasks of the current tokio runtime |
/// | r2d2 of Diesel, of rusqlite, and r2d2_postgres | `over_blocking_pool` | `lock-manager` | threads of their own |
///
/// The client decides when holders learn that the server has closed a connection: see
/// [`keep_alive`](LockManagerOptions::keep_alive).
///
/// Each pool serves both kinds of callers:
///
/// | caller | async pool | blocking pool |
/// |---|---|---|
/// | async: `acquire(…).await` | on any executor | on any executor, without tokio as well |
/// | blocking: `acquire_blocking(…)` | while the pool's runtime runs | on any thread |
///
/// A blocking client cannot cancel a statement:
///
/// * A request with [`WaitStrategy::Block`](crate::WaitStrategy::Block) that is dropped keeps its
///   connection and its place in the server's queue, until its limit or the grant. Set a limit.
/// * A session whose network fails silently is replaced after the
///   [keep-alive](LockManagerOptions::keep_alive), and a wait ends at its limit. But its thread
///   lasts until the operating system closes the connection, and so does a blocking call that does
///   not wait or that releases. TCP keep-alive settings of the client bound that time.
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
/// use advisory_locking::{LockError, LockOptions, lock_manager::LockManager};
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
///
/// // A body, and several keys at once: acquired in one order, so two callers cannot deadlock.
/// manager.with_lock("report", wait, async |_guard| Ok::<_, LockError>(())).await?;
/// let accounts = manager.acquire_all([("account", 1), ("account", 2)], wait).await?;
/// accounts.release().await?;
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
        let accepted = options.accepted_signs;
        let shared = Shared::new(
            options,
            false,
            Box::new(move |shared, id, commands| {
                let session = run_session(shared, Arc::clone(&pool), accepted, id, commands);
                // A caller on another executor may poll the session, whose connection needs its own
                // runtime.
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
        let accepted = options.accepted_signs;
        let shared = Shared::new(
            options,
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
            handle: Arc::new(Handle { shared }),
        }
    }

    /// Returns the keys, holders, wait queues and sessions at this moment, without I/O.
    ///
    /// It locks the mutex of the lock manager for the time of a copy, which grows with the number
    /// of keys in use. On a backend without locks it shows the callers only with
    /// [`NoLockBackend::InProcess`](super::NoLockBackend::InProcess).
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
    /// let guard = locks.acquire_blocking("snapshot-of-a-manager", LockOptions::no_wait())?;
    /// let snapshot = locks.snapshot();
    /// assert_eq!((snapshot.keys.len(), snapshot.holders(), snapshot.waiters()), (1, 1, 0));
    /// println!("{snapshot}"); // an operator's page
    /// guard.release_blocking()?;
    /// assert_eq!(locks.snapshot().holders(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> LockManagerSnapshot {
        self.handle.shared.snapshot()
    }

    /// Closes the lock manager for all its clones.
    ///
    /// It rejects the waiters and all later calls with [`Closed`](LockErrorKind::Closed), waits for
    /// the holders to release, and returns the connections to the pool. A caller that holds a guard
    /// waits for itself here. To release all locks at once, drop the last clone.
    ///
    /// A connection that the pool has not yet returned is not awaited. Closing the pool first has
    /// the same effect if the pool reports it ([`AsyncLockPool::closed`]) to an open session: those
    /// of sqlx and SeaORM over PostgreSQL do.
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
