//! The ports that pools implement.

use std::ops::DerefMut;
use std::time::Duration;

#[cfg(feature = "_async")]
use super::AsyncLockSession;
use super::{LockSession, SessionError};

/// A pool of connections, as the locking protocol uses it.
///
/// # Contract
///
/// [`checkout`](Self::checkout) hands out a connection that has no other user until it is dropped.
/// It never hands out a connection that was dropped while it was
/// [broken](LockSession::session_mark_broken).
///
/// A type that wraps a pool delegates every method. Without
/// [`checkout_within`](Self::checkout_within), the limit of a call would not cover its checkout.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use advisory_locking::session::{LockPool, SessionError};
///
/// /// Pool of an application, which adds methods of its own.
/// struct AppPool<P>(P);
///
/// impl<P: LockPool> LockPool for AppPool<P> {
///     type Session = P::Session;
///     type Connection = P::Connection;
///
///     fn checkout(&self) -> Result<P::Connection, SessionError> {
///         self.0.checkout()
///     }
///
///     fn checkout_within(&self, limit: Duration) -> Result<P::Connection, SessionError> {
///         self.0.checkout_within(limit)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no pool of connections with advisory locks here",
    label = "no lock pool",
    note = "for a pool of your own, implement `advisory_locking::session::LockPool`",
    note = "an async pool has the methods of `AsyncPooledAdvisoryLocking`, and \
            `LockManager::over_async_pool` accepts it"
)]
#[cfg_attr(
    not(feature = "async-lock-manager"),
    diagnostic::on_unimplemented(
        note = "`LockManager::over_async_pool` needs the feature `async-lock-manager`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "r2d2"),
    diagnostic::on_unimplemented(note = "a pool of r2d2 needs the feature `r2d2`, which is off")
)]
pub trait LockPool {
    /// A connection.
    type Session: LockSession;
    /// A connection that is checked out.
    type Connection: DerefMut<Target = Self::Session>;

    /// Checks a connection out.
    ///
    /// # Errors
    ///
    /// As the pool reports them. No connection is checked out.
    fn checkout(&self) -> Result<Self::Connection, SessionError>;

    /// Checks a connection out, and waits for it at most for `limit`, or for the pool's own timeout
    /// if that is shorter.
    ///
    /// The default ignores the limit, for a pool that has no such method.
    ///
    /// # Errors
    ///
    /// As the pool reports them. No connection is checked out.
    fn checkout_within(&self, limit: Duration) -> Result<Self::Connection, SessionError> {
        let _ = limit;
        self.checkout()
    }
}

#[cfg(feature = "_async")]
/// An async pool of connections, with the contract of [`LockPool`]. A type that wraps a pool
/// delegates [`closed`](Self::closed), too.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no async pool of connections with advisory locks here",
    label = "no async lock pool",
    note = "for a pool of your own, implement `advisory_locking::session::AsyncLockPool`",
    note = "a blocking pool has the methods of `PooledAdvisoryLocking`, and \
            `LockManager::over_blocking_pool` accepts it"
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
pub trait AsyncLockPool: Sync {
    /// A connection.
    type Session: AsyncLockSession;
    /// A connection that is checked out.
    type Connection: DerefMut<Target = Self::Session> + Send;

    /// Checks a connection out.
    ///
    /// # Errors
    ///
    /// As the pool reports them. No connection is checked out.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point; the connection stays with the pool. The caller drops
    /// it at the limit of its call.
    fn checkout(&self) -> impl Future<Output = Result<Self::Connection, SessionError>> + Send;

    /// Completes when the pool is being closed, if its close waits for the connections.
    ///
    /// Then a lock manager closes as well, so that its idle sessions do not keep the pool open. By
    /// default it stays pending.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point.
    fn closed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}
