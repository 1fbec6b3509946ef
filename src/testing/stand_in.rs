//! What the protocol sees of the kit: an answer to each statement that it would send to a server.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use super::scope;
use super::world::{Owner, Wanted, World};
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
    world: Arc<World>,
    owner: Owner,
    sees_the_end: bool,
}

impl StandIn {
    /// Nobody outside a test, and nobody for a database that has locks.
    ///
    /// A session is told from others by where its connection is. That holds good because a guard keeps its connection in one place.
    pub(crate) fn of<S: ?Sized>(session: &mut S, backend: Backend) -> Option<Self> {
        match backend {
            Backend::Postgres => None,
            Backend::Sqlite => scope::world().map(|world| Self {
                world,
                owner: Owner::session(session),
                sees_the_end: false,
            }),
        }
    }

    /// Whether a lock keeps the other sessions of the test out.
    pub(crate) fn provides_exclusion(&self) -> bool {
        self.world.excludes()
    }

    /// For a transaction that the crate itself ends.
    pub(crate) fn sees_the_end(self) -> Self {
        Self {
            sees_the_end: true,
            ..self
        }
    }

    pub(crate) fn attempt(self, key: &LockKey, mode: LockMode, level: LockScope) -> Attempt {
        Attempt {
            wanted: Wanted {
                number: self.world.next_number(),
                owner: self.owner,
                key: key.clone(),
                mode,
                level,
                sees_the_end: self.sees_the_end || level == LockScope::Session,
            },
            world: self.world,
        }
    }

    /// Whether the pool is to have failed.
    pub(crate) fn fails_checkout(&self, key: &LockKey) -> Option<SessionError> {
        self.world.fails_checkout(key)
    }
}

/// One call that asks for a lock.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    world: Arc<World>,
    wanted: Wanted,
}

impl Attempt {
    pub(crate) fn query(&self, statement: &Statement) -> Result<LockReply, SessionError> {
        let answered = |answer| LockReply {
            answer,
            pid: self.wanted.number,
            transaction_began: 0,
        };
        match statement.kind() {
            StatementKind::TryAcquire | StatementKind::TryAcquireXact => self
                .world
                .try_acquire(&self.wanted)
                .map(|granted| answered(Some(granted))),
            StatementKind::Release { .. } => self.world.release(&self.wanted),
            // A wait that failed has left nothing here.
            StatementKind::ReleaseIfHeld => Ok(answered(None)),
            StatementKind::IsHeld => Ok(answered(Some(false))),
        }
    }

    pub(crate) fn batch(&self, batch: &Script) -> Result<(), SessionError> {
        match limit(batch) {
            Some(limit) => self.world.wait(&self.wanted, limit),
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
            Some(limit) => self.world.wait_async(&self.wanted, limit, session).await,
            None => Ok(()),
        }
    }

    /// Whether the session still is there to commit.
    pub(crate) fn before_commit(&self) -> Result<(), SessionError> {
        self.world.before_commit(&self.wanted)
    }

    /// What is held after a grant, if its end will be seen.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.wanted.sees_the_end.then(|| Hold {
            attempt: self.clone(),
        })
    }

    /// Takes down that a release failed.
    pub(crate) fn not_released(&self, kind: LockErrorKind) {
        self.world.not_released(&self.wanted, kind);
    }

    /// Takes down how a call ended that was not granted the lock.
    pub(crate) fn ended(&self, outcome: &Result<Acquired, LockError>) {
        self.world.ended(&self.wanted, outcome);
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

    /// The holder's connection has come to its place.
    pub(crate) fn is_on<S: ?Sized>(&self, session: &mut S) {
        let Attempt { world, wanted } = &self.attempt;
        world.moved(wanted.number, Owner::session(session));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Attempt { world, wanted } = &self.attempt;
        world.give_up(wanted);
    }
}

/// A guard's connection, in a place where it stays when the guard is moved.
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
