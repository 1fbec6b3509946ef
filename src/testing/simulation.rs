//! Simulated locks: replies to the statements of the protocol, from a lock table in memory.
//!
//! # Implementation details
//!
//! A session is identified by the address of its connection. A guard boxes its connection, so the
//! address stays valid when the guard moves. Each acquire call gets a number, which also serves as
//! its process id. A [`SimulatedHold`] in the grant releases the lock when the grant is dropped, on
//! every path.

use std::sync::Arc;
use std::time::Duration;

use super::context;
use super::shared_table::{LockRequest, Owner, SharedLockTable};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::options::LockScope;
use crate::protocol::Acquired;
use crate::session::{
    Backend, LockReply, Script, ScriptKind, SessionError, Statement, StatementKind,
};

/// Lock table of the current test, as one session sees it.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedLocks {
    table: Arc<SharedLockTable>,
    owner: Owner,
    observes_release: bool,
}

impl SimulatedLocks {
    /// Returns the simulated locks of the current test. `None` outside a test, and for a backend
    /// with locks.
    pub(crate) fn of<S: ?Sized>(session: &mut S, backend: Backend) -> Option<Self> {
        match backend {
            Backend::Postgres => None,
            Backend::Sqlite => context::current().map(|table| Self {
                table,
                owner: Owner::session(session),
                observes_release: false,
            }),
        }
    }

    /// Returns `true` if the sessions of the test exclude each other.
    pub(crate) fn provides_exclusion(&self) -> bool {
        self.table.excludes()
    }

    /// Marks a transaction that the crate ends itself, so that the end of its lock is observed.
    pub(crate) fn owns_transaction(self) -> Self {
        Self {
            observes_release: true,
            ..self
        }
    }

    pub(crate) fn call(self, key: &LockKey, mode: LockMode, scope: LockScope) -> SimulatedCall {
        SimulatedCall {
            request: LockRequest {
                number: self.table.next_number(),
                owner: self.owner,
                key: key.clone(),
                mode,
                scope,
                observes_release: self.observes_release || scope == LockScope::Session,
            },
            table: self.table,
        }
    }

    /// Returns the injected fault of the pool, if there is one.
    pub(crate) fn fails_checkout(&self, key: &LockKey) -> Option<SessionError> {
        self.table.fails_checkout(key)
    }
}

/// One acquire call.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedCall {
    table: Arc<SharedLockTable>,
    request: LockRequest,
}

impl SimulatedCall {
    pub(crate) fn query(&self, statement: &Statement) -> Result<LockReply, SessionError> {
        let reply = |answer| LockReply {
            answer,
            pid: self.request.number,
            transaction_began: 0,
        };
        match statement.kind() {
            Some(StatementKind::TryAcquire | StatementKind::TryAcquireXact) => self
                .table
                .try_acquire(&self.request)
                .map(|granted| reply(Some(granted))),
            Some(StatementKind::Release { .. }) => self.table.release(&self.request),
            // A failed wait leaves no lock in the table.
            Some(StatementKind::ReleaseIfHeld) => Ok(reply(None)),
            Some(StatementKind::IsHeld) => Ok(reply(Some(false))),
            // Only a lock manager sends batches, and none on SQLite.
            None => Err(SessionError::unsupported(statement)),
        }
    }

    pub(crate) fn execute(&self, script: &Script) -> Result<(), SessionError> {
        match limit(script) {
            Some(limit) => self.table.wait(&self.request, limit),
            None => Ok(()),
        }
    }

    #[cfg(feature = "_async")]
    pub(crate) async fn execute_async<S: crate::session::AsyncLockSession>(
        &self,
        script: &Script,
        session: &mut S,
    ) -> Result<(), SessionError> {
        match limit(script) {
            Some(limit) => self.table.wait_async(&self.request, limit, session).await,
            None => Ok(()),
        }
    }

    /// Returns an error if the session was terminated by an injected fault.
    pub(crate) fn before_commit(&self) -> Result<(), SessionError> {
        self.table.before_commit(&self.request)
    }

    /// Returns the holder of a granted lock, if the end of the lock is observed.
    pub(crate) fn hold(&self) -> Option<SimulatedHold> {
        self.request
            .observes_release
            .then(|| SimulatedHold { call: self.clone() })
    }

    /// Records a failed release.
    pub(crate) fn not_released(&self, kind: LockErrorKind) {
        self.table.not_released(&self.request, kind);
    }

    /// Records the outcome of a call that was not granted the lock.
    pub(crate) fn ended(&self, outcome: &Result<Acquired, LockError>) {
        self.table.ended(&self.request, outcome);
    }
}

/// Returns the limit of a wait. `Some(None)` waits without a limit; `None` means that the script
/// does not wait.
fn limit(script: &Script) -> Option<Option<Duration>> {
    match script.kind() {
        ScriptKind::Wait { limit_ms, .. } => {
            let limit = u64::try_from(limit_ms).ok().filter(|limit| *limit > 0);
            Some(limit.map(Duration::from_millis))
        }
        ScriptKind::RevealSqlState
        | ScriptKind::PoolerCheck(_)
        | ScriptKind::ReleaseOrTerminate { .. }
        | ScriptKind::RollBackWait
        | ScriptKind::Terminate(_) => None,
    }
}

/// Held lock. It is released when this is dropped.
#[derive(Debug)]
pub(crate) struct SimulatedHold {
    call: SimulatedCall,
}

impl SimulatedHold {
    pub(crate) const fn call(&self) -> &SimulatedCall {
        &self.call
    }

    /// Sets the session of the holder, once its connection has its final address.
    pub(crate) fn set_session<S: ?Sized>(&self, session: &mut S) {
        let SimulatedCall { table, request } = &self.call;
        table.set_owner(request.number, Owner::session(session));
    }
}

impl Drop for SimulatedHold {
    fn drop(&mut self) {
        let SimulatedCall { table, request } = &self.call;
        table.on_hold_dropped(request);
    }
}
