//! Locks from an async pool: [`AsyncPooledAdvisoryLocking`].

use super::blocking::pool_error;
use crate::capabilities::Capabilities;
use crate::connection::{
    AsyncAdvisoryLockGuard, AsyncAdvisoryLocking, acquire_async as acquire,
    run_with_guard_async as run_with_guard,
};
use crate::error::LockError;
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::pooling_mode::PoolingMode;
use crate::session::{AsyncBody, AsyncLockPool, AsyncLockSession};
use crate::stand_in::StandIn;

/// Named locks from an async pool: the twin of [`PooledAdvisoryLocking`](crate::PooledAdvisoryLocking), whose page says how many
/// connections that takes.
///
/// The methods do what those of [`AsyncAdvisoryLocking`] do, report what they report, and are as cancel safe; besides, each reports
/// [`Pool`](crate::LockErrorKind::Pool) if the pool gives no connection.
///
/// # Examples
///
#[cfg_attr(all(feature = "diesel-async-sqlite", feature = "bb8"), doc = "```")]
#[cfg_attr(
    not(all(feature = "diesel-async-sqlite", feature = "bb8")),
    doc = "```ignore"
)]
/// use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions};
/// use diesel::sqlite::SqliteConnection;
/// use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8::Pool};
/// use diesel_async::RunQueryDsl;
/// use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let manager = AsyncDieselConnectionManager::<SyncConnectionWrapper<SqliteConnection>>::new(":memory:");
/// let pool = Pool::builder().max_size(1).build(manager).await?;
/// pool.with_advisory_lock("nightly-report", LockOptions::no_wait(), async |conn| {
///     diesel::sql_query("CREATE TABLE report (day TEXT)").execute(conn).await
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no async pool of connections with advisory locks here",
    label = "no pool of advisory locks",
    note = "enable the features for its client library and its pool in Cargo.toml: see feature-matrix.md"
)]
pub trait AsyncPooledAdvisoryLocking: AsyncLockPool + Sized {
    /// Runs `body` under the session-level lock on `key`, on a connection of the pool.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::with_advisory_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [`AsyncAdvisoryLocking`].
    fn with_advisory_lock<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r mut Self::Session) -> Result<T, E>
            + AsyncBody<&'r mut Self::Session, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let guard = self.acquire_advisory_lock(key, options).await?;
            run_with_guard(guard, body).await
        }
    }

    /// Runs `body` under the session-level lock on `key` if it can be had; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::try_with_advisory_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [`AsyncAdvisoryLocking`].
    fn try_with_advisory_lock<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r mut Self::Session) -> Result<T, E>
            + AsyncBody<&'r mut Self::Session, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            match self.try_acquire_advisory_lock(key, options).await? {
                Some(guard) => run_with_guard(guard, body).await.map(Some),
                None => Ok(None),
            }
        }
    }

    /// Takes the session-level lock on `key` and holds it, and the connection, until the guard goes.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::acquire_advisory_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [`AsyncAdvisoryLocking`].
    fn acquire_advisory_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<AsyncAdvisoryLockGuard<Self::Connection>, LockError>> + Send
    {
        let key = key.into();
        async move {
            let mut conn = connection(self, &key, &options).await?;
            let grant = acquire(&mut *conn, &key, &options, LockScope::Session)
                .await?
                .granted_or_error(&key)?;
            Ok(AsyncAdvisoryLockGuard::new(conn, grant))
        }
    }

    /// Takes the session-level lock on `key` if it can be had; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::try_acquire_advisory_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [`AsyncAdvisoryLocking`].
    fn try_acquire_advisory_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<Option<AsyncAdvisoryLockGuard<Self::Connection>>, LockError>> + Send
    {
        let key = key.into();
        async move {
            let mut conn = connection(self, &key, &options).await?;
            let acquired = acquire(&mut *conn, &key, &options, LockScope::Session).await?;
            Ok(acquired
                .granted()
                .map(|grant| AsyncAdvisoryLockGuard::new(conn, grant)))
        }
    }

    /// Begins a transaction on a connection of the pool, takes the transaction-level lock on `key`, runs `body`, and commits.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::with_advisory_xact_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [`AsyncAdvisoryLocking`].
    fn with_advisory_xact_lock<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r mut Self::Session) -> Result<T, E>
            + AsyncBody<&'r mut Self::Session, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let mut conn = connection(self, &key, &options).await?;
            conn.with_advisory_xact_lock(key, options, body).await
        }
    }

    /// As [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) if the lock can be had; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::try_with_advisory_xact_lock`], and [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [`AsyncAdvisoryLocking`].
    fn try_with_advisory_xact_lock<T, E, F>(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, E>> + Send
    where
        for<'r> F: AsyncFnOnce(&'r mut Self::Session) -> Result<T, E>
            + AsyncBody<&'r mut Self::Session, Result<T, E>, Fut: Send>
            + Send,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let mut conn = connection(self, &key, &options).await?;
            conn.try_with_advisory_xact_lock(key, options, body).await
        }
    }

    /// Finds out with two connections of the pool whether sessions are kept, so that session-level locks work. A pool of one cannot be
    /// asked.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::detect_pooler`](crate::AdvisoryLocking::detect_pooler), and [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, both connections are closed.
    fn detect_pooler(&self) -> impl Future<Output = Result<PoolingMode, LockError>> + Send {
        async move {
            let mut first = self.checkout().await.map_err(pool_error)?;
            let mut second = self.checkout().await.map_err(pool_error)?;
            first.detect_pooler(&mut *second).await
        }
    }

    /// What the pool's backend can do. Checks a connection out to see.
    ///
    /// # Errors
    ///
    /// [`Pool`](crate::LockErrorKind::Pool).
    fn capabilities(&self) -> impl Future<Output = Result<Capabilities, LockError>> + Send {
        async move {
            let mut conn = self.checkout().await.map_err(pool_error)?;
            Ok(Capabilities::of(conn.session_backend()))
        }
    }
}

impl<P: AsyncLockPool> AsyncPooledAdvisoryLocking for P {}

/// A connection for a call whose options are in order; the others need none.
async fn connection<P: AsyncLockPool>(
    pool: &P,
    key: &LockKey,
    options: &LockOptions,
) -> Result<P::Connection, LockError> {
    options.validate()?;
    let checked_out = pool.checkout().await.and_then(|mut conn| {
        let backend = conn.session_backend();
        match StandIn::of(&mut *conn, backend).and_then(|stand_in| stand_in.fails_checkout(key)) {
            Some(error) => Err(error),
            None => Ok(conn),
        }
    });
    checked_out.map_err(|error| pool_error(error).with_key(key))
}
