//! mobc: pools of diesel-async connections, or of any manager whose connections have async locks.
//!
//! # What diesel-async 0.9 does with them
//!
//! It tells mobc the opposite of what it means when a connection comes back: healthy ones are closed, broken ones are kept. So with
//! diesel-async, each lock costs a new connection; bb8 and deadpool keep theirs. What is taken from the pool by the methods here goes
//! back only if it is in order, so a connection that was ended, or left in a transaction, is never handed out again. For a
//! connection you have checked out yourself, leave mobc's `test_on_check_out` on, as it is by default: it finds the ended ones.

use ::mobc::{Connection, Manager, Pool};
use tokio::runtime::Handle;

use super::checked_out::CheckedOut;
use crate::session::SessionError;
use crate::session::{AsyncLockPool, AsyncLockSession};

impl<M> AsyncLockPool for Pool<M>
where
    M: Manager<Connection: AsyncLockSession, Error: std::error::Error>,
{
    type Session = M::Connection;
    type Connection = CheckedOut<Connection<M>>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let conn = self.get().await.map_err(SessionError::new)?;
        Ok(CheckedOut::new(conn, give_back))
    }
}

/// Keeps out of the pool what does not belong there, whatever the manager's own check says of it.
fn give_back<M: Manager<Connection: AsyncLockSession>>(mut conn: Connection<M>) {
    let transaction = conn.session_transaction_state();
    let unfit = transaction.is_broken() || transaction.is_open();
    // Going back is a task, and there may be nowhere to run it.
    if unfit || Handle::try_current().is_err() {
        drop(conn.into_inner());
    }
}
