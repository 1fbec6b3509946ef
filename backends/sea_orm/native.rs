//! SeaORM's own connection and transactions, of a mock or a proxy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sea_orm::{DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait};
use tokio::runtime::Handle;

use super::error::transaction_ended_error;
use crate::backends::RuntimeBound;
use crate::session::TransactionState;

/// SeaORM's connection, with the transactions that this crate began on it.
#[derive(Debug)]
pub(super) struct NativeConnection {
    pub(super) connection: DatabaseConnection,
    transactions: Vec<RuntimeBound<DatabaseTransaction>>,
    pub(super) open_transactions: Arc<OpenTransactions>,
    pub(super) closed: bool,
}

/// Counter of the body's open transactions: each of them has a clone of the `Arc`.
///
/// So a test on SQLite finds a transaction that was left open, as on PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions;

/// SeaORM's transaction, begun by the body.
#[derive(Debug)]
pub(super) struct NativeTransaction {
    pub(super) transaction: RuntimeBound<DatabaseTransaction>,
    pub(super) open_transactions: Option<Arc<OpenTransactions>>,
}

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
            // One of the counter's references is the connection's own.
            let open = self.transactions.len() + Arc::strong_count(&self.open_transactions) - 1;
            TransactionState::open(u32::try_from(open).unwrap_or(u32::MAX))
        }
    }

    /// Returns the innermost transaction that this crate began.
    pub(super) fn innermost(&self) -> Option<&DatabaseTransaction> {
        self.transactions.last().map(RuntimeBound::get_ref)
    }

    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(&mut self) -> Result<(), DbErr> {
        let begun = match self.innermost() {
            Some(transaction) => transaction.begin().await,
            None => self.connection.begin().await,
        };
        self.transactions.push(bind(begun?));
        Ok(())
    }

    pub(super) async fn commit(&mut self) -> Result<(), DbErr> {
        match self.transactions.pop() {
            Some(transaction) => transaction.into_inner().commit().await,
            None => Err(transaction_ended_error()),
        }
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), DbErr> {
        match self.transactions.pop() {
            Some(transaction) => transaction.into_inner().rollback().await,
            None => Err(transaction_ended_error()),
        }
    }

    /// Rejects further statements, which would run outside their transaction, and drops all
    /// transactions. There is no session to terminate.
    ///
    /// SeaORM runs the rollbacks at the next use of the connection, or when it returns to the pool.
    pub(super) fn start_terminate(&mut self) {
        // SeaORM 2.0.4 panics in the drop of a transaction that another task is using, and this may
        // itself run in a drop, during an unwind.
        let _ = catch_unwind(AssertUnwindSafe(|| self.transactions.clear()));
        self.closed = true;
    }
}

impl NativeTransaction {
    pub(super) fn new(
        transaction: DatabaseTransaction,
        open_transactions: Option<Arc<OpenTransactions>>,
    ) -> Self {
        Self {
            transaction: bind(transaction),
            open_transactions,
        }
    }

    pub(super) async fn commit(self) -> Result<(), DbErr> {
        self.transaction.into_inner().commit().await
    }

    pub(super) async fn roll_back(self) -> Result<(), DbErr> {
        self.transaction.into_inner().rollback().await
    }
}

/// Binds a transaction to the current runtime, because its drop may use that.
fn bind(transaction: DatabaseTransaction) -> RuntimeBound<DatabaseTransaction> {
    RuntimeBound::new(transaction, Handle::try_current().ok(), drop)
}
