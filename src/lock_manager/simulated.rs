//! Locks of the unit-test kit, for a lock manager over a backend without locks.
//!
//! # Implementation details
//!
//! On a backend without locks the core grants a request unconditionally, or excludes within the
//! process. Inside a test scope, a granted request then acquires the lock in the lock table of the
//! test, too. It runs the machines of a plain connection. So contention, limits and faults are
//! those of a connection. The lock table reports a loss to the signal of the guard.

use futures_util::FutureExt;

use super::core::SessionId;
use crate::driver::asynchronous::{run_acquire, run_release};
use crate::error::{LockError, LockErrorKind};
use crate::events::RequestRecord;
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope, OnMissingLock};
use crate::pool::pool_error;
use crate::protocol::{Acquire, Grant, Release};
use crate::session::{AsyncLockSession, Backend, Script, SessionError, TransactionState};
use crate::testing::{checkout_fault, excludes, is_entered, on_lost, set_session, times_out};

/// Lock in the lock table of a test. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct SimulatedLock {
    session: Box<NoSession>,
    grant: Grant,
}

/// Returns the policy of a request. If the locks of the test exclude, none is missing.
pub(super) fn missing_lock_policy(options: &LockOptions) -> OnMissingLock {
    if excludes() {
        OnMissingLock::Ignore
    } else {
        options.on_missing_lock
    }
}

impl SimulatedLock {
    /// Acquires the lock in the lock table of the current test. Returns `None` outside a test
    /// scope, and for a lock of a server session.
    pub(super) async fn acquire(
        session: Option<SessionId>,
        key: &LockKey,
        options: &LockOptions,
        limited: bool,
        record: Option<&mut RequestRecord>,
    ) -> Result<Option<Self>, LockError> {
        let on_server = session.is_some_and(|session| session != SessionId::IN_PROCESS);
        if on_server || !is_entered() {
            return Ok(None);
        }
        checkout_fault(Backend::Sqlite, key).map_err(|error| {
            let error = pool_error(error).with_key(key);
            error.with_wait(options.limit(), options.elapsed)
        })?;
        // A call for several keys waits after a contended attempt.
        if limited && options.limit().is_none() && times_out(key) {
            return Err(LockError::new(LockErrorKind::HeldElsewhere).with_key(key));
        }
        // The caller has applied the policy, unless these locks exclude.
        let options = &options.on_missing_lock(OnMissingLock::Ignore);
        // Boxed, because the address of a session identifies it in the lock table.
        let mut session = Box::new(NoSession { _address: 0 });
        let acquire =
            |key, options: &_, state| Acquire::new(key, options, LockScope::Session, state);
        let scope = LockScope::Session;
        let grant = run_acquire(&mut *session, key, options, scope, acquire, record).await?;
        set_session(&grant, &*session);
        Ok(Some(Self { session, grant }))
    }

    /// Runs the hook when the lock table reports the lock as lost.
    pub(super) fn on_loss(&self, hook: impl Fn() + Send + Sync + 'static) {
        on_lost(&self.grant, hook);
    }

    /// Releases the lock. The session has no connection, so its future is ready at once.
    pub(super) fn release(self) -> Result<(), LockError> {
        let Self { mut session, grant } = self;
        let released = run_release(&mut *session, grant, Release::new).now_or_never();
        released.unwrap_or_else(|| Err(LockError::new(LockErrorKind::Lost)))
    }
}

/// Session of no connection, whose statements the unit-test kit answers.
#[derive(Debug)]
struct NoSession {
    /// Gives each box an address of its own.
    _address: u8,
}

impl AsyncLockSession for NoSession {
    fn session_backend(&mut self) -> Backend {
        Backend::Sqlite
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        TransactionState::none()
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        Ok(())
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        Ok(())
    }

    fn session_mark_broken(&mut self) {}

    fn session_start_terminate(&mut self, _pid: Option<i32>) {}
}
