//! Transactions of this crate, through sqlx's own transaction manager.
//!
//! # Implementation details
//!
//! sqlx counts its open transactions per connection, and the body's `begin` depends on that count.
//! Only its own `BEGIN` and `COMMIT` change it. So the check before a commit is a message of its
//! own, and the begin does not carry the first attempt.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::sqlx::postgres::PgTransactionManager;
use ::sqlx::{AssertSqlSafe, Error, PgConnection, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;

use super::dropped::EndingTransaction;
use super::statements::{drain, first_error, send};
use crate::backends::postgres;
use crate::session::{Script, TransactionState};

/// Returns sqlx's view of the transaction.
pub(super) fn transaction_state(conn: &PgConnection) -> TransactionState {
    let depth = PgTransactionManager::get_transaction_depth(conn);
    TransactionState::open(u32::try_from(depth).unwrap_or(u32::MAX))
}

/// Begins a transaction, or a savepoint inside one.
pub(super) async fn begin(conn: &mut PgConnection) -> Result<(), Error> {
    drain(conn).await?;
    if PgTransactionManager::get_transaction_depth(conn) == 0 {
        let text = AssertSqlSafe(postgres::begin()).into_sql_str();
        return PgTransactionManager::begin(conn, Some(text)).await;
    }
    // If the savepoint fails, sqlx 0.9.0 rolls back the transaction around it, whose commit then
    // succeeds without effect. So an aborted transaction, or an ended session, is found before.
    send(conn, "SELECT").await?;
    LeakOnDrop(Some(Box::pin(PgTransactionManager::begin(conn, None)))).await
}

/// Commits the innermost transaction or savepoint after a check. If either fails, it rolls back.
pub(super) async fn commit(conn: &mut PgConnection, check: Option<&Script>) -> Result<(), Error> {
    let mut ending = EndingTransaction::<PgTransactionManager>::new(conn);
    if let Err(error) = check_and_commit(ending.connection(), check).await {
        // sqlx counts the transaction until it has ended. The caller gets the first error.
        drop(ending);
        let _ = drain(conn).await;
        return Err(error);
    }
    ending.ended();
    Ok(())
}

async fn check_and_commit(conn: &mut PgConnection, check: Option<&Script>) -> Result<(), Error> {
    drain(conn).await?;
    // A bare `COMMIT` of an aborted transaction rolls back and succeeds.
    let check = check.map_or_else(|| "SAVEPOINT advisory_locking".to_owned(), Script::sql);
    send(conn, &check).await?;
    PgTransactionManager::commit(conn).await
}

/// Rolls back the innermost transaction or savepoint.
pub(super) async fn roll_back(conn: &mut PgConnection) -> Result<(), Error> {
    let mut ending = EndingTransaction::<PgTransactionManager>::new(conn);
    drain(ending.connection()).await?;
    // Queues the rollback, so that a drop while the reply is outstanding leaves nothing to do.
    // sqlx counts the transaction as ended, also if a savepoint is gone.
    drop(ending);
    first_error(conn).await
}

/// sqlx's begin of a savepoint, which is leaked if it is dropped in flight.
///
/// The drop of sqlx's future rolls back the transaction around the savepoint. A commit of that
/// transaction then succeeds without effect (seen with sqlx 0.9.0). The leaked future has a
/// reference to the connection. It owns its allocation and the text of the savepoint.
struct LeakOnDrop<F>(Option<Pin<Box<F>>>);

impl<F: Future> Future for LeakOnDrop<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.0 else {
            return Poll::Pending;
        };
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<F> Drop for LeakOnDrop<F> {
    fn drop(&mut self) {
        mem::forget(self.0.take());
    }
}
