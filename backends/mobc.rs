//! mobc: pools of diesel-async connections, or of any manager whose connections have async locks.
//!
//! # Broken connections
//!
//! mobc closes a returned connection for which the manager's
//! [`validate`](::mobc::Manager::validate) is false. At the next checkout, it closes an idle one
//! whose [`check`](::mobc::Manager::check) fails. That check is on by default, and diesel-async's
//! is a ping.
//!
//! diesel-async 0.9.2 inverts `validate`: its manager returns true for a broken connection. So a
//! mobc pool closes diesel-async's healthy connections and keeps the broken ones:
//!
//! * Each lock costs a new connection. The pools of bb8 and deadpool keep theirs.
//! * The methods of this crate check the connection themselves. They close it if it is broken or in
//!   a transaction, and during a panic. So they never return a terminated session.
//! * A connection that the application has checked out itself returns even if it is broken. Leave
//!   mobc's `test_on_check_out` on, as it is by default: its ping finds a terminated session.

use std::thread;

use ::mobc::{Connection, Manager, Pool};
use tokio::runtime::Handle;

use super::runtime_bound::RuntimeBound;
use crate::session::{AsyncLockPool, AsyncLockSession, SessionError};

impl<M> AsyncLockPool for Pool<M>
where
    M: Manager<Connection: AsyncLockSession, Error: std::error::Error>,
{
    type Session = M::Connection;
    type Connection = RuntimeBound<Connection<M>>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let conn = self.get().await.map_err(SessionError::new)?;
        Ok(RuntimeBound::current(conn, return_to_pool))
    }
}

/// Returns a connection to its pool, or closes it if it is broken or in a transaction, and during a
/// panic.
fn return_to_pool<M: Manager<Connection: AsyncLockSession>>(mut conn: Connection<M>) {
    // During a panic, the client may panic once more when its state is read. mobc returns a
    // connection in a task, so without a runtime it must be closed. The state of the session
    // decides here, because diesel-async's `validate` is inverted (seen with 0.9.2).
    if thread::panicking()
        || Handle::try_current().is_err()
        || conn.session_transaction_state().must_be_discarded()
    {
        // `into_inner` removes the connection from mobc's `Connection`, whose drop spawns the task.
        drop(conn.into_inner());
    }
}
