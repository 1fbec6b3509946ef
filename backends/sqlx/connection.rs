//! `PgConnection`, and the types that dereference to it.

use std::time::Duration;

use ::sqlx::pool::PoolConnection;
use ::sqlx::{Connection as _, PgConnection, Postgres, Transaction};

use super::error::postgres_error;
use super::statements::{drain, run_statement, send};
use super::{detached, transactions};
use crate::session::{
    AsyncLockSession, Backend, Row, Script, SessionError, Statement, TransactionState,
};

/// Longest time that a wait on the server lasts.
///
/// The adapter cannot cancel it: sqlx shows neither the cancel key nor the options of a connection.
/// So the wait of a dropped future lasts that long. It is longer than the default of
/// [`deadlock_timeout`], after which the server looks for a deadlock.
///
/// [`deadlock_timeout`]: https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-DEADLOCK-TIMEOUT
const MAX_SERVER_WAIT: Duration = Duration::from_millis(1500);

/// Runs a lock statement. All replies have been read.
pub(super) async fn query(
    conn: &mut PgConnection,
    statement: &Statement,
) -> Result<Row, SessionError> {
    let in_transaction = conn.is_in_transaction();
    let row = run_statement(conn, statement, in_transaction).await;
    row.map_err(postgres_error)
}

/// Sends a script. All replies have been read.
pub(super) async fn execute(conn: &mut PgConnection, script: &Script) -> Result<(), SessionError> {
    let sent = send(conn, &script.plain_sql()).await;
    sent.map(drop).map_err(postgres_error)
}

/// Implements the port for types that dereference to [`PgConnection`].
macro_rules! lock_session {
    ($($type:ty => $mark_broken:expr;)*) => {$(
        impl AsyncLockSession for $type {
            fn session_backend(&mut self) -> Backend {
                Backend::Postgres
            }

            fn session_transaction_state(&mut self) -> TransactionState {
                transactions::transaction_state(self)
            }

            async fn session_begin(&mut self) -> Result<(), SessionError> {
                transactions::begin(self).await.map_err(postgres_error)
            }

            async fn session_commit(
                &mut self,
                check: Option<&Script>,
            ) -> Result<(), SessionError> {
                transactions::commit(self, check).await
            }

            async fn session_rollback(&mut self) -> Result<(), SessionError> {
                transactions::roll_back(self).await.map_err(postgres_error)
            }

            async fn session_query(
                &mut self,
                statement: &Statement,
            ) -> Result<Row, SessionError> {
                // The error of a dropped statement would arrive as that of this statement.
                drain(self).await.map_err(postgres_error)?;
                query(self, statement).await
            }

            async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
                drain(self).await.map_err(postgres_error)?;
                execute(self, script).await
            }

            fn session_mark_broken(&mut self) {
                $mark_broken(self);
            }

            fn session_start_rollback_to(&mut self, depth: u32) -> bool {
                detached::start_rollback_to(self, depth)
            }

            fn session_start_terminate(&mut self, pid: Option<i32>) {
                detached::start_terminate(self, pid);
                self.session_mark_broken();
            }

            fn session_enqueue(&mut self, script: &Script) -> bool {
                detached::queue_all(self, &script.messages())
            }

            fn session_max_server_wait(&self) -> Option<Duration> {
                Some(MAX_SERVER_WAIT)
            }
        }
    )*};
}
lock_session! {
    // Without a mark. After the end of its session, each statement fails.
    PgConnection => |_: &Self| ();
    Transaction<'_, Postgres> => |_: &Self| ();
    PoolConnection<Postgres> => Self::close_on_drop;
}
