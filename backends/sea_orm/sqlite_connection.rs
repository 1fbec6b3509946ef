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
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait};

use super::native::drop_transaction;
use crate::backends::RuntimeBound;

/// Returns whether a connection of SeaORM is a SQLite pool of sqlx.
pub(super) fn is_sqlite_pool(db: &DatabaseConnection) -> bool {
    // No pattern can name the variant: it exists only if a crate of the build enables SeaORM's
    // feature `sqlx-sqlite`.
    format!("{:?}", db.inner) == "SqlxSqlitePoolConnection"
}

/// Checks out a connection, in which no transaction is open unless a statement begins one.
pub(super) async fn checkout(
    db: &DatabaseConnection,
) -> Result<RuntimeBound<DatabaseTransaction>, DbErr> {
    let connection = RuntimeBound::current(db.begin().await?, return_to_pool);
    connection.get_ref().execute_unprepared("COMMIT").await?;
    Ok(connection)
}

/// Rolls back what is open, and returns the connection to its pool.
fn return_to_pool(transaction: DatabaseTransaction) {
    // Fails if the body has left a transaction open: that one is rolled back then.
    let _ = transaction.execute_unprepared("BEGIN").now_or_never();
    drop_transaction(transaction);
}
