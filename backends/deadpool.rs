//! deadpool: pools of diesel-async connections, or of any manager whose connections have async
//! locks.
//!
//! # Broken connections
//!
//! A returned connection enters the pool without a check. deadpool drops it at its next checkout if
//! the manager's [`recycle`](::deadpool::managed::Manager::recycle) fails. The manager of
//! diesel-async reads the connection's transaction manager there. This crate sets that to its error
//! state when it terminates a session.
//!
//! The methods of this crate do not wait for that. They take a connection out of the pool that is
//! broken or in a transaction, which closes it at once.

use std::thread;

use ::deadpool::managed::{Manager, Object, Pool};

use super::runtime_bound::RuntimeBound;
use crate::session::{AsyncLockPool, AsyncLockSession, SessionError};

impl<M> AsyncLockPool for Pool<M>
where
    M: Manager<Type: AsyncLockSession, Error: std::error::Error + Send + Sync + 'static> + 'static,
{
    type Session = M::Type;
    type Connection = RuntimeBound<Object<M>>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let conn = self.get().await.map_err(SessionError::new)?;
        // No runtime: the drop of an `Object` spawns no task (seen with deadpool 0.13.1).
        Ok(RuntimeBound::new(conn, None, return_to_pool))
    }
}

/// Returns a connection to its pool, or closes it if it is broken or in a transaction.
fn return_to_pool<M: Manager<Type: AsyncLockSession>>(mut conn: Object<M>) {
    // During a panic, the client may panic once more. The pool checks the connection, too.
    if !thread::panicking() && conn.session_transaction_state().must_be_discarded() {
        drop(Object::take(conn));
    }
}
