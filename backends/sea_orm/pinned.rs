//! Pinned PostgreSQL connection, which the body's handle, its transactions and its streams share.
//!
//! # Implementation details
//!
//! A pinned connection is a connection of the pool with a transaction log and a clean-up queue.
//!
//! * [`PinnedState`] is the connection itself, with its statement in flight. It is behind an async
//!   mutex, whose waiters are served in order. A stream keeps the mutex until it is dropped.
//! * [`TransactionLog`] names the open transactions and the pending clean-up. It is behind a
//!   blocking mutex of its own, because a drop must write to it while another task uses the
//!   connection.
//!
//! Every user locks the state, which first runs the recovery of a dropped statement and the pending
//! clean-up. The drop of a guard or of a transaction adds to the clean-up and spawns a task that
//! locks the state, so that the clean-up runs soon even if no user follows. The drop of a statement
//! in flight spawns no task. The connection returns to its pool with the last clone, if nothing is
//! in flight, open or pending; else it is closed.

use std::sync::Arc;

use sea_orm::sqlx::PgPool;
use sea_orm::{DbErr, TransactionOptions};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use super::error::{acquire_error, transaction_ended_error};
use super::state::{InFlight, PinnedState};
use super::transaction_log::{Cleanup, TransactionId, TransactionLog};
use crate::backends::RuntimeBound;
use crate::session::{Row, Statement, TransactionState};

/// Pinned connection. Clones share the connection.
#[derive(Clone, Debug)]
pub(super) struct PostgresConnection {
    state: Arc<AsyncMutex<PinnedState>>,
    log: Arc<TransactionLog>,
    /// Runtime of the checkout, where the clean-up runs: a drop may happen outside any runtime.
    runtime: Option<Handle>,
}

/// Pinned connection as the session of a lock, with the transactions that this crate began on it.
#[derive(Debug)]
pub(super) struct PostgresSession {
    pub(super) connection: PostgresConnection,
    began: Vec<TransactionId>,
}

/// Transaction or savepoint on a pinned connection, rolled back on drop unless it has ended.
#[derive(Debug)]
pub(super) struct PostgresTransaction {
    pub(super) connection: PostgresConnection,
    pub(super) id: TransactionId,
}

impl PostgresConnection {
    pub(super) async fn checkout(pool: &PgPool) -> Result<Self, DbErr> {
        let connection = pool.acquire().await.map_err(acquire_error)?;
        let runtime = Handle::try_current().ok();
        let connection = RuntimeBound::new(connection, runtime.clone(), drop);
        let log = Arc::<TransactionLog>::default();
        let state = PinnedState::new(connection, pool.clone(), Arc::clone(&log));
        Ok(Self {
            state: Arc::new(AsyncMutex::new(state)),
            log,
            runtime,
        })
    }

    /// Locks the connection and runs its clean-up.
    pub(super) async fn lock(&self) -> Result<AsyncMutexGuard<'_, PinnedState>, DbErr> {
        let mut state = self.state.lock().await;
        state.run_cleanup().await?;
        Ok(state)
    }

    /// Locks the connection for a statement in a transaction, which must still be open.
    pub(super) async fn lock_in(
        &self,
        transaction: Option<TransactionId>,
    ) -> Result<AsyncMutexGuard<'_, PinnedState>, DbErr> {
        let state = self.lock().await?;
        state.check_open(transaction)?;
        Ok(state)
    }

    pub(super) fn transaction_state(&self) -> TransactionState {
        let log = self.log.lock();
        if log.closed {
            TransactionState::broken()
        } else {
            TransactionState::open(u32::try_from(log.open.len()).unwrap_or(u32::MAX))
        }
    }

    /// Returns whether a transaction is open.
    pub(super) fn is_open(&self, id: TransactionId) -> bool {
        self.log.lock().level_of(id).is_some()
    }

    /// Runs a lock statement, in a transaction that must still be open if one is named.
    pub(super) async fn query(
        &self,
        transaction: Option<TransactionId>,
        statement: &Statement,
    ) -> Result<Row, DbErr> {
        let mut state = self.lock_in(transaction).await?;
        state.run_statement(statement).await
    }

    /// Sends a script, in a transaction that must still be open if one is named.
    pub(super) async fn execute_script(
        &self,
        transaction: Option<TransactionId>,
        sql: &str,
    ) -> Result<(), DbErr> {
        let mut state = self.lock_in(transaction).await?;
        state.run_script(sql).await
    }

    /// Enqueues messages before any other statement. Returns `false` if the connection is closed.
    pub(super) fn enqueue(&self, messages: Vec<String>) -> bool {
        let mut log = self.log.lock();
        if log.closed {
            return false;
        }
        log.pending_cleanup
            .extend(messages.into_iter().map(Cleanup::Message));
        // The task locks the log, too.
        drop(log);
        self.spawn_cleanup();
        true
    }

    /// Runs the clean-up in a task.
    ///
    /// A runtime that shuts down drops the task. If that drops the last clone of the connection,
    /// the pending clean-up makes the connection close.
    fn spawn_cleanup(&self) {
        if let Some(runtime) = &self.runtime {
            let connection = self.clone();
            runtime.spawn(async move {
                // On failure, the connection is closed.
                let _ = connection.lock().await;
            });
        }
    }

    /// Terminates the session without waiting for it, whatever statement it runs.
    pub(super) fn start_terminate(&self) {
        // Closed first, so that a user who holds the state sends no further statement.
        self.log.lock().closed = true;
        match self.state.try_lock() {
            Ok(mut state) => state.discard(),
            // A stream or a spawned task of the body uses the connection; the clean-up follows it.
            Err(_) => self.spawn_cleanup(),
        }
    }

    /// Terminates the session if a lock statement was dropped in flight.
    ///
    /// If another task uses the connection, either that task finds the statement in flight, or none
    /// was sent.
    pub(super) fn start_terminate_if_in_flight(&self) {
        if let Ok(mut state) = self.state.try_lock()
            && matches!(state.in_flight, InFlight::LockStatement)
        {
            state.discard();
        }
    }
}

impl PostgresSession {
    pub(super) async fn checkout(pool: &PgPool) -> Result<Self, DbErr> {
        Ok(Self {
            connection: PostgresConnection::checkout(pool).await?,
            began: Vec::new(),
        })
    }

    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(&mut self) -> Result<(), DbErr> {
        let mut state = self.connection.lock().await?;
        self.began
            .push(state.begin(&TransactionOptions::default()).await?);
        Ok(())
    }

    /// Commits the innermost transaction that this crate began.
    pub(super) async fn commit(&mut self) -> Result<(), DbErr> {
        let id = self.began.pop().ok_or_else(transaction_ended_error)?;
        self.connection.lock().await?.commit(id).await
    }

    /// Rolls the innermost transaction that this crate began back.
    pub(super) async fn roll_back(&mut self) -> Result<(), DbErr> {
        let id = self.began.pop().ok_or_else(transaction_ended_error)?;
        self.connection.lock().await?.roll_back(id).await
    }
}

impl PostgresTransaction {
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        let mut state = self.connection.lock().await?;
        state.commit(self.id).await
    }

    pub(super) async fn roll_back(self) -> Result<(), DbErr> {
        let mut state = self.connection.lock().await?;
        state.roll_back(self.id).await
    }
}

impl Drop for PostgresTransaction {
    fn drop(&mut self) {
        // `false` after a commit or a rollback, which has removed the id from the log.
        let dropped = self.connection.log.lock().drop_transaction(self.id);
        if dropped {
            self.connection.spawn_cleanup();
        }
    }
}
