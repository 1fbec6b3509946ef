//! deadpool: pools of diesel-async connections, or of any manager whose connections have async
//! locks.
//!
//! # Broken connections
//!
//! A returned connection enters the pool without a check. deadpool drops it at its next checkout if
//! the manager's [`recycle`](::deadpool::managed::Manager::recycle) fails. The manager of
//! diesel-async reads the connection's transaction manager there. This crate sets that to its error
//! state when it terminates a session.

use crate::session::{AsyncLockPool, AsyncLockSession, SessionError};

impl<M> AsyncLockPool for ::deadpool::managed::Pool<M>
where
    M: ::deadpool::managed::Manager<
            Type: AsyncLockSession,
            Error: std::error::Error + Send + Sync + 'static,
        > + 'static,
{
    type Session = M::Type;
    type Connection = ::deadpool::managed::Object<M>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        // Not runtime-bound: the drop of an `Object` spawns no task (seen with deadpool 0.13.1).
        self.get().await.map_err(SessionError::new)
    }
}
