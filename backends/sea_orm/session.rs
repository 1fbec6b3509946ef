//! The ports: `DatabaseConnection` as a pool, and the pinned connection as a session.

use sea_orm::sqlx::PgPool;
use sea_orm::{DatabaseConnection, DatabaseConnectionType, DbBackend, TransactionOptions};

use super::error::{acquire_error, session_error, transaction_ended_error};
use super::handle::PinnedConnection;
use super::native::NativeConnection;
use super::pinned::{LockedState, SharedConnection};
use super::sqlite_connection;
use super::state::ClientConnection;
use super::transaction_log::TransactionId;
use crate::backends::RuntimeBound;
use crate::session::{
    AsyncLockPool, AsyncLockSession, Backend, QueuedRelease, Row, Script, SessionError, Statement,
    TransactionState,
};

impl AsyncLockPool for DatabaseConnection {
    type Session = PinnedConnection;
    type Connection = Box<PinnedConnection>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let connection = if let Some(pool) = postgres_pool(self) {
            let connection = pool.acquire().await.map_err(acquire_error);
            connection.map(|open| {
                ClientConnection::Postgres(RuntimeBound::current(open, drop), pool.clone())
            })
        } else if sqlite_connection::is_sqlite_pool(self) {
            let connection = sqlite_connection::checkout(self).await;
            connection.map(ClientConnection::Sqlite)
        } else if let DatabaseConnectionType::Disconnected = self.inner {
            return Err(SessionError::unsupported_backend("SeaORM is not connected"));
        } else if has_no_locks(self.get_database_backend()) {
            let native = NativeConnection::new(self.clone());
            Ok(ClientConnection::Native(native))
        } else {
            return Err(SessionError::unsupported_backend(format!(
                "SeaORM's {:?} connection is not a pool of PostgreSQL connections",
                self.get_database_backend()
            )));
        };
        // Boxed, because `Connection` must dereference to `Session`.
        Ok(Box::new(PinnedConnection {
            shared: SharedConnection::new(connection.map_err(session_error)?, self),
            began: Vec::new(),
        }))
    }

    async fn closed(&self) {
        match postgres_pool(self) {
            Some(pool) => pool.close_event().await,
            None => std::future::pending().await,
        }
    }
}

pub(super) fn postgres_pool(db: &DatabaseConnection) -> Option<&PgPool> {
    match db.inner {
        DatabaseConnectionType::SqlxPostgresPoolConnection(_) => {
            Some(db.get_postgres_connection_pool())
        }
        _ => None,
    }
}

/// Returns `true` if a connection of SeaORM's own, which is no pool of sqlx, is the no-op. In a
/// test scope of the unit-test kit, a mock of PostgreSQL is.
fn has_no_locks(backend: DbBackend) -> bool {
    #[cfg(feature = "testing")]
    if backend == DbBackend::Postgres && crate::testing::is_entered() {
        return true;
    }
    backend == DbBackend::Sqlite
}

/// Called while the body does not run.
impl PinnedConnection {
    async fn lock(&self) -> Result<LockedState<'_>, SessionError> {
        self.shared.end_leaked_stream();
        self.shared.lock(None).await.map_err(session_error)
    }

    /// Removes and returns the innermost transaction that this crate began.
    fn pop_began(&mut self) -> Result<TransactionId, SessionError> {
        let innermost = self.began.pop().ok_or_else(transaction_ended_error);
        innermost.map_err(session_error)
    }
}

impl AsyncLockSession for PinnedConnection {
    fn session_backend(&mut self) -> Backend {
        self.shared.lock_backend()
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        self.shared.transaction_state()
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        let options = TransactionOptions::default();
        let begun = self.lock().await?.begin(&options).await;
        self.began.push(begun.map_err(session_error)?);
        Ok(())
    }

    async fn session_begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> Result<Result<Row, SessionError>, SessionError> {
        let begun = self.lock().await?.begin_and_query(statement).await;
        let (id, row) = begun.map_err(session_error)?;
        self.began.push(id);
        Ok(row.map_err(session_error))
    }

    async fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        let id = self.pop_began()?;
        let committed = self.lock().await?.commit(id, check).await;
        committed.map_err(session_error)
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        let id = self.pop_began()?;
        let rolled_back = self.lock().await?.roll_back(id).await;
        rolled_back.map_err(session_error)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let row = self.lock().await?.run_statement(statement).await;
        row.map_err(session_error)
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        let sent = self.lock().await?.run_script(script).await;
        sent.map_err(session_error)
    }

    fn session_mark_broken(&mut self) {
        // A closed connection does not return to its pool, so it needs no further mark.
        self.shared.start_terminate();
    }

    /// The pinned connection knows the process id of its session.
    fn session_start_terminate(&mut self, _pid: Option<i32>) {
        self.shared.start_terminate();
    }

    fn session_enqueue_release(&mut self, script: &Script, release: QueuedRelease) -> bool {
        self.shared.end_leaked_stream();
        self.shared.enqueue(script.messages(), release)
    }
}
