//! `SyncConnectionWrapper<SqliteConnection>`, which has no locks.

use diesel::sqlite::SqliteConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::session::{AsyncLockSession, Backend, Script, SessionError, TransactionState};

impl AsyncLockSession for SyncConnectionWrapper<SqliteConnection> {
    fn session_backend(&mut self) -> Backend {
        Backend::Sqlite
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        super::transaction_state(self)
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        super::begin(self).await
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        super::commit(self).await
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        super::rollback(self).await
    }

    fn session_mark_broken(&mut self) {
        super::manager_status(self).set_in_error();
    }

    fn session_start_terminate(&mut self, _pid: Option<i32>) {
        self.session_mark_broken();
        // diesel-async blocks on a statement that is dropped, which panics in a current-thread
        // runtime (seen with diesel-async 0.9.2). There, the mark alone keeps the connection out of
        // its pool.
        let runtime = Handle::try_current();
        if runtime.is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread) {
            // It fails without an open transaction.
            super::send_detached(self, "ROLLBACK");
        }
    }
}
