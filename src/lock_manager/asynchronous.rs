//! The locker of async programs: [`LockManager`].

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio::runtime::Handle;

use super::client::{Client, Locked, none_if_busy, release_all};
use super::hub::Hub;
use super::options::LockManagerOptions;
use super::serve::serve;
use super::station::Station;
use crate::backends::RuntimeBound;
use crate::combine_results::combine_results;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::{LockMode, LockOptions};
use crate::session::{AsyncBody, AsyncLockPool};

/// One locker for a whole process: many tasks, many keys, few connections. Cheap to clone.
///
/// A lock taken on a connection of one's own costs a connection for every holder and every waiter. A locker owns a few sessions of a pool and
/// serves everybody with them:
///
/// * Tasks that want the same key wait for each other in memory, in order; only the first asks the server. A lock that is given back goes to the
///   next one without a round trip, for a [bounded time](LockManagerOptions::hand_off_limit), then to the server, for other processes.
/// * Locks of different keys share a session, and what many tasks ask at the same time goes in one statement.
/// * A guard is `'static` and `Send`. It has no connection: do your work on one of your own pool.
/// * A session that is lost marks the guards of its locks ([`is_lost`](OwnedLockGuard::is_lost), [`lost`](OwnedLockGuard::lost)), and is
///   replaced. Nothing is taken again silently; those who wait go on.
///
/// The lock is the same that every other way of this crate takes, and every other client of the database: they exclude each other.
///
/// # Contract
///
/// * Locks are not re-entrant: a task that asks for a key it has waits for itself. (Those of a connection are counted by the server.)
/// * A guard's release, if awaited, is confirmed by the server: `Ok` says that the lock was held to the end, also where it was handed on.
/// * Dropping the last clone gives all locks back, within a second where the server answers; the guards that are left have lost theirs.
/// * On SQLite everybody is let in, or the locks exclude within this locker: [`LockManagerOptions::on_no_lock_backend`]. Fencing tokens are numbers of
///   this locker's there.
///
/// # Examples
///
#[cfg_attr(all(feature = "diesel-async-sqlite", feature = "bb8"), doc = "```")]
#[cfg_attr(
    not(all(feature = "diesel-async-sqlite", feature = "bb8")),
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
/// let manager = AsyncDieselConnectionManager::<SyncConnectionWrapper<SqliteConnection>>::new(":memory:");
/// let pool = Pool::builder().max_size(2).build(manager).await?;
/// let locker = LockManager::new(pool.clone())?;
///
/// let guard = locker.acquire(("sync", 42), LockOptions::wait_up_to(Duration::from_secs(5))).await?;
/// // … the work, on a connection of `pool` …
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LockManager {
    client: Arc<Client>,
}

impl LockManager {
    /// A locker with the default [options](LockManagerOptions) over a pool of connections.
    ///
    /// To be called in a tokio runtime, where its sessions run. No connection is opened before the first call.
    ///
    /// # Errors
    ///
    /// As [`with_options`](Self::with_options).
    pub fn new<P>(pool: P) -> Result<Self, LockError>
    where
        P: AsyncLockPool<Connection: 'static> + Send + 'static,
    {
        Self::with_options(pool, LockManagerOptions::new())
    }

    /// A locker with options over a pool of connections.
    ///
    /// # Errors
    ///
    /// [`InvalidOptions`](LockErrorKind::InvalidOptions), also outside a tokio runtime.
    pub fn with_options<P>(pool: P, options: LockManagerOptions) -> Result<Self, LockError>
    where
        P: AsyncLockPool<Connection: 'static> + Send + 'static,
    {
        options.validate()?;
        let runtime = Handle::try_current().map_err(|error| {
            let why = "an LockManager is made in a tokio runtime";
            let invalid = LockError::new(LockErrorKind::InvalidOptions);
            invalid.with_context(why).with_source(error)
        })?;
        Ok(Self::on(pool, options, runtime))
    }

    fn on<P>(pool: P, options: LockManagerOptions, runtime: Handle) -> Self
    where
        P: AsyncLockPool<Connection: 'static> + Send + 'static,
    {
        let pool = Arc::new(pool);
        let sessions = runtime.clone();
        let hub = Hub::new(
            options.0,
            false,
            Box::new(move |hub, id, orders| {
                let session = serve(hub, Arc::clone(&pool), id, orders);
                let station = Station::new(RuntimeBound::new(
                    Box::pin(session),
                    Some(sessions.clone()),
                    drop,
                ));
                sessions.spawn(Arc::clone(&station).run());
                Some(station)
            }),
        );
        runtime.spawn(Arc::clone(&hub).keep_time());
        Self {
            client: Arc::new(Client::new(hub)),
        }
    }

    /// Takes the lock on `key` and holds it until the guard goes.
    ///
    /// # Errors
    ///
    /// The lock is not held.
    ///
    /// * [`HeldElsewhere`](LockErrorKind::HeldElsewhere), [`TimedOut`](LockErrorKind::TimedOut): as the options say; elsewhere is also another
    ///   task of this process.
    /// * [`Pool`](LockErrorKind::Pool): no session could be opened. If there was one before, those who wait ask again until their limit.
    /// * [`InvalidOptions`](LockErrorKind::InvalidOptions): options that contradict each other, or allow a transaction.
    /// * [`Closed`](LockErrorKind::Closed), [`TooManyLocks`](LockErrorKind::TooManyLocks), [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion),
    ///   [`Deadlock`](LockErrorKind::Deadlock), [`Unsupported`](LockErrorKind::Unsupported), [`Database`](LockErrorKind::Database).
    ///
    /// # Cancel safety
    ///
    /// Dropped at any point, the request leaves its queue at once, and its place is lost; a lock that was just granted is given back.
    pub async fn acquire(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<OwnedLockGuard, LockError> {
        let locked = self.client.acquire(key.into(), options, false).await;
        locked.map(OwnedLockGuard)
    }

    /// Takes the lock on `key` if it can be had; `None` if it is held elsewhere or the wait ran out.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), but for those two.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuard>, LockError> {
        none_if_busy(self.acquire(key, options).await)
    }

    /// As [`acquire`](Self::acquire), with a [fencing token](OwnedLockGuard::fencing_token).
    ///
    /// The token is drawn in the round trip of the grant; where the lock is handed on, it costs one.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). [`InvalidOptions`](LockErrorKind::InvalidOptions) if the sequence is not one that only grows.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_fenced(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<OwnedLockGuard, LockError> {
        let locked = self.client.acquire(key.into(), options, true).await;
        locked.map(OwnedLockGuard)
    }

    /// As [`try_acquire`](Self::try_acquire), with a [fencing token](OwnedLockGuard::fencing_token).
    ///
    /// # Errors
    ///
    /// As [`acquire_fenced`](Self::acquire_fenced), but for a lock that cannot be had.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire_fenced(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuard>, LockError> {
        none_if_busy(self.acquire_fenced(key, options).await)
    }

    /// Takes the locks on all the keys, or none of them; a key that is named twice is taken once.
    ///
    /// The locks are taken in an order that is the same for everybody, so callers that name their keys in different orders do not wait for
    /// each other in a circle. All free ones are granted in one round trip. The limit is for all of them together.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), about the first key that could not be had. None is held.
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
        let locked = self.client.acquire_all(keys, options).await?;
        Ok(OwnedLockGuards(
            locked.into_iter().map(OwnedLockGuard).collect(),
        ))
    }

    /// As [`acquire_all`](Self::acquire_all) if all can be had; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), but for a lock that cannot be had. None is held.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire): none is held.
    pub async fn try_acquire_all<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: LockOptions,
    ) -> Result<Option<OwnedLockGuards>, LockError> {
        none_if_busy(self.acquire_all(keys, options).await)
    }

    /// Runs `body` under the lock on `key`. Write it `async |guard| { … }`.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`release`](OwnedLockGuard::release); the body's error wins.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire). Dropped while the body runs, the body is dropped where it is and the lock is given back.
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

    /// As [`with_lock`](Self::with_lock) if the lock can be had; `None` if not, and the body did not run.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock), but for a lock that cannot be had.
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

    /// As [`with_lock`](Self::with_lock), and the body is dropped where it is when the lock is lost.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock); [`Lost`](LockErrorKind::Lost) as soon as that is known.
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

    /// Closes the locker, for all its clones: those who wait are refused, locks that are held are waited for, the connections go back to the
    /// pool. Later calls are refused with [`Closed`](LockErrorKind::Closed).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it is not waited for, but the locker is closed. To free what is held, drop the last clone.
    pub async fn close(&self) {
        self.client.close().await;
    }
}

impl fmt::Debug for LockManager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LockManager")
            .finish_non_exhaustive()
    }
}

/// A lock that is held through an [`LockManager`].
///
/// Dropping it gives the lock back in the background, from any thread, with or without a runtime. [`release`](Self::release) reports how that
/// went.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct OwnedLockGuard(Locked);

impl OwnedLockGuard {
    /// The key of the lock.
    #[must_use]
    pub const fn key(&self) -> &LockKey {
        self.0.key()
    }

    /// The mode in which it is held.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.0.mode()
    }

    /// The fencing token, if it was asked for: greater than that of every earlier exclusive grant of this key, by any process, also where a lock was
    /// lost.
    ///
    /// Send it along with each write, and let the storage refuse one that is smaller than what it has seen: so a holder that has lost its lock and does
    /// not know it yet does no harm. See [`TokenSource`](super::TokenSource) for where it comes from.
    #[must_use]
    pub const fn fencing_token(&self) -> Option<i64> {
        self.0.token()
    }

    /// Which of the locker's sessions has the lock; a new one has a greater number. 0 where there are no locks.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// Whether the lock is known to be lost. See [`keep_alive`](LockManagerOptions::keep_alive) for when that is known.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Ends when the lock is known to be lost; never if it is not.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again at any time.
    pub async fn lost(&self) {
        match self.0.loss() {
            Some(loss) => loss.wait().await,
            None => std::future::pending().await,
        }
    }

    /// Gives the lock back and tells whether it was held all the time.
    ///
    /// # Errors
    ///
    /// The lock is not held afterwards.
    ///
    /// * [`Lost`](LockErrorKind::Lost): the session had ended; another may have held the lock meanwhile.
    /// * [`NotHeld`](LockErrorKind::NotHeld): the server says that something else had released it.
    /// * [`SessionChanged`](LockErrorKind::SessionChanged): another session answered than the one that has the lock.
    ///
    /// # Cancel safety
    ///
    /// The lock is given back by the call; dropped, it is not waited for.
    pub fn release(self) -> impl Future<Output = Result<(), LockError>> + Send {
        self.0.release()
    }
}

/// Several locks that are held together, in the order of their numbers.
#[derive(Debug)]
#[must_use = "the locks are released when the guards are dropped"]
pub struct OwnedLockGuards(Vec<OwnedLockGuard>);

impl OwnedLockGuards {
    /// Whether one of the locks is known to be lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.iter().any(OwnedLockGuard::is_lost)
    }

    /// The guards.
    pub fn guards(&self) -> &[OwnedLockGuard] {
        &self.0
    }

    /// Gives all of them back and tells whether they were held all the time.
    ///
    /// # Errors
    ///
    /// The first of those of [`OwnedLockGuard::release`]. None is held afterwards.
    ///
    /// # Cancel safety
    ///
    /// As [`OwnedLockGuard::release`], from the first poll on.
    pub async fn release(self) -> Result<(), LockError> {
        release_all(self.0.into_iter().map(|guard| guard.0)).await
    }
}

impl IntoIterator for OwnedLockGuards {
    type Item = OwnedLockGuard;
    type IntoIter = std::vec::IntoIter<OwnedLockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
