//! Named locks on an async connection: [`AsyncAdvisoryLocking`].

mod transaction;

use std::ops::DerefMut;
use std::pin::pin;

use super::AsyncAdvisoryLockGuard;
use crate::capabilities::Capabilities;
use crate::combine_results::combine_results;
use crate::driver::asynchronous::{
    drive_acquire, drive_pair, identify, report, snapshot, with_holders,
};
use crate::error::{LockError, contended_to_none};
use crate::key::LockKey;
use crate::lock_report::LockReport;
use crate::options::{LockOptions, LockScope};
use crate::pooling_mode::PoolingMode;
use crate::protocol::{Acquire, Grant, PoolerCheck};
use crate::server_report::ServerReport;
use crate::session::{AsyncLockBody, AsyncLockSession, Statement};

/// Named locks on an async database connection. The async counterpart of
/// [`AdvisoryLocking`](crate::AdvisoryLocking), which documents the contract.
///
/// A body is an async closure with the connection as its argument: `async |conn| { … }`. `|conn|
/// async move { … }` does not compile; the compiler reports an `AsyncFnOnce` that is "not general
/// enough". The futures are `Send` if the future of the body is.
///
/// # Cancel safety
///
/// Every future may be dropped at any point, by `select!`, a timeout or an aborted task:
///
/// | dropped | lock and connection |
/// |---|---|
/// | before its first poll | nothing was sent |
/// | in a pause between two polls of [`WaitStrategy::Poll`](crate::WaitStrategy::Poll) | no lock is held, and no place in a queue is lost |
/// | with a lock statement in flight | the session is terminated, and the pool discards the connection |
/// | in the body | the lock is released as soon as the statement that the body left in flight has ended |
/// | in the body, if that leaves a transaction open | the session is terminated; with sqlx and SeaORM, the transaction is rolled back, and then the lock is released |
/// | in a transaction that this crate began, a pause in its savepoint included | the session is terminated; with sqlx, the transaction is rolled back and the connection stays usable |
///
/// In a transaction of the application, sqlx differs: see the module `backends::sqlx`.
///
/// A dropped wait leaves the server's queue early. A new wait starts at the end of the queue.
///
/// | client | end of a dropped wait |
/// |---|---|
/// | diesel-async, tokio-postgres | A cancel request ends it. With `sslmode=require` the request needs a TLS connector: see the module `backends::diesel_async`. Without a request, the server ends the wait after the connection is closed. |
/// | SeaORM, sqlx's `PgPool` | The session is terminated over another connection. |
/// | sqlx's other types | It lasts 1.5 s at most. |
///
/// # Examples
///
#[cfg_attr(feature = "diesel-async-sqlite", doc = "```")]
#[cfg_attr(not(feature = "diesel-async-sqlite"), doc = "```ignore")]
/// use advisory_locking::{AsyncAdvisoryLocking, LockOptions};
/// use diesel::sqlite::SqliteConnection;
/// use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
/// use diesel_async::{AsyncConnection, RunQueryDsl};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In production an `AsyncPgConnection`; in tests SQLite, which has no locks.
/// let mut conn = SyncConnectionWrapper::<SqliteConnection>::establish(":memory:").await?;
/// conn.with_advisory_lock("driver_update_1", LockOptions::no_wait(), async |conn| {
///     diesel::sql_query("CREATE TABLE drivers (id INTEGER)").execute(conn).await
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no async advisory locks here",
    label = "no async advisory locks"
)]
#[cfg_attr(
    not(feature = "diesel-async-postgres"),
    diagnostic::on_unimplemented(
        note = "`AsyncPgConnection` needs the feature `diesel-async-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "diesel-async-sqlite"),
    diagnostic::on_unimplemented(
        note = "`SyncConnectionWrapper` needs the feature `diesel-async-sqlite`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "sqlx-postgres"),
    diagnostic::on_unimplemented(
        note = "sqlx's `PgConnection` needs the feature `sqlx-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "sqlx-sqlite"),
    diagnostic::on_unimplemented(
        note = "sqlx's `SqliteConnection` needs the feature `sqlx-sqlite`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "tokio-postgres"),
    diagnostic::on_unimplemented(
        note = "tokio-postgres's `Client` needs the feature `tokio-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "deadpool-postgres"),
    diagnostic::on_unimplemented(
        note = "a client of deadpool-postgres needs the feature `deadpool-postgres`, which is off"
    )
)]
#[cfg_attr(
    feature = "sqlx-postgres",
    diagnostic::on_unimplemented(
        note = "of sqlx's connections use `PgConnection`: neither `AnyConnection` nor \
                `MySqlConnection` has locks"
    )
)]
pub trait AsyncAdvisoryLocking: AsyncLockSession + Sized {
    /// Runs `body` under the session-level lock on `key`, on this connection.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::with_advisory_lock`](crate::AdvisoryLocking::with_advisory_lock). The
    /// lock is not held afterwards, with the exception stated there.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [the trait](Self).
    fn with_advisory_lock<T, E, F>(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        F: AsyncLockBody<Self, T, E>,
        E: From<LockError> + Send,
        T: Send,
    {
        // Outside the future, which has to be `Send` for every type of key.
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
    /// As
    /// [`AdvisoryLocking::try_with_advisory_lock`](crate::AdvisoryLocking::try_with_advisory_lock).
    /// The lock is not held afterwards, with the exception stated there.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [the trait](Self).
    fn try_with_advisory_lock<T, E, F>(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, E>> + Send
    where
        F: AsyncLockBody<Self, T, E>,
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

    /// Acquires the session-level lock on `key` and returns a guard that holds it.
    ///
    /// # Errors
    ///
    /// As
    /// [`AdvisoryLocking::acquire_advisory_lock`](crate::AdvisoryLocking::acquire_advisory_lock).
    /// The lock is not held, with the exception stated there.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [the trait](Self).
    fn acquire_advisory_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<AsyncAdvisoryLockGuard<&mut Self>, LockError>> + Send {
        let key = key.into();
        async move {
            let acquired = acquire(self, &key, &options, LockScope::Session).await;
            let grant = with_holders(self, &key, &options, acquired).await?;
            Ok(AsyncAdvisoryLockGuard::new(self, grant))
        }
    }

    /// Acquires the session-level lock on `key`, or returns `None` if it is not granted.
    ///
    /// # Errors
    ///
    /// As the blocking [`try_acquire_advisory_lock`][blocking]. The lock is not held, with the
    /// exception stated there.
    ///
    /// [blocking]: crate::AdvisoryLocking::try_acquire_advisory_lock
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [the trait](Self).
    fn try_acquire_advisory_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<Option<AsyncAdvisoryLockGuard<&mut Self>>, LockError>> + Send
    {
        let key = key.into();
        async move {
            let acquired = acquire(self, &key, &options, LockScope::Session).await;
            let grant = contended_to_none(acquired)?;
            Ok(grant.map(|grant| AsyncAdvisoryLockGuard::new(self, grant)))
        }
    }

    /// Acquires the transaction-level lock on `key` inside the caller's open transaction. The lock
    /// is held until that transaction ends.
    ///
    /// # Errors
    ///
    /// As the blocking [`acquire_advisory_xact_lock`][blocking]. The lock is not held.
    ///
    /// [blocking]: crate::AdvisoryLocking::acquire_advisory_xact_lock
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [the trait](Self).
    fn acquire_advisory_xact_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<(), LockError>> + Send {
        let key = key.into();
        async move {
            let acquired = acquire(self, &key, &options, LockScope::Transaction);
            acquired.await.map(drop)
        }
    }

    /// Acquires the transaction-level lock on `key` inside the caller's open transaction, or
    /// returns `false` if it is not granted.
    ///
    /// # Errors
    ///
    /// As the blocking [`try_acquire_advisory_xact_lock`][blocking]. The lock is not held.
    ///
    /// [blocking]: crate::AdvisoryLocking::try_acquire_advisory_xact_lock
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [the trait](Self).
    fn try_acquire_advisory_xact_lock(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<bool, LockError>> + Send {
        let key = key.into();
        async move {
            let acquired = acquire(self, &key, &options, LockScope::Transaction).await;
            Ok(contended_to_none(acquired)?.is_some())
        }
    }

    /// Begins a transaction, acquires the transaction-level lock on `key`, runs `body`, and
    /// commits. Rolls back if the body fails. It pauses between two polls as the blocking
    /// [`with_advisory_xact_lock`][blocking].
    ///
    /// A body that runs no statement has no snapshot in `READ COMMITTED`. With diesel-async, that
    /// holds outside a transaction of the caller, from the second call on a connection on.
    ///
    /// # Errors
    ///
    /// As the blocking [`with_advisory_xact_lock`][blocking]. The lock is not held afterwards,
    /// unless an outer transaction is still open or the transaction was prepared.
    ///
    /// [blocking]: crate::AdvisoryLocking::with_advisory_xact_lock
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, see [the trait](Self). A drop while the transaction is open rolls it back. With
    /// clients other than sqlx, the session is terminated for that. A drop during the commit leaves
    /// it committed or rolled back, and terminates the session. A drop between two polls outside
    /// the transaction leaves nothing behind.
    fn with_advisory_xact_lock<T, E, F>(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        F: AsyncLockBody<Self, T, E>,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let acquired = transaction::begin_and_acquire(self, &key, &options).await;
            let grant = with_holders(self, &key, &options, acquired).await?;
            transaction::run_in_transaction(self, grant, body).await
        }
    }

    /// Runs `body` as [`with_advisory_xact_lock`](Self::with_advisory_xact_lock) does, or returns
    /// `None` if the lock is not granted. The body did not run then.
    ///
    /// # Errors
    ///
    /// As the blocking [`try_with_advisory_xact_lock`][blocking]. The lock is not held afterwards,
    /// unless an outer transaction is still open or the transaction was prepared.
    ///
    /// [blocking]: crate::AdvisoryLocking::try_with_advisory_xact_lock
    ///
    /// # Cancel safety
    ///
    /// As [`with_advisory_xact_lock`](Self::with_advisory_xact_lock).
    fn try_with_advisory_xact_lock<T, E, F>(
        &mut self,
        key: impl Into<LockKey>,
        options: LockOptions,
        body: F,
    ) -> impl Future<Output = Result<Option<T>, E>> + Send
    where
        F: AsyncLockBody<Self, T, E>,
        E: From<LockError> + Send,
        T: Send,
    {
        let key = key.into();
        async move {
            let acquired = transaction::begin_and_acquire(self, &key, &options).await;
            match contended_to_none(acquired)? {
                Some(grant) => transaction::run_in_transaction(self, grant, body)
                    .await
                    .map(Some),
                None => Ok(None),
            }
        }
    }

    /// Detects a transaction pooler, with a second connection to the same address.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::detect_pooler`](crate::AdvisoryLocking::detect_pooler), which also
    /// says when the lock of the check may be held afterwards.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before its end, both sessions are terminated, because one of them
    /// may hold the lock of the check.
    fn detect_pooler(
        &mut self,
        other: &mut Self,
    ) -> impl Future<Output = Result<PoolingMode, LockError>> + Send {
        async move {
            self.session_await_rollbacks().await;
            other.session_await_rollbacks().await;
            let check = PoolerCheck::new(&snapshot(self), &snapshot(other));
            drive_pair(self, other, check).await
        }
    }

    /// Returns the kind and version of the server, and the behaviour of its lock functions.
    ///
    /// The call tries a transaction-level lock on a random key, which ends with its statement. On
    /// SQLite it sends nothing.
    ///
    /// # Errors
    ///
    /// No lock is held by the call.
    ///
    /// * [`InTransaction`](crate::LockErrorKind::InTransaction): a transaction is open, which a
    ///   refused statement would abort.
    /// * [`Database`](crate::LockErrorKind::Database),
    ///   [`Canceled`](crate::LockErrorKind::Canceled) or another kind: the server did not return
    ///   its version.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no lock is held after its statement.
    fn identify(&mut self) -> impl Future<Output = Result<ServerReport, LockError>> + Send {
        identify(self)
    }

    /// Returns the sessions that hold the lock on `key` and the sessions that wait for it.
    ///
    /// A snapshot: the lock may change hands before the caller reads the report. It contains at
    /// most 1,000 sessions, and no client that polls. A role sees the process id, the role and the
    /// application name of every session. It sees [`details`](crate::SessionInfo::details) only of
    /// sessions of its own roles, unless it is a member of `pg_read_all_stats`. On SQLite the
    /// report is empty.
    ///
    /// The server copies its whole lock table for a report, so call it once after a timeout and
    /// not in a loop.
    ///
    /// # Errors
    ///
    /// [`Database`](crate::LockErrorKind::Database) or another kind, if the statement failed. Locks
    /// that the connection holds stay held.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: locks that the connection holds stay held.
    fn advisory_lock_holders(
        &mut self,
        key: impl Into<LockKey>,
    ) -> impl Future<Output = Result<LockReport, LockError>> + Send {
        let key = key.into();
        async move {
            let reports = report(self, Statement::report(Some(key.raw()))).await;
            reports
                .map(|reports| LockReport::of_key(key.raw(), reports))
                .map_err(|error| error.with_key(&key))
        }
    }

    /// Returns a report for each advisory lock of the database that is held or awaited.
    ///
    /// All reports together contain at most 1,000 sessions, those of awaited locks first. For the
    /// rest see [`advisory_lock_holders`](Self::advisory_lock_holders).
    ///
    /// # Errors
    ///
    /// As [`advisory_lock_holders`](Self::advisory_lock_holders).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: locks that the connection holds stay held.
    fn advisory_locks(
        &mut self,
    ) -> impl Future<Output = Result<Vec<LockReport>, LockError>> + Send {
        report(self, Statement::report(None))
    }

    /// Returns the features of the connection's backend. Sends nothing.
    #[must_use]
    fn capabilities(&mut self) -> Capabilities {
        Capabilities::of(self.session_backend())
    }
}

impl<S: AsyncLockSession> AsyncAdvisoryLocking for S {}

pub(crate) async fn acquire<S: AsyncLockSession>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
) -> Result<Grant, LockError> {
    drive_acquire(session, key, options, scope, |key, options, snapshot| {
        Acquire::new(key, options, scope, snapshot)
    })
    .await
}

/// Runs a body on the connection of a guard, then releases the lock.
pub(crate) async fn run_with_guard<C, S, T, E, F>(
    mut guard: AsyncAdvisoryLockGuard<C>,
    body: F,
) -> Result<T, E>
where
    C: DerefMut<Target = S> + Send,
    S: AsyncLockSession,
    F: AsyncLockBody<S, T, E>,
    E: From<LockError> + Send,
    T: Send,
{
    // If the body panics or the future is dropped here, the drop of the guard releases the lock.
    let span = guard.span();
    let result = span.run(pin!(body(&mut guard))).await;
    // The span covers the body and not the release.
    drop(span);
    combine_results(result, guard.release().await)
}
