//! A pool of one connection, blocking or async.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use advisory_locking::session::LockPool;
use advisory_locking::session::{LockSession, SessionError, TransactionState};

use testkit::model::{Model, ModelSession};

/// A pool of one connection. It discards a broken connection when it is returned.
pub(crate) struct Pool<S> {
    model: Model,
    wrap: fn(ModelSession) -> S,
    idle: Arc<Mutex<Option<S>>>,
}

/// A checked-out connection.
pub(crate) struct Pooled<S: PoolSession> {
    session: Option<S>,
    idle: Arc<Mutex<Option<S>>>,
}

/// A connection that a pool can test when it is returned.
pub(crate) trait PoolSession {
    fn is_broken(&mut self) -> bool;
}

impl PoolSession for ModelSession {
    fn is_broken(&mut self) -> bool {
        LockSession::session_transaction_state(self) == TransactionState::broken()
    }
}

impl<S: PoolSession> Pool<S> {
    /// Makes a pool of this connection.
    pub(crate) fn of(session: ModelSession, wrap: fn(ModelSession) -> S) -> Self {
        Self {
            model: session.model().clone(),
            wrap,
            idle: Arc::new(Mutex::new(Some(wrap(session)))),
        }
    }

    /// Returns the idle connection, unless the pool has discarded it.
    pub(crate) fn into_idle(self) -> Option<S> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.take()
    }

    pub(crate) fn get(&self) -> Pooled<S> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let session = idle.take();
        Pooled {
            session: Some(session.unwrap_or_else(|| (self.wrap)(self.model.connect()))),
            idle: Arc::clone(&self.idle),
        }
    }
}

impl<S: PoolSession> Deref for Pooled<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.session
            .as_ref()
            .unwrap_or_else(|| unreachable!("taken by the drop alone"))
    }
}

impl<S: PoolSession> DerefMut for Pooled<S> {
    fn deref_mut(&mut self) -> &mut S {
        self.session
            .as_mut()
            .unwrap_or_else(|| unreachable!("taken by the drop alone"))
    }
}

impl<S: PoolSession> Drop for Pooled<S> {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        if !session.is_broken() {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        }
    }
}

impl LockPool for Pool<ModelSession> {
    type Session = ModelSession;
    type Connection = Pooled<ModelSession>;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        Ok(self.get())
    }
}
