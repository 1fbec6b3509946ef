//! `SqliteConnection` and its transactions and pools, which have no locks.
//!
//! A commit or rollback that is dropped in flight is followed by a rollback, as with sqlx's own
//! transactions. sqlx's SQLite worker relies on that (seen with sqlx 0.9.0).

use ::sqlx::pool::{Pool, PoolConnection};
use ::sqlx::{Connection, Error, Executor, Transaction};
use scopeguard::ScopeGuard;
use sqlx_core::transaction::{TransactionManager, begin_ansi_transaction_sql};
use sqlx_sqlite::{Sqlite, SqliteConnection, SqliteTransactionManager};

use crate::backends::RuntimeBound;
use crate::session::{
    AsyncLockPool, AsyncLockSession, Backend, Script, SessionError, TransactionState,
};

fn depth(conn: &SqliteConnection) -> u32 {
    let depth = SqliteTransactionManager::get_transaction_depth(conn);
    u32::try_from(depth).unwrap_or(u32::MAX)
}

/// Waits until sqlx's thread has performed all rollbacks that drops have sent to it. It counts a
/// transaction until then (seen with sqlx 0.9.0).
async fn await_rollbacks(conn: &mut SqliteConnection) {
    if depth(conn) > 0 {
        // It fails only if the thread has ended, which the next statement reports.
        let _ = conn.ping().await;
    }
}

async fn commit(conn: &mut SqliteConnection) -> Result<(), SessionError> {
    let mut ending = scopeguard::guard(conn, SqliteTransactionManager::start_rollback);
    let committed = SqliteTransactionManager::commit(&mut ending).await;
    if committed.is_err() {
        // A commit that fails leaves the transaction open in SQLite. The caller gets the error of
        // the commit.
        let _ = roll_back_innermost(&mut ending).await;
    }
    ScopeGuard::into_inner(ending);
    committed.map_err(SessionError::new)
}

async fn roll_back(conn: &mut SqliteConnection) -> Result<(), SessionError> {
    let mut ending = scopeguard::guard(conn, SqliteTransactionManager::start_rollback);
    let rolled_back = roll_back_innermost(&mut ending).await;
    ScopeGuard::into_inner(ending);
    rolled_back.map_err(SessionError::new)
}

/// Rolls back the innermost transaction. If the body has ended it with plain SQL, begins it again
/// first: sqlx counts it until its rollback succeeds.
///
/// Some errors of SQLite end the transactions around it as well, for example [`OR ROLLBACK`]. They
/// stay ended, so that their commit fails.
///
/// [`OR ROLLBACK`]: https://www.sqlite.org/lang_conflict.html
async fn roll_back_innermost(conn: &mut SqliteConnection) -> Result<(), Error> {
    if SqliteTransactionManager::rollback(conn).await.is_ok() {
        return Ok(());
    }
    let outer = SqliteTransactionManager::get_transaction_depth(conn).saturating_sub(1);
    // It fails inside a transaction. Without one, the savepoint would begin a transaction, and the
    // commit of the caller would succeed without effect.
    let all_ended = outer > 0 && conn.execute("BEGIN").await.is_ok();
    conn.execute(begin_ansi_transaction_sql(outer)).await?;
    SqliteTransactionManager::rollback(conn).await?;
    if all_ended {
        conn.execute("ROLLBACK").await?;
    }
    Ok(())
}

/// Implements the port for types that dereference to [`SqliteConnection`].
macro_rules! lock_session {
    ($($type:ty),*) => {$(
        impl AsyncLockSession for $type {
            fn session_backend(&mut self) -> Backend {
                Backend::Sqlite
            }

            fn session_transaction_state(&mut self) -> TransactionState {
                TransactionState::open(depth(self))
            }

            async fn session_await_rollbacks(&mut self) {
                await_rollbacks(self).await;
            }

            async fn session_begin(&mut self) -> Result<(), SessionError> {
                let begun = SqliteTransactionManager::begin(self, None).await;
                begun.map_err(SessionError::new)
            }

            async fn session_commit(
                &mut self,
                _check: Option<&Script>,
            ) -> Result<(), SessionError> {
                commit(self).await
            }

            async fn session_rollback(&mut self) -> Result<(), SessionError> {
                roll_back(self).await
            }

            // There is no session to terminate: the rollback is the whole clean-up.
            fn session_mark_broken(&mut self) {}

            fn session_start_terminate(&mut self, _pid: Option<i32>) {}

            fn session_start_rollback_to(&mut self, to: u32) -> bool {
                let open = depth(self);
                // The body's transactions have sent their rollbacks, which may still be counted.
                // One rollback too many would end the caller's transaction, whose commit would
                // then succeed without effect. Outside a transaction it has no effect.
                let rollbacks = match to {
                    0 => open,
                    _ => open.saturating_sub(to).min(1),
                };
                for _ in 0..rollbacks {
                    SqliteTransactionManager::start_rollback(self);
                }
                rollbacks > 0
            }
        }
    )*};
}
lock_session!(
    SqliteConnection,
    PoolConnection<Sqlite>,
    Transaction<'_, Sqlite>
);

impl AsyncLockPool for Pool<Sqlite> {
    type Session = SqliteConnection;
    type Connection = RuntimeBound<PoolConnection<Sqlite>>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let connection = self.acquire().await.map_err(SessionError::new)?;
        Ok(RuntimeBound::current(connection, drop))
    }

    async fn closed(&self) {
        self.close_event().await;
    }
}
