//! The owned guards of a lock manager: [`OwnedLockGuard`] and [`OwnedLockGuards`].

use std::fmt;
#[cfg(feature = "testing")]
use std::sync::Arc;

use futures_channel::oneshot;

use super::core::SessionId;
use super::lock_handle::LockHandle;
#[cfg(feature = "testing")]
use super::loss_signal::LossSignal;
use super::manager::block_on;
use super::release::{PendingRelease, release_all};
use super::shared::{Caller, Response};
#[cfg(feature = "testing")]
use super::simulated::SimulatedLock;
use crate::error::LockError;
#[cfg(feature = "testing")]
use crate::events::RequestRecord;
use crate::key::LockKey;
use crate::options::LockMode;
#[cfg(feature = "testing")]
use crate::options::LockOptions;

/// A lock that is held through a [`LockManager`](super::LockManager).
///
/// The guard is `'static` and `Send`: release or drop it on any thread, with or without a runtime.
/// Dropping it releases the lock in the background. [`release`](Self::release) and
/// [`release_blocking`](Self::release_blocking) report the result.
#[must_use = "the lock is released when the guard is dropped"]
pub struct OwnedLockGuard {
    /// The lock in the lock table of a test. Dropped before `lock`: the core may then grant the
    /// lock to the next caller.
    #[cfg(feature = "testing")]
    simulated: Option<SimulatedLock>,
    pub(super) lock: LockHandle,
    key: LockKey,
    mode: LockMode,
}

impl OwnedLockGuard {
    pub(super) const fn new(lock: LockHandle, key: LockKey, mode: LockMode) -> Self {
        Self {
            #[cfg(feature = "testing")]
            simulated: None,
            lock,
            key,
            mode,
        }
    }

    /// Acquires the lock in the lock table of a test, on a backend without locks.
    ///
    /// `limited`: the call has a limit, also if this attempt does not wait. `record` learns that
    /// the call waits.
    #[cfg(feature = "testing")]
    pub(super) async fn simulate(
        mut self,
        options: &LockOptions,
        limited: bool,
        record: Option<&mut RequestRecord>,
    ) -> Result<Self, LockError> {
        let session = self.lock.grant.session;
        let acquired = SimulatedLock::acquire(session, &self.key, options, limited, record);
        let simulated = acquired.await?;
        if let Some(simulated) = &simulated {
            // In the process, all guards share the signal of the lock.
            let loss = Arc::new(LossSignal::within(self.lock.loss.take()));
            simulated.on_loss(self.lock.loss_hook(Arc::clone(&loss)));
            self.lock.loss = Some(loss);
            // The lock table grants in another order than the core.
            self.lock.reissue_token();
        }
        self.simulated = simulated;
        Ok(self)
    }

    /// Splits the guard into its lock, with the sender of the response, and the rest of its
    /// release.
    pub(super) fn into_parts(
        mut self,
    ) -> ((LockHandle, oneshot::Sender<Response>), PendingRelease) {
        let (sender, response) = oneshot::channel();
        let release = PendingRelease {
            key: self.key,
            response,
            record: self.lock.begin_release(),
            // Before the core releases the lock, which may grant it to the next caller.
            #[cfg(feature = "testing")]
            simulated: self.simulated.map_or(Ok(()), SimulatedLock::release),
        };
        ((self.lock, sender), release)
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
    pub const fn session_pid(&self) -> Option<i32> {
        self.lock.pid
    }

    /// Returns the fencing token, if the lock was acquired with one.
    ///
    /// It is greater than the token of every earlier exclusive grant of this key, by any process,
    /// also after a loss. After a failover to a standby that lagged behind, tokens repeat. So they
    /// may after a crash of the server if [`synchronous_commit`] is off. On a backend without
    /// locks, tokens count within the lock manager.
    ///
    /// [`synchronous_commit`]: https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT
    ///
    /// Send it with each write, and let the storage reject a write whose token is smaller than one
    /// that it has seen. That protects the storage from a holder that has not yet learned of its
    /// loss. See [`TokenSource`](super::TokenSource) for the source of tokens.
    #[must_use]
    pub const fn fencing_token(&self) -> Option<i64> {
        self.lock.grant.token
    }

    /// Returns the number of the lock manager's session that holds the lock.
    ///
    /// A later session has a greater number. It is 0 on a backend without locks.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let session = self.lock.grant.session;
        session.map_or(0, SessionId::generation)
    }

    /// Returns `true` if the lock is known to be lost.
    ///
    /// The page of [`keep_alive`](super::LockManagerOptions::keep_alive) has the time until a loss
    /// is known, for each client.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lock.is_lost()
    }

    /// Completes when the lock is known to be lost; otherwise it stays pending.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again at any time.
    pub async fn lost(&self) {
        // A grant without a lock has no session that could be lost.
        match &self.lock.loss {
            Some(loss) => loss.wait().await,
            None => std::future::pending().await,
        }
    }

    /// Releases the lock and reports whether it was held until now.
    ///
    /// # Errors
    ///
    /// The lock is not held afterwards, with one exception in this list.
    ///
    /// * [`Lost`](crate::LockErrorKind::Lost): the session had ended. Another session may have held
    ///   the lock since.
    /// * [`NotHeld`](crate::LockErrorKind::NotHeld): the server reports that the session no longer
    ///   held the lock.
    /// * [`SessionChanged`](crate::LockErrorKind::SessionChanged): another server session replied
    ///   than the one that holds the lock. This is the exception: a session of a pooler may still
    ///   hold it.
    ///
    /// # Cancel safety
    ///
    /// The call itself starts the release. Dropping the future only drops the report.
    pub fn release(self) -> impl Future<Output = Result<(), LockError>> + Send {
        self.release_by(Caller::Async)
    }

    /// Releases the lock as [`release`](Self::release) does, and blocks the thread until the
    /// server has confirmed it.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    ///
    /// # Panics
    ///
    /// In a task of a tokio runtime: see [blocking callers](super::LockManager#blocking-callers).
    /// The unwinding drops the guard, which releases the lock.
    #[track_caller]
    pub fn release_blocking(self) -> Result<(), LockError> {
        block_on(|| self.release_by(Caller::Blocking))
    }

    /// Releases the lock at once. The returned future reports the result.
    fn release_by(self, caller: Caller) -> impl Future<Output = Result<(), LockError>> + Send {
        let ((lock, sender), release) = self.into_parts();
        // Outside the future, because the call itself starts the release.
        lock.release(sender, caller);
        release.result()
    }
}

impl fmt::Debug for OwnedLockGuard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OwnedLockGuard")
            .field("key", self.key())
            .field("mode", &self.mode())
            .field("session_pid", &self.session_pid())
            .field("fencing_token", &self.fencing_token())
            .finish_non_exhaustive()
    }
}

/// Several locks that are held together, in ascending order of their [raw keys](crate::RawLockKey).
#[derive(Debug)]
#[must_use = "the locks are released when the guards are dropped"]
pub struct OwnedLockGuards(pub(super) Vec<OwnedLockGuard>);

impl OwnedLockGuards {
    /// Returns `true` if one of the locks is known to be lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.iter().any(OwnedLockGuard::is_lost)
    }

    /// Returns the guards, in ascending order of their raw keys.
    pub fn guards(&self) -> &[OwnedLockGuard] {
        &self.0
    }

    /// Releases all the locks and reports whether all were held until now.
    ///
    /// # Errors
    ///
    /// The first error of [`OwnedLockGuard::release`]. None of the locks is held afterwards, with
    /// the exception stated there.
    ///
    /// # Cancel safety
    ///
    /// As [`OwnedLockGuard::release`], from the first poll on. Dropping the future before that
    /// drops the guards, which releases the locks too.
    pub async fn release(self) -> Result<(), LockError> {
        release_all(self.0).await
    }

    /// Releases all the locks as [`release`](Self::release) does, and blocks the thread until the
    /// server has confirmed it.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    ///
    /// # Panics
    ///
    /// As [`OwnedLockGuard::release_blocking`].
    #[track_caller]
    pub fn release_blocking(self) -> Result<(), LockError> {
        block_on(|| self.release())
    }
}

impl<'g> IntoIterator for &'g OwnedLockGuards {
    type Item = &'g OwnedLockGuard;
    type IntoIter = std::slice::Iter<'g, OwnedLockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl IntoIterator for OwnedLockGuards {
    type Item = OwnedLockGuard;
    type IntoIter = std::vec::IntoIter<OwnedLockGuard>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
