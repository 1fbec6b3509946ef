//! Connection of a SQLite pool, kept for a body as a connection of PostgreSQL is.
//!
//! # Implementation details
//!
//! SeaORM 2.0.4 keeps a connection of its pool for a transaction only. So the checkout begins a
//! transaction, and ends it with a `COMMIT` that SeaORM does not see: the body's statements commit
//! by themselves. The drop begins another one, which SeaORM rolls back before the connection
//! returns to the pool.
//!
//! The drop does not wait. sqlx 0.9.0 sends each statement to a thread of its connection at the
//! first poll, and that thread runs the statements in their order.

use futures_util::FutureExt;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbErr,
    TransactionTrait,
};

use super::native::drop_transaction;
use crate::backends::RuntimeBound;

/// Connection of a SQLite pool, in which no transaction is open unless a statement has begun one.
#[derive(Debug)]
pub(super) struct SqliteConnection(RuntimeBound<DatabaseTransaction>);

impl SqliteConnection {
    /// Returns whether a connection of SeaORM is a SQLite pool of sqlx.
    pub(super) fn is_of(db: &DatabaseConnection) -> bool {
        // No pattern can name the variant: it exists only if a crate of the build enables SeaORM's
        // feature `sqlx-sqlite`.
        format!("{:?}", db.inner) == "SqlxSqlitePoolConnection"
    }

    pub(super) async fn checkout(db: &DatabaseConnection) -> Result<Self, DbErr> {
        let transaction = db.begin().await?;
        let connection = Self(RuntimeBound::current(transaction, return_to_pool));
        connection.executor().execute_unprepared("COMMIT").await?;
        Ok(connection)
    }

    pub(super) fn executor(&self) -> DatabaseExecutor<'_> {
        self.0.get_ref().into()
    }
}

/// Rolls back what is open, and returns the connection to its pool.
fn return_to_pool(transaction: DatabaseTransaction) {
    // Fails if the body has left a transaction open: that one is rolled back then.
    let _ = transaction.execute_unprepared("BEGIN").now_or_never();
    drop_transaction(transaction);
}
