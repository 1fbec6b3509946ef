//! The ports: `DatabaseConnection` as a pool, and the pinned connection as a session.

use std::time::Duration;

use sea_orm::{DatabaseConnection, DatabaseConnectionType, DbBackend};

use super::error::session_error;
use super::executor::ConnectionInner;
use super::handle::PinnedConnection;
use super::native::NativeConnection;
use super::pinned_session::PinnedSession;
use super::sqlite_connection::SqliteConnection;
use crate::session::{
    AsyncLockPool, AsyncLockSession, Backend, QueuedRelease, Row, Script, SessionError, Statement,
    TransactionState,
};

impl AsyncLockPool for DatabaseConnection {
    type Session = PinnedConnection;
    type Connection = Box<PinnedConnection>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let connection = match &self.inner {
            DatabaseConnectionType::SqlxPostgresPoolConnection(_) => {
                let pool = self.get_postgres_connection_pool();
                let session = PinnedSession::checkout(pool).await;
                ConnectionInner::Pinned(session.map_err(session_error)?)
            }
            _ if SqliteConnection::is_of(self) => {
                let session = PinnedSession::checkout_of_sqlite(self).await;
                ConnectionInner::Pinned(session.map_err(session_error)?)
            }
            DatabaseConnectionType::Disconnected => {
                return Err(SessionError::unsupported_backend("SeaORM is not connected"));
            }
            // Any crate in the build may enable a feature of SeaORM that adds a variant.
            #[allow(
                unreachable_patterns,
                reason = "the variants depend on SeaORM's features"
            )]
            _ => match self.get_database_backend() {
                backend if has_no_locks(backend) => {
                    ConnectionInner::Native(NativeConnection::new(self.clone()))
                }
                backend => {
                    return Err(SessionError::unsupported_backend(format!(
                        "SeaORM's {backend:?} connection is not a pool of PostgreSQL connections"
                    )));
                }
            },
        };
        // Boxed, because `Connection` must dereference to `Session`.
        Ok(Box::new(PinnedConnection(connection)))
    }

    async fn closed(&self) {
        match &self.inner {
            DatabaseConnectionType::SqlxPostgresPoolConnection(_) => {
                self.get_postgres_connection_pool().close_event().await;
            }
            #[allow(
                unreachable_patterns,
                reason = "the variants depend on SeaORM's features"
            )]
            _ => std::future::pending().await,
        }
    }
}

/// Returns `true` if a connection of SeaORM's own, which is no pool of sqlx, is the no-op. In a
/// test scope of the unit-test kit, a mock of PostgreSQL is.
pub(super) fn has_no_locks(backend: DbBackend) -> bool {
    #[cfg(feature = "testing")]
    if backend == DbBackend::Postgres && crate::testing::is_entered() {
        return true;
    }
    backend == DbBackend::Sqlite
}

impl AsyncLockSession for PinnedConnection {
    fn session_backend(&mut self) -> Backend {
        match &self.0 {
            ConnectionInner::Pinned(session) => match session.connection.backend() {
                DbBackend::Postgres => Backend::Postgres,
                _ => Backend::Sqlite,
            },
            ConnectionInner::Native(_) => Backend::Sqlite,
        }
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        match &self.0 {
            ConnectionInner::Pinned(session) => session.connection.transaction_state(),
            ConnectionInner::Native(connection) => connection.transaction_state(),
        }
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        match &mut self.0 {
            ConnectionInner::Pinned(session) => session.begin().await,
            ConnectionInner::Native(connection) => connection.begin().await,
        }
        .map_err(session_error)
    }

    async fn session_begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> Result<Result<Row, SessionError>, SessionError> {
        match &mut self.0 {
            ConnectionInner::Pinned(session) => {
                let begun = session.begin_and_query(statement).await;
                begun
                    .map(|row| row.map_err(session_error))
                    .map_err(session_error)
            }
            ConnectionInner::Native(_) => Err(SessionError::unsupported(statement)),
        }
    }

    async fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        match &mut self.0 {
            ConnectionInner::Pinned(session) => session.commit(check).await,
            ConnectionInner::Native(connection) => connection.commit().await,
        }
        .map_err(session_error)
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        match &mut self.0 {
            ConnectionInner::Pinned(session) => session.roll_back().await,
            ConnectionInner::Native(connection) => connection.roll_back().await,
        }
        .map_err(session_error)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        match &self.0 {
            ConnectionInner::Pinned(session) => {
                session.query(statement).await.map_err(session_error)
            }
            ConnectionInner::Native(_) => Err(SessionError::unsupported(statement)),
        }
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        match &self.0 {
            ConnectionInner::Pinned(session) => {
                session.execute_script(script).await.map_err(session_error)
            }
            ConnectionInner::Native(_) => Err(SessionError::unsupported(script)),
        }
    }

    fn session_mark_broken(&mut self) {
        // A closed connection does not return to its pool, so it needs no further mark.
        self.session_start_terminate(None);
    }

    /// The pinned connection knows the process id of its session.
    fn session_start_terminate(&mut self, _pid: Option<i32>) {
        match &mut self.0 {
            ConnectionInner::Pinned(session) => session.connection.start_terminate(),
            ConnectionInner::Native(connection) => connection.start_terminate(),
        }
    }

    fn session_enqueue(&mut self, script: &Script) -> bool {
        match &self.0 {
            ConnectionInner::Pinned(session) => session.enqueue(script, None),
            ConnectionInner::Native(_) => false,
        }
    }

    fn session_enqueue_release(&mut self, script: &Script, release: QueuedRelease) -> bool {
        match &self.0 {
            ConnectionInner::Pinned(session) => session.enqueue(script, Some(release)),
            ConnectionInner::Native(_) => false,
        }
    }

    async fn session_sleep(&mut self, pause: Duration) {
        futures_timer::Delay::new(pause).await;
    }
}
