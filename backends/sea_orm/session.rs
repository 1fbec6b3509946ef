//! The port on a pinned connection, and the pool that pins one.

use std::time::Duration;

use sea_orm::{DatabaseConnection, DatabaseConnectionType, DbBackend};

use super::error::session_error;
use super::handle::{PinnedConnection, Session};
use super::pinned::Pinned;
use super::without_locks::WithoutLocks;
use crate::session::{AsyncLockPool, AsyncLockSession};
use crate::session::{
    Backend, BatchReply, LockBatch, Row, Script, SessionError, SingleOp, Statement,
    TransactionState,
};

impl AsyncLockPool for DatabaseConnection {
    type Session = PinnedConnection;
    type Connection = Box<PinnedConnection>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let session = match &self.inner {
            DatabaseConnectionType::SqlxPostgresPoolConnection(_) => {
                let pinned = Pinned::checkout(self.get_postgres_connection_pool()).await;
                Session::Postgres(pinned.map_err(session_error)?)
            }
            DatabaseConnectionType::Disconnected => {
                return Err(SessionError::without_locks("SeaORM is not connected"));
            }
            // SeaORM's features add variants, and any crate may turn them on.
            #[allow(
                unreachable_patterns,
                reason = "the variants depend on SeaORM's features"
            )]
            _ => match self.get_database_backend() {
                DbBackend::Sqlite => Session::WithoutLocks(WithoutLocks::new(self.clone())),
                backend => {
                    return Err(SessionError::without_locks(format!(
                        "SeaORM's {backend:?} connection is no pool of PostgreSQL connections"
                    )));
                }
            },
        };
        Ok(Box::new(PinnedConnection(session)))
    }
}

impl AsyncLockSession for PinnedConnection {
    fn session_backend(&mut self) -> Backend {
        match &self.0 {
            Session::Postgres(_) => Backend::Postgres,
            Session::WithoutLocks(_) => Backend::Sqlite,
        }
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        match &self.0 {
            Session::Postgres(pinned) => pinned.transaction_state(),
            Session::WithoutLocks(session) => session.transaction_state(),
        }
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        match &mut self.0 {
            Session::Postgres(pinned) => pinned.begin().await.map(drop),
            Session::WithoutLocks(session) => session.begin().await,
        }
        .map_err(session_error)
    }

    async fn session_commit(&mut self) -> Result<(), SessionError> {
        match &mut self.0 {
            Session::Postgres(pinned) => pinned.commit().await,
            Session::WithoutLocks(session) => session.commit().await,
        }
        .map_err(session_error)
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        match &mut self.0 {
            Session::Postgres(pinned) => pinned.roll_back().await,
            Session::WithoutLocks(session) => session.roll_back().await,
        }
        .map_err(session_error)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        match &self.0 {
            Session::Postgres(pinned) => pinned.query(None, statement).await.map_err(session_error),
            Session::WithoutLocks(_) => Err(SessionError::unsupported(statement)),
        }
    }

    async fn session_execute(&mut self, batch: &Script) -> Result<(), SessionError> {
        match &self.0 {
            Session::Postgres(pinned) => pinned
                .batch(None, &batch.sql())
                .await
                .map_err(session_error),
            Session::WithoutLocks(_) => Err(SessionError::unsupported(batch)),
        }
    }

    async fn session_execute_batch(
        &mut self,
        round: &LockBatch,
    ) -> Result<BatchReply, SessionError> {
        match &self.0 {
            Session::Postgres(pinned) => pinned.round(round).await.map_err(session_error),
            Session::WithoutLocks(_) => Err(SessionError::unsupported(round)),
        }
    }

    async fn session_execute_single(
        &mut self,
        step: &SingleOp,
    ) -> Result<Option<bool>, SessionError> {
        match &self.0 {
            Session::Postgres(pinned) => pinned.single_step(step).await.map_err(session_error),
            Session::WithoutLocks(_) => Err(SessionError::unsupported(step)),
        }
    }

    async fn session_terminate(&mut self) {
        match &mut self.0 {
            Session::Postgres(pinned) => pinned.condemn().await,
            Session::WithoutLocks(session) => session.condemn().await,
        }
    }

    fn session_start_terminate(&mut self) {
        match &mut self.0 {
            Session::Postgres(pinned) => pinned.abandon(),
            Session::WithoutLocks(session) => session.abandon(),
        }
    }

    fn session_enqueue(&mut self, batch: &Script) -> bool {
        match &self.0 {
            Session::Postgres(pinned) => pinned.run_later(batch.messages()),
            Session::WithoutLocks(_) => false,
        }
    }

    async fn session_sleep(&mut self, pause: Duration) {
        futures_timer::Delay::new(pause).await;
    }
}
