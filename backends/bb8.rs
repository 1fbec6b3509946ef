//! bb8: pools of diesel-async or tokio-postgres connections, or of any manager whose connections
//! have async locks.
//!
//! # Broken connections
//!
//! bb8 closes a returned connection for which the manager's
//! [`has_broken`](::bb8::ManageConnection::has_broken) is true. When this crate terminates a
//! session, it makes that true:
//!
//! | manager | reads | this crate |
//! |---|---|---|
//! | diesel-async's | the connection's transaction manager | sets it to its error state |
//! | bb8-postgres's | `Client::is_closed` | closes the `Client` |
//!
//! bb8 may spawn a task that opens a replacement. So the pool hands out each connection as a
//! [`RuntimeBound`].

use super::runtime_bound::RuntimeBound;
use crate::session::{AsyncLockPool, AsyncLockSession, SessionError};

impl<M> AsyncLockPool for ::bb8::Pool<M>
where
    M: ::bb8::ManageConnection<Connection: AsyncLockSession, Error: std::error::Error + Sync>,
{
    type Session = M::Connection;
    type Connection = RuntimeBound<::bb8::PooledConnection<'static, M>>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        // Owned, because a borrowed connection could not outlive the reference to the pool.
        let conn = self.get_owned().await.map_err(SessionError::new)?;
        Ok(RuntimeBound::current(conn, drop))
    }
}
