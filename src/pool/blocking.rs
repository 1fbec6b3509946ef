//! Named locks on connections of a blocking pool: [`PooledAdvisoryLocking`].

use super::{SECOND_CHECKOUT, UnconnectedRequest, checkout_limit, pool_error};
use crate::capabilities::Capabilities;
use crate::connection::{AdvisoryLockGuard, AdvisoryLocking, acquire, run_with_guard};
use crate::driver::blocking::with_holders;
use crate::error::{LockError, contended_to_none};
use crate::key::LockKey;
use crate::lock_report::LockReport;
use crate::options::{LockOptions, LockScope};
use crate::pooling_mode::PoolingMode;
use crate::server_report::ServerReport;
use crate::session::{Backend, LockPool, LockSession};

/// Named locks on connections of a blocking pool. A lock occupies one connection while the caller
/// waits and while the lock is held.
///
/// The body runs on the connection that holds the lock, so a pool of one connection suffices for a
/// body that uses only that connection. A body that checks out another connection of the same pool
/// needs a larger pool: more connections than such bodies and waiters at one time. Otherwise they
/// wait for each other until the pool's timeout or their limit, which this trait reports as
/// [`Pool`](crate::LockErrorKind::Pool).
///
/// The methods behave as those of [`AdvisoryLocking`]. The limit of
/// [`wait_up_to`](LockOptions::wait_up_to) covers the checkout and the wait for the lock. Each
/// method has two more errors, the `try_` methods included. No lock is held then.
///
/// * [`Pool`](crate::LockErrorKind::Pool): the pool returned no connection.
/// * [`Unsupported`](crate::LockErrorKind::Unsupported): the pool connects to another kind of
///   database.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "diesel-sqlite", feature = "r2d2"))] {
/// use advisory_locking::{LockOptions, PooledAdvisoryLocking};
/// use diesel::prelude::*;
/// use diesel::r2d2::{ConnectionManager, Pool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let manager = ConnectionManager::<SqliteConnection>::new(":memory:");
/// let pool = Pool::builder().max_size(1).build(manager)?;
/// pool.with_advisory_lock("nightly-report", LockOptions::no_wait(), |conn| {
///     diesel::sql_query("CREATE TABLE report (day TEXT)").execute(conn)
/// })?;
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a pool of connections with advisory locks",
    label = "no adapter for this pool type",
    note = "for a pool of your own, implement `advisory_locking::session::LockPool`"
)]
#[cfg_attr(
    not(feature = "r2d2"),
    diagnostic::on_unimplemented(note = "a pool of r2d2 needs the feature `r2d2`, which is off")
)]
pub trait PooledAdvisoryLocking: LockPool + Sized {
    /// Runs `body` under the session-level lock on `key`, on a connection of the pool.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::with_advisory_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    fn with_advisory_lock<T, E>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&mut Self::Session) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<LockError>,
    {
        let guard = self.acquire_advisory_lock(key, options)?;
        run_with_guard(guard, body)
    }

    /// Runs `body` under the session-level lock on `key`, or returns `None` if the lock is not
    /// granted.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::try_with_advisory_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    fn try_with_advisory_lock<T, E>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&mut Self::Session) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<LockError>,
    {
        match self.try_acquire_advisory_lock(key, options)? {
            Some(guard) => run_with_guard(guard, body).map(Some),
            None => Ok(None),
        }
    }

    /// Acquires the session-level lock on `key`. The guard holds the lock and the connection.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::acquire_advisory_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    fn acquire_advisory_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<PooledAdvisoryLockGuard<Self>, LockError> {
        let key = key.into();
        // The new options have what the checkout has left of the limit.
        let (mut conn, options) = connection(self, &key, &options, LockScope::Session)?;
        let acquired = acquire(&mut *conn, &key, &options, LockScope::Session);
        let grant = with_holders(&mut *conn, &key, &options, acquired)?;
        Ok(AdvisoryLockGuard::new(conn, grant))
    }

    /// Acquires the session-level lock on `key`, or returns `None` if it is not granted.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::try_acquire_advisory_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    fn try_acquire_advisory_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<PooledAdvisoryLockGuard<Self>>, LockError> {
        let key = key.into();
        let (mut conn, options) = connection(self, &key, &options, LockScope::Session)?;
        let acquired = acquire(&mut *conn, &key, &options, LockScope::Session);
        let grant = contended_to_none(acquired)?;
        Ok(grant.map(|grant| AdvisoryLockGuard::new(conn, grant)))
    }

    /// Begins a transaction on a connection of the pool, acquires the transaction-level lock on
    /// `key`, runs `body`, and commits. Rolls back if the body fails or panics.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::with_advisory_xact_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    fn with_advisory_xact_lock<T, E>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&mut Self::Session) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<LockError>,
    {
        let key = key.into();
        let (mut conn, options) = connection(self, &key, &options, LockScope::Transaction)?;
        conn.with_advisory_xact_lock(key, options, body)
    }

    /// Runs `body` as [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) does, or returns
    /// `None` if the lock is not granted. The body did not run then.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::try_with_advisory_xact_lock`], and
    /// [`Pool`](crate::LockErrorKind::Pool).
    fn try_with_advisory_xact_lock<T, E>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: impl FnOnce(&mut Self::Session) -> Result<T, E>,
    ) -> Result<Option<T>, E>
    where
        E: From<LockError>,
    {
        let key = key.into();
        let (mut conn, options) = connection(self, &key, &options, LockScope::Transaction)?;
        conn.try_with_advisory_xact_lock(key, options, body)
    }

    /// Detects a transaction pooler with two connections of the pool. On SQLite one is enough.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::detect_pooler`], and [`Pool`](crate::LockErrorKind::Pool). On
    /// PostgreSQL, a pool of one connection returns `Pool` after its own timeout, or after 30 s if
    /// that is earlier.
    ///
    /// # Examples
    ///
    /// See [`PoolingMode`].
    fn detect_pooler(&self) -> Result<PoolingMode, LockError> {
        let mut first = self.checkout().map_err(pool_error)?;
        // A second connection changes nothing, and a pool of SQLite may have one only.
        if first.session_backend() == Backend::Sqlite {
            return Ok(PoolingMode::NoLocks);
        }
        // While `first` is checked out, so that the pool returns another connection.
        let second = self.checkout_within(SECOND_CHECKOUT);
        let mut second = second.map_err(pool_error)?;
        first.detect_pooler(&mut *second)
    }

    /// Identifies the server, by a connection of the pool. See [`AdvisoryLocking::identify`].
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::identify`], and [`Pool`](crate::LockErrorKind::Pool).
    fn identify(&self) -> Result<ServerReport, LockError> {
        self.checkout().map_err(pool_error)?.identify()
    }

    /// Returns the sessions that hold the lock on `key` and the sessions that wait for it, by a
    /// connection of the pool. See [`AdvisoryLocking::advisory_lock_holders`].
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::advisory_lock_holders`], and [`Pool`](crate::LockErrorKind::Pool).
    fn advisory_lock_holders(&self, key: impl Into<LockKey>) -> Result<LockReport, LockError> {
        self.checkout()
            .map_err(pool_error)?
            .advisory_lock_holders(key)
    }

    /// Returns a report for each advisory lock of the database that is held or awaited.
    ///
    /// # Errors
    ///
    /// As [`advisory_lock_holders`](Self::advisory_lock_holders).
    fn advisory_locks(&self) -> Result<Vec<LockReport>, LockError> {
        self.checkout().map_err(pool_error)?.advisory_locks()
    }

    /// Returns the features of the pool's backend. Checks a connection out, because the connections
    /// of a pool may be an enum over several backends.
    ///
    /// # Errors
    ///
    /// [`Pool`](crate::LockErrorKind::Pool) and
    /// [`Unsupported`](crate::LockErrorKind::Unsupported), see [the trait](Self). No lock is held.
    fn capabilities(&self) -> Result<Capabilities, LockError> {
        let mut conn = self.checkout().map_err(pool_error)?;
        Ok(Capabilities::of(conn.session_backend()))
    }
}

impl<P: LockPool> PooledAdvisoryLocking for P {}

/// Guard of a lock on a connection of the pool `P`, for a struct that owns a lock.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "diesel-sqlite", feature = "r2d2"))] {
/// use advisory_locking::{LockOptions, PooledAdvisoryLockGuard, PooledAdvisoryLocking};
/// use diesel::r2d2::{ConnectionManager, Pool};
/// use diesel::sqlite::SqliteConnection;
///
/// type DbPool = Pool<ConnectionManager<SqliteConnection>>;
///
/// struct Leader {
///     lock: PooledAdvisoryLockGuard<DbPool>,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = DbPool::builder().max_size(1).build(ConnectionManager::new(":memory:"))?;
/// let lock = pool.acquire_advisory_lock("pool-guard-leader", LockOptions::no_wait())?;
/// let leader = Leader { lock };
/// leader.lock.release()?;
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
pub type PooledAdvisoryLockGuard<P> = AdvisoryLockGuard<<P as LockPool>::Connection>;

/// Validates the options and checks a connection out. Returns the options for the rest of the call.
/// Records a failure.
fn connection<P: LockPool>(
    pool: &P,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
) -> Result<(P::Connection, LockOptions), LockError> {
    let request = UnconnectedRequest::new(key, options, scope)?;
    let checked_out = match checkout_limit(options) {
        Some(limit) => pool.checkout_within(limit),
        None => pool.checkout(),
    };
    #[cfg(feature = "testing")]
    let checked_out = checked_out.and_then(|mut conn| {
        crate::testing::checkout_fault(conn.session_backend(), key).map(|()| conn)
    });
    request.checked_out(checked_out)
}
