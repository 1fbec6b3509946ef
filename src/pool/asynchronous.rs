//! Named locks on connections of an async pool: [`AsyncPooledAdvisoryLocking`].

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_timer::Delay;

use super::{SECOND_CHECKOUT, UnconnectedRequest, checkout_limit, pool_error};
use crate::capabilities::Capabilities;
use crate::connection::{
    AsyncAdvisoryLockGuard, AsyncAdvisoryLocking, acquire_async as acquire,
    run_with_guard_async as run_with_guard,
};
use crate::driver::asynchronous::with_holders;
use crate::error::{LockError, contended_to_none};
use crate::key::LockKey;
use crate::lock_report::LockReport;
use crate::options::{LockOptions, LockScope};
use crate::pooling_mode::PoolingMode;
use crate::server_report::ServerReport;
use crate::session::{AsyncLockBody, AsyncLockPool, AsyncLockSession, Backend, SessionError};

/// Named locks on connections of an async pool. The async counterpart of
/// [`PooledAdvisoryLocking`](crate::PooledAdvisoryLocking), which documents the required size of
/// the pool.
///
/// The methods behave as those of [`AsyncAdvisoryLocking`], cancel safety included. The limit of
/// [`wait_up_to`](LockOptions::wait_up_to) covers the checkout and the wait for the lock. Each
/// method has two more errors, the `try_` methods included. No lock is held then.
///
/// * [`Pool`](crate::LockErrorKind::Pool): the pool returned no connection.
/// * [`Unsupported`](crate::LockErrorKind::Unsupported): the pool connects to another kind of
///   database.
///
/// A future that is dropped during the checkout leaves the connection to the pool.
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
/// type Connection = SyncConnectionWrapper<SqliteConnection>;
/// let manager = AsyncDieselConnectionManager::<Connection>::new(":memory:");
/// let pool = Pool::builder().max_size(1).build(manager).await?;
/// pool.with_advisory_lock("nightly-report", LockOptions::no_wait(), async |conn| {
///     diesel::sql_query("CREATE TABLE report (day TEXT)").execute(conn).await
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an async pool of connections with advisory locks",
    label = "no adapter for this pool type",
    note = "for a pool of your own, implement `advisory_locking::session::AsyncLockPool`"
)]
#[cfg_attr(
    not(feature = "bb8"),
    diagnostic::on_unimplemented(note = "a pool of bb8 needs the feature `bb8`, which is off")
)]
#[cfg_attr(
    not(feature = "deadpool"),
    diagnostic::on_unimplemented(
        note = "a pool of deadpool needs the feature `deadpool`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "deadpool-postgres"),
    diagnostic::on_unimplemented(
        note = "a pool of deadpool-postgres needs the feature `deadpool-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "mobc"),
    diagnostic::on_unimplemented(note = "a pool of mobc needs the feature `mobc`, which is off")
)]
#[cfg_attr(
    not(feature = "sea-orm"),
    diagnostic::on_unimplemented(
        note = "SeaORM's `DatabaseConnection` needs the feature `sea-orm`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "sqlx-postgres"),
    diagnostic::on_unimplemented(
        note = "sqlx's `PgPool` needs the feature `sqlx-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "sqlx-sqlite"),
    diagnostic::on_unimplemented(
        note = "sqlx's `SqlitePool` needs the feature `sqlx-sqlite`, which is off"
    )
)]
#[cfg_attr(
    feature = "sqlx-postgres",
    diagnostic::on_unimplemented(
        note = "of sqlx's pools use `PgPool`: neither `AnyPool` nor `MySqlPool` has locks"
    )
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
        F: AsyncLockBody<Self::Session, T, E>,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let guard = self.acquire_advisory_lock(key, options).await?;
            run_with_guard(guard, body).await
        }
    }

    /// Runs `body` under the session-level lock on `key`, or returns `None` if the lock is not
    /// granted.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::try_with_advisory_lock`], and
    /// [`Pool`](crate::LockErrorKind::Pool).
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
        F: AsyncLockBody<Self::Session, T, E>,
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

    /// Acquires the session-level lock on `key`. The guard holds the lock and the connection.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::acquire_advisory_lock`], and
    /// [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [`AsyncAdvisoryLocking`].
    fn acquire_advisory_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<AsyncPooledAdvisoryLockGuard<Self>, LockError>> + Send {
        let key = key.into();
        async move {
            // The new options have what the checkout has left of the limit.
            let (mut conn, options) = connection(self, &key, &options, LockScope::Session).await?;
            let acquired = acquire(&mut *conn, &key, &options, LockScope::Session).await;
            let grant = with_holders(&mut *conn, &key, &options, acquired).await?;
            Ok(AsyncAdvisoryLockGuard::new(conn, grant))
        }
    }

    /// Acquires the session-level lock on `key`, or returns `None` if it is not granted.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::try_acquire_advisory_lock`], and
    /// [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [`AsyncAdvisoryLocking`].
    fn try_acquire_advisory_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<Option<AsyncPooledAdvisoryLockGuard<Self>>, LockError>> + Send
    {
        let key = key.into();
        async move {
            let (mut conn, options) = connection(self, &key, &options, LockScope::Session).await?;
            let acquired = acquire(&mut *conn, &key, &options, LockScope::Session).await;
            let grant = contended_to_none(acquired)?;
            Ok(grant.map(|grant| AsyncAdvisoryLockGuard::new(conn, grant)))
        }
    }

    /// Begins a transaction on a connection of the pool, acquires the transaction-level lock on
    /// `key`, runs `body`, and commits. Rolls back if the body fails.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::with_advisory_xact_lock`], and
    /// [`Pool`](crate::LockErrorKind::Pool).
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
        F: AsyncLockBody<Self::Session, T, E>,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let (mut conn, options) =
                connection(self, &key, &options, LockScope::Transaction).await?;
            conn.with_advisory_xact_lock(key, options, body).await
        }
    }

    /// Runs `body` as [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) does, or returns
    /// `None` if the lock is not granted. The body did not run then.
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::try_with_advisory_xact_lock`], and
    /// [`Pool`](crate::LockErrorKind::Pool).
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
        F: AsyncLockBody<Self::Session, T, E>,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let (mut conn, options) =
                connection(self, &key, &options, LockScope::Transaction).await?;
            conn.try_with_advisory_xact_lock(key, options, body).await
        }
    }

    /// Detects a transaction pooler with two connections of the pool. On SQLite one is enough.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::detect_pooler`](crate::AdvisoryLocking::detect_pooler), and
    /// [`Pool`](crate::LockErrorKind::Pool). On PostgreSQL, a pool of one connection returns `Pool`
    /// after its own timeout, or after 30 s if that is earlier.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped during a checkout, the connections return to the pool. If it is
    /// dropped during the check, both sessions are terminated, because one of them may hold the
    /// lock of the check.
    fn detect_pooler(&self) -> impl Future<Output = Result<PoolingMode, LockError>> + Send {
        async move {
            let mut first = self.checkout().await.map_err(pool_error)?;
            // A second connection changes nothing, and a pool of SQLite may have one only.
            if first.session_backend() == Backend::Sqlite {
                return Ok(PoolingMode::NoLocks);
            }
            // While `first` is checked out, so that the pool returns another connection.
            let second = checkout_within(self, Some(SECOND_CHECKOUT)).await;
            let mut second = second.map_err(pool_error)?;
            first.detect_pooler(&mut *second).await
        }
    }

    /// Identifies the server, by a connection of the pool. See
    /// [`AdvisoryLocking::identify`](crate::AdvisoryLocking::identify).
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::identify`](crate::AdvisoryLocking::identify), and
    /// [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no lock is held after its statement.
    fn identify(&self) -> impl Future<Output = Result<ServerReport, LockError>> + Send {
        async move {
            let mut conn = self.checkout().await.map_err(pool_error)?;
            conn.identify().await
        }
    }

    /// Returns the sessions that hold the lock on `key` and the sessions that wait for it, by a
    /// connection of the pool. See [`AsyncAdvisoryLocking::advisory_lock_holders`].
    ///
    /// # Errors
    ///
    /// As [`AsyncAdvisoryLocking::advisory_lock_holders`], and
    /// [`Pool`](crate::LockErrorKind::Pool).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a report changes no lock.
    fn advisory_lock_holders(
        &self,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<LockReport, LockError>> + Send {
        let key = key.into();
        async move {
            let mut conn = self.checkout().await.map_err(pool_error)?;
            conn.advisory_lock_holders(key).await
        }
    }

    /// Returns a report for each advisory lock of the database that is held or awaited.
    ///
    /// # Errors
    ///
    /// As [`advisory_lock_holders`](Self::advisory_lock_holders).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a report changes no lock.
    fn advisory_locks(&self) -> impl Future<Output = Result<Vec<LockReport>, LockError>> + Send {
        async move {
            let mut conn = self.checkout().await.map_err(pool_error)?;
            conn.advisory_locks().await
        }
    }

    /// Returns the features of the pool's backend. Checks a connection out, because the connections
    /// of a pool may be an enum over several backends.
    ///
    /// # Errors
    ///
    /// [`Pool`](crate::LockErrorKind::Pool) and
    /// [`Unsupported`](crate::LockErrorKind::Unsupported), see [the trait](Self). No lock is held.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it sends no statement of its own.
    fn capabilities(&self) -> impl Future<Output = Result<Capabilities, LockError>> + Send {
        async move {
            let mut conn = self.checkout().await.map_err(pool_error)?;
            Ok(Capabilities::of(conn.session_backend()))
        }
    }
}

impl<P: AsyncLockPool> AsyncPooledAdvisoryLocking for P {}

/// Guard of a lock on a connection of the async pool `P`, for a struct that owns a lock.
///
/// # Examples
///
/// With a bb8 pool, `P` is `Pool<AsyncPgConnection>`. With SeaORM it is the `DatabaseConnection`:
///
#[cfg_attr(feature = "sea-orm", doc = "```")]
#[cfg_attr(not(feature = "sea-orm"), doc = "```ignore")]
/// use advisory_locking::{AsyncPooledAdvisoryLockGuard, AsyncPooledAdvisoryLocking, LockOptions};
/// use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
///
/// struct Leader {
///     lock: AsyncPooledAdvisoryLockGuard<DatabaseConnection>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), sea_orm::DbErr> {
/// let db = Database::connect("sqlite::memory:").await?; // postgres://… in production
/// let options = LockOptions::no_wait();
/// let lock = db.acquire_advisory_lock("async-pool-guard-leader", options).await?;
/// let leader = Leader { lock };
/// leader.lock.execute_unprepared("CREATE TABLE term (number INTEGER)").await?;
/// leader.lock.release().await?;
/// # Ok(())
/// # }
/// ```
pub type AsyncPooledAdvisoryLockGuard<P> = AsyncAdvisoryLockGuard<<P as AsyncLockPool>::Connection>;

/// Validates the options and checks a connection out. Returns the options for the rest of the call.
/// Records a failure.
async fn connection<P: AsyncLockPool>(
    pool: &P,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
) -> Result<(P::Connection, LockOptions), LockError> {
    let request = UnconnectedRequest::new(key, options, scope)?;
    let checked_out = checkout_within(pool, checkout_limit(options)).await;
    #[cfg(feature = "testing")]
    let checked_out = checked_out.and_then(|mut conn| {
        crate::testing::checkout_fault(conn.session_backend(), key).map(|()| conn)
    });
    request.checked_out(checked_out)
}

/// Checks a connection out, and drops the checkout at the limit. The connection then stays with the
/// pool.
pub(crate) async fn checkout_within<P: AsyncLockPool>(
    pool: &P,
    limit: Option<Duration>,
) -> Result<P::Connection, SessionError> {
    let mut checkout = pin!(pool.checkout());
    // Created for a pending checkout only, because its creation wakes the thread of the timers.
    let mut timer = None;
    poll_fn(|context| {
        // The checkout first: a connection that is there counts, also if the limit has passed.
        if let Poll::Ready(checked_out) = checkout.as_mut().poll(context) {
            return Poll::Ready(checked_out);
        }
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        // Unlike tokio's timer, this one also works on a thread without a runtime.
        let timer = timer.get_or_insert_with(|| Delay::new(limit));
        Pin::new(timer).poll(context).map(|()| {
            Err(SessionError::new(
                "the limit passed before the pool returned a connection",
            ))
        })
    })
    .await
}
