//! Pinned connection as the session of a lock.

use std::time::Duration;

use sea_orm::sqlx::PgPool;
use sea_orm::{DatabaseConnection, DbErr, TransactionOptions};

use super::error::transaction_ended_error;
use super::pinned::{LockedState, SharedConnection};
use super::transaction_log::TransactionId;
use crate::session::{QueuedRelease, Row, Script, Statement};

/// Longest time to read the remaining rows of a stream that was leaked.
const LEAKED_STREAM_LIMIT: Duration = Duration::from_secs(5);

/// Pinned connection as the session of a lock, with the transactions that this crate began on it.
///
/// Its methods are called while the body does not run.
#[derive(Debug)]
pub(super) struct PinnedSession {
    pub(super) connection: SharedConnection,
    began: Vec<TransactionId>,
}

impl PinnedSession {
    pub(super) async fn checkout(pool: &PgPool) -> Result<Self, DbErr> {
        SharedConnection::checkout(pool).await.map(Self::new)
    }

    pub(super) async fn checkout_of_sqlite(db: &DatabaseConnection) -> Result<Self, DbErr> {
        let connection = SharedConnection::checkout_of_sqlite(db).await;
        connection.map(Self::new)
    }

    fn new(connection: SharedConnection) -> Self {
        Self {
            connection,
            began: Vec::new(),
        }
    }

    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(&mut self) -> Result<(), DbErr> {
        let options = TransactionOptions::default();
        let id = self.lock().await?.begin(&options).await?;
        self.began.push(id);
        Ok(())
    }

    /// Begins a transaction, or a savepoint, and runs a lock statement in it.
    pub(super) async fn begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> Result<Result<Row, DbErr>, DbErr> {
        let (id, row) = self.lock().await?.begin_and_query(statement).await?;
        self.began.push(id);
        Ok(row)
    }

    /// Commits the innermost transaction that this crate began, after a check.
    pub(super) async fn commit(&mut self, check: Option<&Script>) -> Result<(), DbErr> {
        let id = self.began.pop().ok_or_else(transaction_ended_error)?;
        self.lock().await?.commit(id, check).await
    }

    /// Rolls the innermost transaction that this crate began back.
    pub(super) async fn roll_back(&mut self) -> Result<(), DbErr> {
        let id = self.began.pop().ok_or_else(transaction_ended_error)?;
        self.lock().await?.roll_back(id).await
    }

    /// Runs a lock statement.
    pub(super) async fn query(&self, statement: &Statement) -> Result<Row, DbErr> {
        self.lock().await?.run_statement(statement).await
    }

    /// Sends a script.
    pub(super) async fn execute_script(&self, script: &Script) -> Result<(), DbErr> {
        self.lock().await?.run_script(&script.plain_sql()).await
    }

    /// Enqueues messages before any other statement. `release` gets the reply to the first. Returns
    /// `false` if the connection is closed.
    pub(super) fn enqueue(&self, script: &Script, release: Option<QueuedRelease>) -> bool {
        let limit = self.end_leaked_stream();
        self.connection.enqueue(script.messages(), release, limit)
    }

    async fn lock(&self) -> Result<LockedState<'_>, DbErr> {
        let limit = self.end_leaked_stream();
        self.connection.lock_within(limit).await
    }

    /// Ends the stream that the body has leaked with [`std::mem::forget`], if there is one. Returns
    /// the limit for the rest of its rows.
    fn end_leaked_stream(&self) -> Option<Duration> {
        // A stream of an open transaction may belong to another task. The body's other streams
        // borrow its handle, so they were dropped or leaked.
        let leaked = !self.connection.transaction_state().is_open() && self.connection.end_stream();
        leaked.then_some(LEAKED_STREAM_LIMIT)
    }
}
