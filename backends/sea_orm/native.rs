//! SeaORM's own connection and transactions, of a mock or a proxy.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sea_orm::{
    DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbErr, TransactionOptions,
    TransactionTrait,
};

use super::error::transaction_ended_error;
use crate::backends::RuntimeBound;

/// SeaORM's connection, with the transactions that are open on it, the outermost first.
#[derive(Debug)]
pub(super) struct NativeConnection {
    connection: DatabaseConnection,
    transactions: Vec<RuntimeBound<DatabaseTransaction>>,
}

impl NativeConnection {
    pub(super) const fn new(connection: DatabaseConnection) -> Self {
        Self {
            connection,
            transactions: Vec::new(),
        }
    }

    /// Returns the innermost transaction, or the connection outside a transaction.
    pub(super) fn executor(&self) -> DatabaseExecutor<'_> {
        match self.transactions.last() {
            Some(transaction) => transaction.get_ref().into(),
            None => (&self.connection).into(),
        }
    }

    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(&mut self, options: TransactionOptions) -> Result<(), DbErr> {
        let begun = self.executor().begin_with_options(options).await?;
        // Bound to the current runtime, because the drop may use that.
        let begun = RuntimeBound::current(begun, drop_transaction);
        self.transactions.push(begun);
        Ok(())
    }

    /// Commits the innermost transaction.
    pub(super) async fn commit(&mut self) -> Result<(), DbErr> {
        // Removed before the commit: if that fails or is dropped, SeaORM's drop rolls back.
        let innermost = self.transactions.pop();
        let innermost = innermost.ok_or_else(transaction_ended_error)?;
        innermost.into_inner().commit().await
    }

    /// Rolls back the transactions from this level on. Does nothing if they have ended.
    pub(super) async fn roll_back(&mut self, level: usize) -> Result<(), DbErr> {
        let level = level.min(self.transactions.len());
        // Removed first: if this future is dropped, the drop of the others rolls them back.
        for transaction in self.transactions.split_off(level).into_iter().rev() {
            transaction.into_inner().rollback().await?;
        }
        Ok(())
    }
}

/// Drops a transaction, which SeaORM rolls back then, if it is open.
pub(super) fn drop_transaction(transaction: DatabaseTransaction) {
    // SeaORM 2.0.4 panics here if a statement was leaked, and this may run in a drop.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(transaction)));
}
