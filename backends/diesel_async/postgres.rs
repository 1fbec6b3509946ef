//! `AsyncPgConnection`.

use std::time::Duration;

use diesel::connection::TransactionManagerStatus;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tokio_postgres::{CancelToken, NoTls};

use crate::AsyncLockSession;
use crate::backends::diesel::prepared::with_prepared;
use crate::backends::diesel::session_error;
use crate::backends::postgres::CONDEMN;
use crate::session::{Backend, Batch, Row, SessionError, Statement, TransactionState};

impl AsyncLockSession for AsyncPgConnection {
    fn backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn transaction_state(&mut self) -> TransactionState {
        super::transaction_state(self)
    }

    async fn begin(&mut self) -> Result<(), SessionError> {
        super::begin(self).await
    }

    async fn commit(&mut self) -> Result<(), SessionError> {
        if self.transaction_state() != TransactionState::open(1) {
            return super::commit(self).await;
        }
        // In an aborted transaction `COMMIT` rolls back and succeeds. A statement before it in the same message is refused there.
        match self.batch_execute("SELECT 1; COMMIT").await {
            Ok(()) => {
                *super::manager_status(self) = TransactionManagerStatus::default();
                Ok(())
            }
            Err(error) => {
                // The commit's error is the one to report.
                let _ = super::rollback(self).await;
                Err(session_error(error))
            }
        }
    }

    async fn rollback(&mut self) -> Result<(), SessionError> {
        super::rollback(self).await
    }

    async fn query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let row = with_prepared!(statement, prepared => prepared.get_result(self).await);
        let (answer, pid) = row.map_err(session_error)?;
        Ok(Row { answer, pid })
    }

    async fn batch(&mut self, batch: &Batch) -> Result<(), SessionError> {
        self.batch_execute(&batch.sql())
            .await
            .map_err(session_error)
    }

    async fn condemn(&mut self) {
        for sql in CONDEMN {
            // Each is an attempt, and the first that succeeds reports that the connection was closed.
            let _ = self.batch_execute(sql).await;
        }
        super::manager_status(self).set_in_error();
    }

    fn abandon(&mut self) {
        // The cancel may come late and hit what is queued after the wait, so the end of the session is queued more than once.
        for sql in CONDEMN.into_iter().take(2).cycle().take(4) {
            super::queue(self, sql);
        }
        super::manager_status(self).set_in_error();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(cancel(self.cancel_token()));
        }
    }

    fn run_later(&mut self, batch: &Batch) -> bool {
        super::queue(self, &batch.sql())
    }

    async fn sleep(&mut self, pause: Duration) {
        futures_timer::Delay::new(pause).await;
    }
}

/// Cancels a wait until it is surely gone; without that, the session ends when the wait does.
///
/// Once is not enough: a cancel that overtakes the wait on its way to the server hits nothing. Too often does no harm, for when the
/// session has ended, nobody else answers to its secret key.
async fn cancel(token: CancelToken) {
    let mut pause = Duration::from_millis(20);
    for _ in 0..8 {
        let _ = token.cancel_query(NoTls).await;
        futures_timer::Delay::new(pause).await;
        pause *= 2;
    }
}
