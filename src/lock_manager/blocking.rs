//! The locker of blocking programs: [`BlockingLockManager`].

use std::fmt;
use std::sync::Arc;
use std::thread;

use pollster::block_on;

use super::client::{Client, Locked, none_if_busy, release_all};
use super::hub::Hub;
use super::options::LockManagerOptions;
use super::serve::serve;
use super::station::Station;
use super::threads::OnThread;
use crate::combine_results::combine_results;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::{LockMode, LockOptions};
use crate::session::LockPool;

/// One locker for a whole process: many threads, many keys, few connections. Cheap to clone. The twin of
/// [`LockManager`](super::LockManager), for pools of blocking connections such as r2d2's.
///
/// A lock taken on a connection of one's own costs a connection for every holder and every waiter. A locker owns a few sessions of a pool and
/// serves everybody with them:
///
/// * Threads that want the same key wait for each other in memory, in order; only the first asks the server. A lock that is given back goes to the
///   next one without a round trip, for a [bounded time](LockManagerOptions::hand_off_limit), then to the server, for other processes.
/// * Locks of different keys share a session, and what many threads ask at the same time goes in one statement.
/// * A guard is `'static` and `Send`. It has no connection: do your work on one of your own pool.
/// * A session that is lost marks the guards of its locks ([`is_lost`](BlockingOwnedLockGuard::is_lost)), and is replaced. Nothing is taken again silently;
///   those who wait go on.
///
/// The lock is the same that every other way of this crate takes, and every other client of the database: they exclude each other.
///
/// # Contract
///
/// * Locks are not re-entrant: a thread that asks for a key it has waits for itself. (Those of a connection are counted by the server.)
/// * A guard's release is confirmed by the server: `Ok` says that the lock was held to the end, also where it was handed on.
/// * Dropping the last clone gives all locks back, within a second where the server answers; the guards that are left have lost theirs.
/// * On SQLite everybody is let in, or the locks exclude within this locker: [`LockManagerOptions::on_no_lock_backend`]. Fencing tokens are numbers of
///   this locker's there.
/// * A session is a thread of its own, and so are the alarms. The release of a guard, and a call that does not wait, run the statement of an idle
///   session themselves. A blocking client cannot end a statement: a session that the network has cut off is replaced after the
///   [keep-alive](LockManagerOptions::keep_alive), and a wait ends at its limit, but the session's thread, or the call that has just asked it, lasts
///   until the operating system gives the connection up. Keep-alive settings of the client's decide when.
///
/// # Examples
///
#[cfg_attr(all(feature = "diesel-sqlite", feature = "r2d2"), doc = "```")]
#[cfg_attr(
    not(all(feature = "diesel-sqlite", feature = "r2d2")),
    doc = "```ignore"
)]
/// use std::time::Duration;
/// use advisory_locking::{LockOptions, lock_manager::BlockingLockManager};
/// use diesel::r2d2::{ConnectionManager, Pool};
/// use diesel::sqlite::SqliteConnection;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production, a pool of `PgConnection`s.
/// let pool = Pool::builder().max_size(2).build(ConnectionManager::<SqliteConnection>::new(":memory:"))?;
/// let locker = BlockingLockManager::new(pool.clone())?;
///
/// let guard = locker.acquire(("sync", 42), LockOptions::wait_up_to(Duration::from_secs(5)))?;
/// // … the work, on a connection of `pool` …
/// guard.release()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BlockingLockManager {
    client: Arc<Client>,
}

impl BlockingLockManager {
    /// A locker with the default [options](LockManagerOptions) over a pool of connections. No connection is opened before the first call.
    ///
    /// # Errors
    ///
    /// As [`with_options`](Self::with_options).
    pub fn new<P>(pool: P) -> Result<Self, LockError>
    where
        P: LockPool<Connection: Send + 'static> + Send + Sync + 'static,
    {
        Self::with_options(pool, LockManagerOptions::new())
    }

    /// A locker with options over a pool of connections.
    ///
    /// # Errors
    ///
    /// [`InvalidOptions`](LockErrorKind::InvalidOptions); [`Pool`](LockErrorKind::Pool) if the system gives no thread.
    pub fn with_options<P>(pool: P, options: LockManagerOptions) -> Result<Self, LockError>
    where
        P: LockPool<Connection: Send + 'static> + Send + Sync + 'static,
    {
        options.validate()?;
        let pool = Arc::new(OnThread(pool));
        let hub = Hub::new(
            options.0,
            true,
            Box::new(move |hub, id, orders| {
                let station = Station::new(serve(hub, Arc::clone(&pool), id, orders));
                // Without a thread the session is dropped, and tells of it.
                on_thread(Arc::clone(&station).run()).ok().map(|()| station)
            }),
        );
        on_thread(Arc::clone(&hub).keep_time())
            .map_err(|error| LockError::new(LockErrorKind::Pool).with_source(error))?;
        Ok(Self {
            client: Arc::new(Client::new(hub)),
        })
    }

    /// Takes the lock on `key` and holds it until the guard goes.
    ///
    /// # Errors
    ///
    /// The lock is not held.
    ///
    /// * [`HeldElsewhere`](LockErrorKind::HeldElsewhere), [`TimedOut`](LockErrorKind::TimedOut): as the options say; elsewhere is also another
    ///   thread of this process.
    /// * [`Pool`](LockErrorKind::Pool): no session could be opened. If there was one before, those who wait ask again until their limit.
    /// * [`InvalidOptions`](LockErrorKind::InvalidOptions): options that contradict each other, or allow a transaction.
    /// * [`Closed`](LockErrorKind::Closed), [`TooManyLocks`](LockErrorKind::TooManyLocks), [`NoMutualExclusion`](LockErrorKind::NoMutualExclusion),
    ///   [`Deadlock`](LockErrorKind::Deadlock), [`Unsupported`](LockErrorKind::Unsupported), [`Database`](LockErrorKind::Database).
    pub fn acquire(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<BlockingOwnedLockGuard, LockError> {
        block_on(self.client.acquire(key.into(), options, false)).map(BlockingOwnedLockGuard)
    }

    /// Takes the lock on `key` if it can be had; `None` if it is held elsewhere or the wait ran out.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), but for those two.
    pub fn try_acquire(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<BlockingOwnedLockGuard>, LockError> {
        none_if_busy(self.acquire(key, options))
    }

    /// As [`acquire`](Self::acquire), with a [fencing token](BlockingOwnedLockGuard::fencing_token).
    ///
    /// The token is drawn in the round trip of the grant; where the lock is handed on, it costs one.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). [`InvalidOptions`](LockErrorKind::InvalidOptions) if the sequence is not one that only grows.
    pub fn acquire_fenced(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<BlockingOwnedLockGuard, LockError> {
        block_on(self.client.acquire(key.into(), options, true)).map(BlockingOwnedLockGuard)
    }

    /// As [`try_acquire`](Self::try_acquire), with a [fencing token](BlockingOwnedLockGuard::fencing_token).
    ///
    /// # Errors
    ///
    /// As [`acquire_fenced`](Self::acquire_fenced), but for a lock that cannot be had.
    pub fn try_acquire_fenced(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<BlockingOwnedLockGuard>, LockError> {
        none_if_busy(self.acquire_fenced(key, options))
    }

    /// Takes the locks on all the keys, or none of them; a key that is named twice is taken once.
    ///
    /// The locks are taken in an order that is the same for everybody, so callers that name their keys in different orders do not wait for
    /// each other in a circle. All free ones are granted in one round trip. The limit is for all of them together.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), about the first key that could not be had. None is held.
    pub fn acquire_all<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: LockOptions,
    ) -> Result<BlockingOwnedLockGuards, LockError> {
        let keys = keys.into_iter().map(Into::into).collect();
        let locked = block_on(self.client.acquire_all(keys, options))?;
        Ok(BlockingOwnedLockGuards(
            locked.into_iter().map(BlockingOwnedLockGuard).collect(),
        ))
    }

    /// As [`acquire_all`](Self::acquire_all) if all can be had; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), but for a lock that cannot be had. None is held.
    pub fn try_acquire_all<K: Into<LockKey>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: LockOptions,
    ) -> Result<Option<BlockingOwnedLockGuards>, LockError> {
        none_if_busy(self.acquire_all(keys, options))
    }

    /// Runs `body` under the lock on `key`.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire) and [`release`](BlockingOwnedLockGuard::release); the body's error wins.
    pub fn with_lock<T, E: From<LockError>>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&BlockingOwnedLockGuard) -> Result<T, E>,
    ) -> Result<T, E> {
        let guard = self.acquire(key, options)?;
        let result = body(&guard);
        combine_results(result, guard.release())
    }

    /// As [`with_lock`](Self::with_lock) if the lock can be had; `None` if not, and the body did not run.
    ///
    /// # Errors
    ///
    /// As [`with_lock`](Self::with_lock), but for a lock that cannot be had.
    pub fn try_with_lock<T, E: From<LockError>>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&BlockingOwnedLockGuard) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let Some(guard) = self.try_acquire(key, options)? else {
            return Ok(None);
        };
        let result = body(&guard);
        combine_results(result, guard.release()).map(Some)
    }

    /// Closes the locker, for all its clones: those who wait are refused, locks that are held are waited for, the connections go back to the
    /// pool. Later calls are refused with [`Closed`](LockErrorKind::Closed).
    ///
    /// A thread that holds a guard waits for itself here. To free what is held, drop the last clone.
    ///
    /// A session that waits on the server, or for one that does not answer, is not waited for: its thread ends with its statement, and gives back
    /// what it was granted too late.
    pub fn close(&self) {
        block_on(self.client.close());
    }
}

/// Runs a future on a thread of its own.
fn on_thread(future: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let thread = thread::Builder::new().name("advisory-locking".to_owned());
    thread.spawn(|| block_on(future)).map(drop)
}

impl fmt::Debug for BlockingLockManager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BlockingLockManager")
            .finish_non_exhaustive()
    }
}

/// A lock that is held through a [`BlockingLockManager`].
///
/// Dropping it gives the lock back in the background, from any thread. [`release`](Self::release) reports how that went.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct BlockingOwnedLockGuard(Locked);

impl BlockingOwnedLockGuard {
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

    /// Gives the lock back and tells whether it was held all the time.
    ///
    /// # Errors
    ///
    /// The lock is not held afterwards.
    ///
    /// * [`Lost`](LockErrorKind::Lost): the session had ended; another may have held the lock meanwhile.
    /// * [`NotHeld`](LockErrorKind::NotHeld): the server says that something else had released it.
    /// * [`SessionChanged`](LockErrorKind::SessionChanged): another session answered than the one that has the lock.
    pub fn release(self) -> Result<(), LockError> {
        block_on(self.0.release())
    }
}

/// Several locks that are held together, in the order of their numbers.
#[derive(Debug)]
#[must_use = "the locks are released when the guards are dropped"]
pub struct BlockingOwnedLockGuards(Vec<BlockingOwnedLockGuard>);

impl BlockingOwnedLockGuards {
    /// Whether one of the locks is known to be lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.iter().any(BlockingOwnedLockGuard::is_lost)
    }

    /// The guards.
    pub fn guards(&self) -> &[BlockingOwnedLockGuard] {
        &self.0
    }

    /// Gives all of them back and tells whether they were held all the time.
    ///
    /// # Errors
    ///
    /// The first of those of [`BlockingOwnedLockGuard::release`]. None is held afterwards.
    pub fn release(self) -> Result<(), LockError> {
        block_on(release_all(self.0.into_iter().map(|guard| guard.0)))
    }
}

impl IntoIterator for BlockingOwnedLockGuards {
    type Item = BlockingOwnedLockGuard;
    type IntoIter = std::vec::IntoIter<BlockingOwnedLockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
