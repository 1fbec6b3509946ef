//! bb8: pools of diesel-async connections, or of any manager whose connections have async locks.

use super::checked_out::CheckedOut;
use crate::session::SessionError;
use crate::session::{AsyncLockPool, AsyncLockSession};

impl<M> AsyncLockPool for ::bb8::Pool<M>
where
    M: ::bb8::ManageConnection<Connection: AsyncLockSession, Error: std::error::Error + Sync>,
{
    type Session = M::Connection;
    type Connection = CheckedOut<::bb8::PooledConnection<'static, M>>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let conn = self.get_owned().await.map_err(SessionError::new)?;
        Ok(CheckedOut::new(conn, drop))
    }
}
