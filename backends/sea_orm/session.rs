//! The port on a pinned connection, and the pool that pins one.

use std::time::Duration;

use sea_orm::{DatabaseConnection, DatabaseConnectionType, DbBackend};

use super::error::session_error;
use super::executor::ConnectionInner;
use super::handle::PinnedConnection;
use super::native::NativeConnection;
use super::pinned::PostgresConnection;
use crate::session::{AsyncLockPool, AsyncLockSession};
use crate::session::{Backend, Row, Script, SessionError, Statement, TransactionState};

impl AsyncLockPool for DatabaseConnection {
    type Session = PinnedConnection;
    type Connection = Box<PinnedConnection>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let session = match &self.inner {
            DatabaseConnectionType::SqlxPostgresPoolConnection(_) => {
                let pinned =
                    PostgresConnection::checkout(self.get_postgres_connection_pool()).await;
                ConnectionInner::Postgres(pinned.map_err(session_error)?)
            }
            DatabaseConnectionType::Disconnected => {
                return Err(SessionError::unsupported_backend("SeaORM is not connected"));
            }
            // SeaORM's features add variants, and any crate may turn them on.
            #[allow(
                unreachable_patterns,
                reason = "the variants depend on SeaORM's features"
            )]
            _ => match self.get_database_backend() {
                DbBackend::Sqlite => ConnectionInner::Native(NativeConnection::new(self.clone())),
                backend => {
                    return Err(SessionError::unsupported_backend(format!(
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
            ConnectionInner::Postgres(_) => Backend::Postgres,
            ConnectionInner::Native(_) => Backend::Sqlite,
        }
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        match &self.0 {
            ConnectionInner::Postgres(pinned) => pinned.transaction_state(),
            ConnectionInner::Native(session) => session.transaction_state(),
        }
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        match &mut self.0 {
            ConnectionInner::Postgres(pinned) => pinned.begin().await.map(drop),
            ConnectionInner::Native(session) => session.begin().await,
        }
        .map_err(session_error)
    }

    async fn session_commit(&mut self) -> Result<(), SessionError> {
        match &mut self.0 {
            ConnectionInner::Postgres(pinned) => pinned.commit().await,
            ConnectionInner::Native(session) => session.commit().await,
        }
        .map_err(session_error)
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        match &mut self.0 {
            ConnectionInner::Postgres(pinned) => pinned.roll_back().await,
            ConnectionInner::Native(session) => session.roll_back().await,
        }
        .map_err(session_error)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        match &self.0 {
            ConnectionInner::Postgres(pinned) => {
                pinned.query(None, statement).await.map_err(session_error)
            }
            ConnectionInner::Native(_) => Err(SessionError::unsupported(statement)),
        }
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        match &self.0 {
            ConnectionInner::Postgres(pinned) => pinned
                .execute_script(None, &script.sql())
                .await
                .map_err(session_error),
            ConnectionInner::Native(_) => Err(SessionError::unsupported(script)),
        }
    }

    async fn session_terminate(&mut self) {
        match &mut self.0 {
            ConnectionInner::Postgres(pinned) => pinned.terminate().await,
            ConnectionInner::Native(session) => session.terminate().await,
        }
    }

    fn session_start_terminate(&mut self) {
        match &mut self.0 {
            ConnectionInner::Postgres(pinned) => pinned.start_terminate(),
            ConnectionInner::Native(session) => session.start_terminate(),
        }
    }

    fn session_enqueue(&mut self, script: &Script) -> bool {
        match &self.0 {
            ConnectionInner::Postgres(pinned) => pinned.enqueue(script.messages()),
            ConnectionInner::Native(_) => false,
        }
    }

    async fn session_sleep(&mut self, pause: Duration) {
        futures_timer::Delay::new(pause).await;
    }
}
