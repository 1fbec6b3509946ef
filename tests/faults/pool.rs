//! A pool of one connection, blocking or async.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use advisory_locking::session::LockPool;
use advisory_locking::session::{LockSession, SessionError, TransactionState};

use crate::model::{Model, ModelSession};

/// A pool of one connection, blocking or async: it gives no connection again that says it is broken.
pub(crate) struct Pool<S> {
    model: Model,
    wrap: fn(ModelSession) -> S,
    idle: Arc<Mutex<Option<S>>>,
}

/// A connection that is checked out.
pub(crate) struct Pooled<S: PoolSession> {
    session: Option<S>,
    home: Arc<Mutex<Option<S>>>,
}

/// What a pool asks a connection that comes back.
pub(crate) trait PoolSession {
    fn is_broken(&mut self) -> bool;
}

impl PoolSession for ModelSession {
    fn is_broken(&mut self) -> bool {
        LockSession::session_transaction_state(self) == TransactionState::broken()
    }
}

impl<S: PoolSession> Pool<S> {
    /// A pool that has this connection.
    pub(crate) fn of(session: ModelSession, wrap: fn(ModelSession) -> S) -> Self {
        Self {
            model: session.model().clone(),
            wrap,
            idle: Arc::new(Mutex::new(Some(wrap(session)))),
        }
    }

    /// The connection that is there to be given, if the pool has not dropped it.
    pub(crate) fn into_idle(self) -> Option<S> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.take()
    }

    pub(crate) fn get(&self) -> Pooled<S> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let session = idle.take();
        Pooled {
            session: Some(session.unwrap_or_else(|| (self.wrap)(self.model.connect()))),
            home: Arc::clone(&self.idle),
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
            *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
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
