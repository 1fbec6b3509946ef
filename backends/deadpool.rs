//! deadpool: pools of diesel-async connections, or of any manager whose connections have async locks.

use crate::session::SessionError;
use crate::session::{AsyncLockPool, AsyncLockSession};

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
        self.get().await.map_err(SessionError::new)
    }
}
