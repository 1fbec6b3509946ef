//! The session of a backend without locks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sea_orm::{DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait};

use super::pinned::over;
use super::target::Target;
use crate::backends::runtime_bound::RuntimeBound;
use crate::session::TransactionState;

/// SeaORM's own connection, and the transactions that the protocol began on it.
#[derive(Debug)]
pub(super) struct WithoutLocks {
    connection: DatabaseConnection,
    begun: Vec<RuntimeBound<DatabaseTransaction>>,
    /// Its clones are the transactions that the body has open.
    bodys: Arc<BodysTransactions>,
    given_up: bool,
}

/// Counted, so that a transaction left open shows in a test on SQLite as it would on PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct BodysTransactions;

impl WithoutLocks {
    pub(super) fn new(connection: DatabaseConnection) -> Self {
        Self {
            connection,
            begun: Vec::new(),
            bodys: Arc::default(),
            given_up: false,
        }
    }

    pub(super) fn transaction_state(&self) -> TransactionState {
        if self.given_up {
            TransactionState::broken()
        } else {
            let open = self.begun.len() + Arc::strong_count(&self.bodys) - 1;
            TransactionState::open(u32::try_from(open).unwrap_or(u32::MAX))
        }
    }

    pub(super) fn target(&self) -> Target<'_> {
        match self.begun.last() {
            _ if self.given_up => Target::Over,
            Some(transaction) => Target::Transaction(transaction, Some(&self.bodys)),
            None => Target::Connection(&self.connection, &self.bodys),
        }
    }

    /// Begins a transaction, or a savepoint in the innermost one.
    pub(super) async fn begin(&mut self) -> Result<(), DbErr> {
        let begun = match self.begun.last() {
            Some(transaction) => transaction.begin().await,
            None => self.connection.begin().await,
        };
        self.begun.push(RuntimeBound::new(begun?, drop));
        Ok(())
    }

    pub(super) async fn commit(&mut self) -> Result<(), DbErr> {
        match self.begun.pop().map(RuntimeBound::into_inner) {
            Some(transaction) => transaction.commit().await,
            None => Err(over()),
        }
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), DbErr> {
        match self.begun.pop().map(RuntimeBound::into_inner) {
            Some(transaction) => transaction.rollback().await,
            None => Err(over()),
        }
    }

    /// Rolls back what is open. There is no session to end, but what would now run outside the transactions it was meant for is
    /// refused.
    pub(super) async fn condemn(&mut self) {
        while !self.begun.is_empty() {
            // It says what it could not do, and nobody can do it better.
            let _ = self.roll_back().await;
        }
        self.given_up = true;
    }

    /// The same without waiting: SeaORM rolls back at the next use, or when the connection goes back to its pool.
    pub(super) fn abandon(&mut self) {
        // SeaORM panics if a task that the body left behind is using the transaction.
        let _ = catch_unwind(AssertUnwindSafe(|| self.begun.clear()));
        self.given_up = true;
    }
}
