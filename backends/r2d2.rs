//! r2d2: pools of Diesel connections, or of any manager whose connections have locks.
//!
//! The manager decides what is in the pool: Diesel's `ConnectionManager` of a `PgConnection`, a `SqliteConnection` or an enum of
//! both, or a manager of rusqlite connections.

use crate::session::LockPool;
use crate::session::{LockSession, SessionError};

impl<M> LockPool for ::r2d2::Pool<M>
where
    M: ::r2d2::ManageConnection<Connection: LockSession>,
{
    type Session = M::Connection;
    type Connection = ::r2d2::PooledConnection<M>;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        self.get().map_err(SessionError::new)
    }
}
