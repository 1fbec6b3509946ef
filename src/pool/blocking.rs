//! Locks from a blocking pool: [`PooledAdvisoryLocking`].

use crate::capabilities::Capabilities;
use crate::connection::{AdvisoryLockGuard, AdvisoryLocking, acquire, run_with_guard};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;

use crate::options::{LockOptions, LockScope};
use crate::pooling_mode::PoolingMode;
use crate::session::{LockPool, LockSession, SessionError};
use crate::stand_in::StandIn;

/// Named locks from a pool: each takes a connection, and keeps it while it waits and while it is held.
///
/// The body runs on the connection that holds the lock, so a pool of one is enough for a body that uses what it is given. A body
/// that takes a further connection from the same pool needs a pool with more connections than there are such bodies and waiters
/// at a time. In a pool too small, they wait for each other until the pool's own time-out; where it was a lock that was asked for,
/// that is an error of kind [`Pool`](LockErrorKind::Pool).
///
/// The methods do what those of [`AdvisoryLocking`] do, and report what they report; besides, each reports
/// [`Pool`](LockErrorKind::Pool) if the pool gives no connection.
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
/// let pool = Pool::builder().max_size(1).build(ConnectionManager::<SqliteConnection>::new(":memory:"))?;
/// pool.with_advisory_lock("nightly-report", LockOptions::no_wait(), |conn| {
///     diesel::sql_query("CREATE TABLE report (day TEXT)").execute(conn)
/// })?;
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no pool of connections with advisory locks here",
    label = "no lock pool",
    note = "enable the features for its client library and its pool in Cargo.toml: see feature-matrix.md"
)]
pub trait PooledAdvisoryLocking: LockPool + Sized {
    /// Runs `body` under the session-level lock on `key`, on a connection of the pool.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::with_advisory_lock`], and [`Pool`](LockErrorKind::Pool).
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

    /// Runs `body` under the session-level lock on `key` if it can be had; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::try_with_advisory_lock`], and [`Pool`](LockErrorKind::Pool).
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

    /// Takes the session-level lock on `key` and holds it, and the connection, until the guard goes.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::acquire_advisory_lock`], and [`Pool`](LockErrorKind::Pool).
    fn acquire_advisory_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<AdvisoryLockGuard<Self::Connection>, LockError> {
        let key = key.into();
        let mut conn = connection(self, &key, &options)?;
        let grant =
            acquire(&mut *conn, &key, &options, LockScope::Session)?.granted_or_error(&key)?;
        Ok(AdvisoryLockGuard::new(conn, grant))
    }

    /// Takes the session-level lock on `key` if it can be had; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::try_acquire_advisory_lock`], and [`Pool`](LockErrorKind::Pool).
    fn try_acquire_advisory_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> Result<Option<AdvisoryLockGuard<Self::Connection>>, LockError> {
        let key = key.into();
        let mut conn = connection(self, &key, &options)?;
        let acquired = acquire(&mut *conn, &key, &options, LockScope::Session)?;
        Ok(acquired
            .granted()
            .map(|grant| AdvisoryLockGuard::new(conn, grant)))
    }

    /// Begins a transaction on a connection of the pool, takes the transaction-level lock on `key`, runs `body`, and commits.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::with_advisory_xact_lock`], and [`Pool`](LockErrorKind::Pool).
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
        connection(self, &key, &options)?.with_advisory_xact_lock(key, options, body)
    }

    /// As [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) if the lock can be had; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::try_with_advisory_xact_lock`], and [`Pool`](LockErrorKind::Pool).
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
        connection(self, &key, &options)?.try_with_advisory_xact_lock(key, options, body)
    }

    /// Finds out with two connections of the pool whether sessions are kept, so that session-level locks work. A pool of one cannot be
    /// asked.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::detect_pooler`], and [`Pool`](LockErrorKind::Pool).
    ///
    /// # Examples
    ///
    /// See [`PoolingMode`].
    fn detect_pooler(&self) -> Result<PoolingMode, LockError> {
        let mut first = self.checkout().map_err(pool_error)?;
        let mut second = self.checkout().map_err(pool_error)?;
        first.detect_pooler(&mut *second)
    }

    /// What the pool's backend can do. Checks a connection out to see, for a pool may hold an enum of connections.
    ///
    /// # Errors
    ///
    /// [`Pool`](LockErrorKind::Pool).
    fn capabilities(&self) -> Result<Capabilities, LockError> {
        let mut conn = self.checkout().map_err(pool_error)?;
        Ok(Capabilities::of(conn.session_backend()))
    }
}

impl<P: LockPool> PooledAdvisoryLocking for P {}

/// A connection for a call whose options are in order; the others need none.
fn connection<P: LockPool>(
    pool: &P,
    key: &LockKey,
    options: &LockOptions,
) -> Result<P::Connection, LockError> {
    options.validate()?;
    let checked_out = pool.checkout().and_then(|mut conn| {
        let backend = conn.session_backend();
        match StandIn::of(&mut *conn, backend).and_then(|stand_in| stand_in.fails_checkout(key)) {
            Some(error) => Err(error),
            None => Ok(conn),
        }
    });
    checked_out.map_err(|error| pool_error(error).with_key(key))
}

pub(crate) fn pool_error(error: SessionError) -> LockError {
    let kind = if error.is_unsupported_backend() {
        LockErrorKind::Unsupported
    } else {
        LockErrorKind::Pool
    };
    LockError::new(kind).with_source(error.into_source())
}
