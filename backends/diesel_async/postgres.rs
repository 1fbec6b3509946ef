//! `AsyncPgConnection`.

mod cancel;

use std::time::Duration;

use diesel::connection::TransactionManagerStatus;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use crate::backends::diesel::prepared::with_prepared;
use crate::backends::diesel::session_error;
use crate::backends::postgres::{COMMIT, TerminateStep};
use crate::session::{
    AsyncLockSession, Backend, Row, Script, SessionError, Statement, TransactionState,
};

pub use cancel::set_cancel_tls;

impl AsyncLockSession for AsyncPgConnection {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        super::transaction_state(self)
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        super::begin(self).await
    }

    async fn session_commit(&mut self) -> Result<(), SessionError> {
        // `COMMIT` is for the outermost transaction, as with Diesel.
        if self.session_transaction_state() != TransactionState::open(1) {
            return commit_savepoint(self).await;
        }
        match self.batch_execute(COMMIT).await {
            Ok(()) => {
                // tokio-postgres 0.7.18 does not show the transaction state, so the manager would
                // not notice the end of the transaction.
                *super::manager_status(self) = TransactionManagerStatus::default();
                Ok(())
            }
            Err(error) => {
                // The caller gets the error of the commit.
                let _ = self.session_rollback().await;
                Err(session_error(error))
            }
        }
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        if self.session_transaction_state() != TransactionState::open(1) {
            return super::rollback(self).await;
        }
        // diesel-async's own rollback panics in a debug build if a statement of its transaction
        // manager was dropped in flight (seen with diesel-async 0.9.2).
        let rolled_back = self.batch_execute("ROLLBACK").await;
        match rolled_back {
            Ok(()) => *super::manager_status(self) = TransactionManagerStatus::default(),
            // The transaction has ended even so, at the latest with its session.
            Err(_) => super::manager_status(self).set_in_error(),
        }
        rolled_back.map_err(session_error)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let row = with_prepared!(statement, prepared => prepared.get_result(self).await);
        row.map_err(session_error)
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.batch_execute(&script.sql())
            .await
            .map_err(session_error)
    }

    fn session_mark_broken(&mut self) {
        super::manager_status(self).set_in_error();
    }

    fn session_start_terminate(&mut self, pid: Option<i32>) {
        for text in TerminateStep::queued(pid) {
            super::send_detached(self, &text);
        }
        self.session_mark_broken();
    }

    /// Only a wait is cancelled: tokio-postgres closes the connection of a cancel request at once,
    /// which has crashed poolers.
    fn session_cancel_and_terminate(&mut self, pid: Option<i32>) {
        self.session_start_terminate(pid);
        cancel::cancel(self.cancel_token());
    }

    fn session_enqueue(&mut self, script: &Script) -> bool {
        script
            .messages()
            .iter()
            // Stops at the first failure, so that no message runs without those before it.
            .all(|message| super::send_detached(self, message))
    }

    async fn session_sleep(&mut self, pause: Duration) {
        // Unlike tokio's timer, this one also works on a thread without a runtime.
        futures_timer::Delay::new(pause).await;
    }
}

/// Releases a savepoint. If that fails, diesel-async leaves the transaction aborted, so this rolls
/// back to the savepoint.
async fn commit_savepoint(conn: &mut AsyncPgConnection) -> Result<(), SessionError> {
    let depth = super::manager_status(conn)
        .transaction_depth()
        .ok()
        .flatten();
    let Err(error) = super::commit(conn).await else {
        return Ok(());
    };
    if let Some(depth) = depth.filter(|depth| depth.get() > 1) {
        // Diesel's name of the savepoint.
        let name = format!("diesel_savepoint_{}", depth.get() - 1);
        let undo = format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}");
        if conn.batch_execute(&undo).await.is_err() {
            super::manager_status(conn).set_in_error();
        }
    }
    Err(error)
}
