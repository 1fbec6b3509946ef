//! Guard of a session-level lock on a blocking connection: [`AdvisoryLockGuard`].

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::driver::blocking::drive_release;
use crate::driver::run_in_drop;
use crate::error::LockError;
use crate::events::{LockSpan, release_failed};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::protocol::{Grant, Release};
use crate::session::LockSession;

/// Guard of a held session-level lock, with the connection that holds it.
///
/// Dereferences to the connection, so that statements under the lock run on the session that holds
/// it. `C` is a `&mut` reference to a connection, or a connection of a pool.
///
/// Dropping the guard releases the lock with one statement, also during a panic. Errors are logged
/// then; [`release`](Self::release) returns them. If the release fails, the session is terminated,
/// which releases the lock. So no connection that may hold the lock returns to a pool. A leaked
/// guard ([`std::mem::forget`]) holds the lock until its session ends.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "rusqlite")] {
/// use advisory_locking::{AdvisoryLocking, LockOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut conn = rusqlite::Connection::open_in_memory()?;
/// let guard = conn.acquire_advisory_lock("nightly-report", LockOptions::no_wait())?;
/// guard.execute_batch("CREATE TABLE report (day TEXT)")?; // uses the connection
/// guard.release()?;
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct AdvisoryLockGuard<C: DerefMut<Target: LockSession>> {
    conn: Box<C>,
    key: LockKey,
    mode: LockMode,
    /// `None` once the release has started.
    grant: Option<Grant>,
}

impl<C: DerefMut<Target: LockSession>> AdvisoryLockGuard<C> {
    pub(crate) fn new(conn: C, grant: Grant) -> Self {
        // Boxed: in a unit test, the address of the connection identifies its session.
        let conn = Box::new(conn);
        #[cfg(feature = "testing")]
        crate::testing::set_session(&grant, &**conn);
        Self {
            conn,
            key: grant.key.clone(),
            mode: grant.mode,
            grant: Some(grant),
        }
    }

    /// Returns the key of the lock.
    #[must_use]
    pub const fn key(&self) -> &LockKey {
        &self.key
    }

    /// Returns the mode of the lock.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    /// Returns the process id of the server session that holds the lock, for
    /// [`pg_terminate_backend`] and the server's log. `None` on a backend without locks.
    ///
    /// [`pg_terminate_backend`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
    #[must_use]
    pub fn session_pid(&self) -> Option<i32> {
        self.grant.as_ref().and_then(|grant| grant.pid)
    }

    /// Returns `true` if the client has marked the connection as broken, usually because the
    /// session has ended and the lock is lost. Sends nothing.
    ///
    /// `false` is no proof that the lock is held: a blocking client learns of the end from a failed
    /// statement. Only [`release`](Self::release) asks the server. A lock manager checks by itself,
    /// and its guards notify the holder.
    #[must_use]
    pub fn is_lost(&mut self) -> bool {
        #[cfg(feature = "testing")]
        if self.grant.as_ref().is_some_and(crate::testing::is_lost) {
            return true;
        }
        self.conn.session_transaction_state().is_broken()
    }

    /// Returns the span of a body under the lock.
    pub(crate) fn span(&self) -> LockSpan {
        let grant = self.grant.as_ref();
        grant.map_or_else(LockSpan::default, Grant::span)
    }

    /// Releases the lock and reports whether it was held without interruption.
    ///
    /// Releases one level of this key in this mode. Other locks of the session and other levels of
    /// this lock stay held.
    ///
    /// # Errors
    ///
    /// The lock is not held afterwards, with one exception in this list.
    ///
    /// * [`Lost`](crate::LockErrorKind::Lost): the session ended before the release. Another
    ///   session may have held the lock since.
    /// * [`NotHeld`](crate::LockErrorKind::NotHeld): another statement on this connection released
    ///   the lock, such as [`DISCARD ALL`]. If the release statement failed too, the session was
    ///   terminated.
    /// * [`SessionChanged`](crate::LockErrorKind::SessionChanged): another session replied than the
    ///   one that was granted the lock. This is the exception: a session of a pooler may still hold
    ///   the lock.
    /// * [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen): a transaction that
    ///   began under the lock is still open. Or the lock was acquired in an open transaction that
    ///   the client library does not know of. The session was terminated.
    /// * [`Database`](crate::LockErrorKind::Database): the release statement failed, and the lock
    ///   was held until then. The session was terminated.
    ///
    /// [`DISCARD ALL`]: https://www.postgresql.org/docs/current/sql-discard.html
    pub fn release(mut self) -> Result<(), LockError> {
        self.release_in_place()
    }

    /// Releases the lock, at most once: the drop after a call of `release` finds no grant.
    fn release_in_place(&mut self) -> Result<(), LockError> {
        let Some(grant) = self.grant.take() else {
            return Ok(());
        };
        drive_release(&mut **self.conn, grant, Release::new)
    }
}

impl<C: DerefMut<Target: LockSession>> Drop for AdvisoryLockGuard<C> {
    fn drop(&mut self) {
        run_in_drop(|| {
            if let Err(error) = self.release_in_place() {
                release_failed(&error);
            }
        });
    }
}

impl<C: DerefMut<Target: LockSession>> Deref for AdvisoryLockGuard<C> {
    type Target = C::Target;

    fn deref(&self) -> &Self::Target {
        &self.conn
    }
}

impl<C: DerefMut<Target: LockSession>> DerefMut for AdvisoryLockGuard<C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.conn
    }
}

impl<C: DerefMut<Target: LockSession>> fmt::Debug for AdvisoryLockGuard<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AdvisoryLockGuard")
            .field("key", &self.key)
            .field("mode", &self.mode)
            .field("session_pid", &self.session_pid())
            .finish_non_exhaustive()
    }
}
