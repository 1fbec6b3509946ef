//! Guard of a session-level lock on an async connection: [`AsyncAdvisoryLockGuard`].

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::driver::asynchronous::{TerminateIfArmed, drive_release};
use crate::driver::run_in_drop;
use crate::error::{LockError, LockErrorKind};
use crate::events::{GrantRecord, LockSpan};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::protocol::{Grant, Release};
use crate::session::{AsyncLockSession, QueuedRelease, Script};

/// Guard of a held session-level lock, with the async connection that holds it. The async
/// counterpart of [`AdvisoryLockGuard`](crate::AdvisoryLockGuard).
///
/// [`release`](Self::release) releases the lock and returns the errors of the release. Dropping the
/// guard releases it without waiting. The release is queued behind the statements in flight, and
/// the server terminates the session if the release fails. If the guard is dropped inside a
/// transaction, the session is terminated.
///
/// A leaked guard ([`std::mem::forget`]) holds the lock until its session ends.
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
/// let mut guard = conn.acquire_advisory_lock("nightly-report", LockOptions::no_wait()).await?;
/// // The guard dereferences to the connection.
/// diesel::sql_query("CREATE TABLE report (day TEXT)").execute(&mut *guard).await?;
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct AsyncAdvisoryLockGuard<C: DerefMut<Target: AsyncLockSession + Sized>> {
    conn: Box<C>,
    key: LockKey,
    mode: LockMode,
    /// `None` once the release has started.
    grant: Option<Grant>,
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> AsyncAdvisoryLockGuard<C> {
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
}

impl<C: DerefMut<Target: AsyncLockSession + Sized> + Send> AsyncAdvisoryLockGuard<C> {
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

    /// Returns `true` if the client knows, without I/O, that the session has ended and the lock is
    /// lost.
    ///
    /// `false` is no proof that the lock is held: a client may learn of the end only from a
    /// statement, or from a network that reports it late.
    ///
    /// | client | knows of a closed connection |
    /// |---|---|
    /// | tokio-postgres and its pools | when the server has closed it |
    /// | diesel-async with `bb8`, `deadpool` or `mobc` | when the server has closed it |
    /// | diesel-async without these pools, sqlx | at the release |
    /// | the others | after a failed statement, at the latest |
    ///
    /// A lock manager checks by itself, and its guards notify the holder.
    #[must_use]
    pub fn is_lost(&mut self) -> bool {
        #[cfg(feature = "testing")]
        if self.grant.as_ref().is_some_and(crate::testing::is_lost) {
            return true;
        }
        self.conn.session_has_ended()
    }

    /// Returns the span of a body under the lock.
    pub(crate) fn span(&self) -> LockSpan {
        let grant = self.grant.as_ref();
        grant.map_or_else(LockSpan::default, Grant::span)
    }

    /// Releases the lock and reports whether it was held without interruption.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLockGuard::release`](crate::AdvisoryLockGuard::release). The lock is not held
    /// afterwards, with the exception stated there.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before its first poll, the effect is that of dropping the guard. If
    /// it is dropped later, the session is terminated.
    pub async fn release(mut self) -> Result<(), LockError> {
        self.conn.session_await_rollbacks().await;
        // Taken before the await: after a drop at this point the driver terminates the session, and
        // the guard's own drop sends no second release.
        match self.grant.take() {
            Some(grant) => drive_release(&mut **self.conn, grant, Release::new).await,
            None => Ok(()),
        }
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> Drop for AsyncAdvisoryLockGuard<C> {
    fn drop(&mut self) {
        let Some(mut grant) = self.grant.take() else {
            return;
        };
        let record = grant.record.take().map(GrantRecord::releasing);
        let queued = QueuedRelease::new(record);
        // Backends without locks: nothing to release, and the connection may be in use.
        let Some(pid) = grant.pid else {
            return queued.replied(Ok(()));
        };
        run_in_drop(|| {
            let mut release = TerminateIfArmed::new(&mut **self.conn, Some(pid));
            release.armed = !enqueue(&mut *release, pid, &grant, queued);
            #[cfg(feature = "testing")]
            if release.armed && grant.attachment.is_some() {
                crate::testing::end_session(grant, &*release);
                // The end of a session rolls its transactions back. SQLite has no session to end.
                release.roll_back_to(Some(0));
            }
        });
    }
}

/// Queues the release of a dropped guard. Returns `false` if the session must be terminated.
fn enqueue<S: AsyncLockSession>(
    session: &mut S,
    pid: i32,
    grant: &Grant,
    queued: QueuedRelease,
) -> bool {
    // Inside a transaction the queued release could fail in the aborted transaction, or precede
    // the commit. No caller would see that, so the session is terminated instead.
    let transaction = session.session_transaction_state();
    #[cfg(feature = "testing")]
    if grant.attachment.is_some() && is_released_with_grant(session, grant) {
        queued.unread();
        return true;
    }
    if transaction.depth() > grant.depth {
        #[cfg(feature = "testing")]
        crate::testing::not_released(grant, LockErrorKind::TransactionLeftOpen);
        queued.failed(LockErrorKind::TransactionLeftOpen);
    } else if transaction.is_broken() {
        #[cfg(feature = "testing")]
        crate::testing::not_released(grant, LockErrorKind::Lost);
        queued.failed(LockErrorKind::Lost);
    } else if !transaction.is_open_on_server() {
        return session.session_enqueue_release(&release_script(pid, grant), queued);
    }
    false
}

/// Returns `true` if a simulated lock is released with its grant, `false` if its session must end.
///
/// A test's transaction does not count: the tested code has no such transaction in production.
#[cfg(feature = "testing")]
fn is_released_with_grant<S: AsyncLockSession>(session: &mut S, grant: &Grant) -> bool {
    let transaction = session.session_transaction_state();
    if transaction.is_open() {
        // sqlx counts a dropped transaction until its thread has rolled it back. One more rollback
        // has no effect then.
        return grant.depth == 0 && session.session_start_rollback_to(0);
    }
    !transaction.is_broken()
}

fn release_script(pid: i32, grant: &Grant) -> Script {
    Script::ReleaseOrTerminate {
        key: grant.key.raw(),
        mode: grant.mode,
        pid,
        transaction_began: grant.transaction_began,
        // Distinguishes the record of this release from that of an earlier one.
        nonce: fastrand::u64(..),
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> Deref for AsyncAdvisoryLockGuard<C> {
    type Target = C::Target;

    fn deref(&self) -> &Self::Target {
        &self.conn
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> DerefMut for AsyncAdvisoryLockGuard<C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.conn
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> fmt::Debug for AsyncAdvisoryLockGuard<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AsyncAdvisoryLockGuard")
            .field("key", &self.key)
            .field("mode", &self.mode)
            .field("session_pid", &self.session_pid())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::driver::asynchronous::tests::{PanickingSession, assert_panics_once};
    use crate::session::{Backend, SessionError, TransactionState};

    /// Session that records how it ends.
    struct RecordingSession {
        transaction: TransactionState,
        accepts_messages: bool,
        enqueued: u32,
        terminated: u32,
    }

    impl AsyncLockSession for RecordingSession {
        fn session_backend(&mut self) -> Backend {
            Backend::Postgres
        }

        fn session_transaction_state(&mut self) -> TransactionState {
            self.transaction
        }

        fn session_mark_broken(&mut self) {}

        async fn session_begin(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
            Ok(())
        }

        async fn session_rollback(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        fn session_start_terminate(&mut self, _: Option<i32>) {
            self.terminated += 1;
        }

        fn session_enqueue(&mut self, _: &Script) -> bool {
            self.enqueued += 1;
            self.accepts_messages
        }

        async fn session_sleep(&mut self, _: Duration) {}
    }

    fn guard<S: AsyncLockSession>(session: &mut S) -> AsyncAdvisoryLockGuard<&mut S> {
        AsyncAdvisoryLockGuard::new(session, Grant::of_session(Some(1), 0))
    }

    /// Drops a guard. Returns how often messages were queued, and the session terminated.
    fn dropped(transaction: TransactionState, accepts_messages: bool) -> (u32, u32) {
        let mut session = RecordingSession {
            transaction,
            accepts_messages,
            enqueued: 0,
            terminated: 0,
        };
        drop(guard(&mut session));
        (session.enqueued, session.terminated)
    }

    #[test]
    fn dropped_guard_enqueues_its_release() {
        assert_eq!(dropped(TransactionState::none(), true), (1, 0));
    }

    /// A queued release would run before the transaction ends.
    #[test]
    fn guard_dropped_in_a_transaction_terminates() {
        for transaction in [
            TransactionState::open(1),
            TransactionState::in_test(0),
            TransactionState::broken(),
        ] {
            assert_eq!(dropped(transaction, true), (0, 1), "{transaction:?}");
        }
    }

    #[test]
    fn guard_that_cannot_enqueue_terminates() {
        assert_eq!(dropped(TransactionState::none(), false), (1, 1));
    }

    #[test]
    fn client_that_panics_twice_does_not_abort() {
        let mut session = PanickingSession::default();
        assert_panics_once(|| drop(guard(&mut session)));
        assert_eq!(session.terminated, 1);
        assert_panics_once(|| {
            let _guard = guard(&mut session);
            panic!("the body panics");
        });
        assert_eq!(session.terminated, 2);
    }
}
