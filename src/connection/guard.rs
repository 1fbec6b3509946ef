//! A lock that is held: [`AdvisoryLockGuard`].

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::driver::blocking::{drive, run_in_drop, snapshot};
use crate::error::LockError;
use crate::events;
use crate::key::LockKey;
use crate::options::LockMode;
use crate::protocol::{Grant, Release};
use crate::session::LockSession;
use crate::stand_in::Kept;

/// A session-level lock that is held, and the connection it is held on.
///
/// Dereferences to the connection, so that what is done under the lock is done on the connection that holds it. `C` is
/// `&mut` a connection, or a pool's connection.
///
/// Dropping the guard releases the lock with one statement, also while a panic unwinds; what goes wrong then is logged.
/// [`release`](Self::release) reports it. If the lock cannot be given back, the connection is closed, which frees it: at no
/// time does a connection that may hold the lock go back to a pool. A guard that is leaked ([`std::mem::forget`]) holds the
/// lock until its connection is closed.
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
/// guard.execute_batch("CREATE TABLE report (day TEXT)")?; // the connection, through the guard
/// guard.release()?;
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct AdvisoryLockGuard<C: DerefMut<Target: LockSession>> {
    conn: Kept<C>,
    key: LockKey,
    mode: LockMode,
    /// Taken when the lock is given back.
    grant: Option<Grant>,
}

impl<C: DerefMut<Target: LockSession>> AdvisoryLockGuard<C> {
    pub(crate) fn new(conn: C, grant: Grant) -> Self {
        let mut conn = Kept::new(conn);
        if let Some(hold) = &grant.hold {
            hold.set_session(&mut **conn);
        }
        let guard = Self {
            conn,
            key: grant.key.clone(),
            mode: grant.mode,
            grant: Some(grant),
        };
        guard.grant.iter().for_each(events::granted);
        guard
    }

    /// The key of the lock.
    #[must_use]
    pub const fn key(&self) -> &LockKey {
        &self.key
    }

    /// The mode in which it is held.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    /// Releases the lock and tells whether it was held all the time.
    ///
    /// Gives back one level of this key in this mode; other locks of the session, and outer levels of this one, stay.
    ///
    /// # Errors
    ///
    /// The lock is not held afterwards, whatever is returned.
    ///
    /// * [`Lost`](crate::LockErrorKind::Lost): the session had ended; another session may have held the lock meanwhile.
    /// * [`NotHeld`](crate::LockErrorKind::NotHeld): something else on this connection had released it.
    /// * [`SessionChanged`](crate::LockErrorKind::SessionChanged): another session answered than the one that was granted
    ///   the lock. The one exception: the lock may stay with a session of the pooler.
    /// * [`TransactionLeftOpen`](crate::LockErrorKind::TransactionLeftOpen): a transaction begun under the lock is still open;
    ///   the connection was closed.
    /// * [`Database`](crate::LockErrorKind::Database): the statement failed; the connection was closed.
    pub fn release(mut self) -> Result<(), LockError> {
        self.release_in_place()
    }

    fn release_in_place(&mut self) -> Result<(), LockError> {
        let Some(grant) = self.grant.take() else {
            return Ok(());
        };
        let session = &mut **self.conn;
        let snapshot = snapshot(session);
        drive(session, Release::new(grant, snapshot)).inspect(|()| events::released(&self.key))
    }
}

impl<C: DerefMut<Target: LockSession>> Drop for AdvisoryLockGuard<C> {
    fn drop(&mut self) {
        run_in_drop(|| {
            if let Err(error) = self.release_in_place() {
                events::release_failed(&error);
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
            .finish_non_exhaustive()
    }
}
