//! r2d2: pools of Diesel connections, or of any manager whose connections have locks.
//!
//! The manager decides the connection's type:
//!
//! * Diesel's `ConnectionManager` of a `PgConnection`, of a `SqliteConnection` or of an enum of
//!   both;
//! * the manager of r2d2_postgres, for the crate postgres;
//! * a manager of the application, for rusqlite.
//!
//! # Broken connections
//!
//! r2d2 closes a returned connection for which the manager's
//! [`has_broken`](::r2d2::ManageConnection::has_broken) is true. Diesel's manager reads the
//! connection's transaction manager there. This crate sets that to its error state when it
//! terminates a session. The crate postgres has no such mark: r2d2 tests its connections at the
//! checkout.
//!
//! # Silent networks
//!
//! No limit covers that test of an idle connection: neither `connection_timeout` nor that of
//! [`wait_up_to`](crate::LockOptions::wait_up_to). r2d2 0.8.10 runs it on the thread of the caller.
//! If the network is silent, the checkout lasts until TCP gives up. The parameter
//! [`tcp_user_timeout`] in the connection string of the client bounds that time.
//!
//! [`tcp_user_timeout`]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TCP-USER-TIMEOUT

use std::time::Duration;

use crate::session::{LockPool, LockSession, SessionError};

impl<M> LockPool for ::r2d2::Pool<M>
where
    M: ::r2d2::ManageConnection<Connection: LockSession>,
{
    type Session = M::Connection;
    type Connection = ::r2d2::PooledConnection<M>;

    fn checkout(&self) -> Result<Self::Connection, SessionError> {
        self.get().map_err(SessionError::new)
    }

    fn checkout_within(&self, limit: Duration) -> Result<Self::Connection, SessionError> {
        let limit = limit.min(self.connection_timeout());
        self.get_timeout(limit).map_err(SessionError::new)
    }
}
