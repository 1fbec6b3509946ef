//! What the protocol sees of the kit: an answer to each statement that it would send to a server.

use std::fmt;
use std::ops::{Deref, DerefMut};
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

/// The locks of the test that this thread or task belongs to, as one session sees them.
#[derive(Clone, Debug)]
pub(crate) struct StandIn {
    table: Arc<SharedLockTable>,
    owner: Owner,
    sees_the_end: bool,
}

impl StandIn {
    /// Nobody outside a test, and nobody for a database that has locks.
    ///
    /// A session is told from others by where its connection is. That holds good because a guard keeps its connection in one position.
    pub(crate) fn of<S: ?Sized>(session: &mut S, backend: Backend) -> Option<Self> {
        match backend {
            Backend::Postgres => None,
            Backend::Sqlite => context::current().map(|table| Self {
                table,
                owner: Owner::session(session),
                sees_the_end: false,
            }),
        }
    }

    /// Whether a lock keeps the other sessions of the test out.
    pub(crate) fn provides_exclusion(&self) -> bool {
        self.table.excludes()
    }

    /// For a transaction that the crate itself ends.
    pub(crate) fn sees_the_end(self) -> Self {
        Self {
            sees_the_end: true,
            ..self
        }
    }

    pub(crate) fn attempt(self, key: &LockKey, mode: LockMode, scope: LockScope) -> Attempt {
        Attempt {
            request: LockRequest {
                number: self.table.next_number(),
                owner: self.owner,
                key: key.clone(),
                mode,
                scope,
                sees_the_end: self.sees_the_end || scope == LockScope::Session,
            },
            table: self.table,
        }
    }

    /// Whether the pool is to have failed.
    pub(crate) fn fails_checkout(&self, key: &LockKey) -> Option<SessionError> {
        self.table.fails_checkout(key)
    }
}

/// One call that asks for a lock.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    table: Arc<SharedLockTable>,
    request: LockRequest,
}

impl Attempt {
    pub(crate) fn query(&self, statement: &Statement) -> Result<LockReply, SessionError> {
        let answered = |answer| LockReply {
            answer,
            pid: self.request.number,
            transaction_began: 0,
        };
        match statement.kind() {
            Some(StatementKind::TryAcquire | StatementKind::TryAcquireXact) => self
                .table
                .try_acquire(&self.request)
                .map(|granted| answered(Some(granted))),
            Some(StatementKind::Release { .. }) => self.table.release(&self.request),
            // A wait that failed has left nothing here.
            Some(StatementKind::ReleaseIfHeld) => Ok(answered(None)),
            Some(StatementKind::IsHeld) => Ok(answered(Some(false))),
            // Only a lock manager sends batches, and none on SQLite.
            None => Err(SessionError::unsupported(statement)),
        }
    }

    pub(crate) fn batch(&self, batch: &Script) -> Result<(), SessionError> {
        match limit(batch) {
            Some(limit) => self.table.wait(&self.request, limit),
            None => Ok(()),
        }
    }

    #[cfg(feature = "_async")]
    pub(crate) async fn batch_async<S: crate::session::AsyncLockSession>(
        &self,
        batch: &Script,
        session: &mut S,
    ) -> Result<(), SessionError> {
        match limit(batch) {
            Some(limit) => self.table.wait_async(&self.request, limit, session).await,
            None => Ok(()),
        }
    }

    /// Whether the session still is there to commit.
    pub(crate) fn before_commit(&self) -> Result<(), SessionError> {
        self.table.before_commit(&self.request)
    }

    /// What is held after a grant, if its end will be seen.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.request.sees_the_end.then(|| Hold {
            attempt: self.clone(),
        })
    }

    /// Takes down that a release failed.
    pub(crate) fn not_released(&self, kind: LockErrorKind) {
        self.table.not_released(&self.request, kind);
    }

    /// Takes down how a call ended that was not granted the lock.
    pub(crate) fn ended(&self, outcome: &Result<Acquired, LockError>) {
        self.table.ended(&self.request, outcome);
    }
}

/// The limit of a wait: `Some(None)` waits for ever. `None` if the batch does not wait.
fn limit(batch: &Script) -> Option<Option<Duration>> {
    match batch.kind() {
        ScriptKind::Wait { limit_ms, .. } => {
            let limit = u64::try_from(limit_ms).ok().filter(|limit| *limit > 0);
            Some(limit.map(Duration::from_millis))
        }
        ScriptKind::RevealSqlState
        | ScriptKind::PoolerCheck(_)
        | ScriptKind::ReleaseOrTerminate { .. }
        | ScriptKind::RollBackWait => None,
    }
}

/// A lock that is held. However its holder ends, it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    attempt: Attempt,
}

impl Hold {
    pub(crate) const fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// The holder's connection has come to its position.
    pub(crate) fn set_session<S: ?Sized>(&self, session: &mut S) {
        let Attempt { table, request } = &self.attempt;
        table.set_owner(request.number, Owner::session(session));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Attempt { table, request } = &self.attempt;
        table.on_hold_dropped(request);
    }
}

/// A guard's connection, in a position where it stays when the guard is moved.
pub(crate) struct Kept<C>(Box<C>);

impl<C> Kept<C> {
    pub(crate) fn new(conn: C) -> Self {
        Self(Box::new(conn))
    }
}

impl<C> Deref for Kept<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C> DerefMut for Kept<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0
    }
}

impl<C: fmt::Debug> fmt::Debug for Kept<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
