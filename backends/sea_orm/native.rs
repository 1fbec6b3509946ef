//! The session of a backend without locks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sea_orm::{DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait};
use tokio::runtime::Handle;

use super::executor::Executor;
use super::pinned::transaction_ended_error;
use crate::backends::RuntimeBound;
use crate::session::TransactionState;

/// SeaORM's own connection, and the transactions that the protocol began on it.
#[derive(Debug)]
pub(super) struct NativeConnection {
    connection: DatabaseConnection,
    transactions: Vec<RuntimeBound<DatabaseTransaction>>,
    /// Its clones are the transactions that the body has open.
    open_transactions: Arc<OpenTransactions>,
    closed: bool,
}

/// Counted, so that a transaction left open shows in a test on SQLite as it would on PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions;

impl NativeConnection {
    pub(super) fn new(connection: DatabaseConnection) -> Self {
        Self {
            connection,
            transactions: Vec::new(),
            open_transactions: Arc::default(),
            closed: false,
        }
    }

    pub(super) fn transaction_state(&self) -> TransactionState {
        if self.closed {
            TransactionState::broken()
        } else {
            let open = self.transactions.len() + Arc::strong_count(&self.open_transactions) - 1;
            TransactionState::open(u32::try_from(open).unwrap_or(u32::MAX))
        }
    }

    pub(super) fn executor(&self) -> Executor<'_> {
        match self.transactions.last() {
            _ if self.closed => Executor::Ended,
            Some(transaction) => {
                Executor::Transaction(transaction.get_ref(), Some(&self.open_transactions))
            }
            None => Executor::Connection(&self.connection, &self.open_transactions),
        }
    }

    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(&mut self) -> Result<(), DbErr> {
        let begun = match self.transactions.last() {
            Some(transaction) => transaction.get_ref().begin().await,
            None => self.connection.begin().await,
        };
        let runtime = Handle::try_current().ok();
        self.transactions
            .push(RuntimeBound::new(begun?, runtime, drop));
        Ok(())
    }

    pub(super) async fn commit(&mut self) -> Result<(), DbErr> {
        match self.transactions.pop().map(RuntimeBound::into_inner) {
            Some(transaction) => transaction.commit().await,
            None => Err(transaction_ended_error()),
        }
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), DbErr> {
        match self.transactions.pop().map(RuntimeBound::into_inner) {
            Some(transaction) => transaction.rollback().await,
            None => Err(transaction_ended_error()),
        }
    }

    /// Rolls back what is open. There is no session to end, but what would now run outside the transactions it was meant for is
    /// refused.
    pub(super) async fn terminate(&mut self) {
        while !self.transactions.is_empty() {
            // It says what it could not do, and nobody can do it better.
            let _ = self.roll_back().await;
        }
        self.closed = true;
    }

    /// The same without waiting: SeaORM rolls back at the next use, or when the connection goes back to its pool.
    pub(super) fn start_terminate(&mut self) {
        // SeaORM panics if a task that the body left behind is using the transaction.
        let _ = catch_unwind(AssertUnwindSafe(|| self.transactions.clear()));
        self.closed = true;
    }
}
