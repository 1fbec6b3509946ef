//! Transactions of this crate, through sqlx's own transaction manager.
//!
//! # Implementation details
//!
//! sqlx counts its open transactions per connection, and the body's `begin` depends on that count.
//! Only its own `BEGIN` and `COMMIT` change it. So the check before a commit is a message of its
//! own, and the begin does not carry the first attempt.
//!
//! A commit or rollback that is dropped in flight is followed by a rollback, as with sqlx's own
//! transactions. If the commit succeeds, the server warns that there is no transaction to roll back
//! (seen with sqlx 0.9.0). sqlx has no other way to lower its count of open transactions in a drop.

use std::mem;

use ::sqlx::postgres::PgTransactionManager;
use ::sqlx::{AssertSqlSafe, Connection, Error, PgConnection, SqlSafeStr};
use scopeguard::ScopeGuard;
use sqlx_core::transaction::TransactionManager;

use super::error::postgres_error;
use super::statements::{drain, send};
use crate::backends::postgres;
use crate::session::{Script, SessionError, TransactionState};

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
    // The drop of sqlx's future rolls back the transaction around the savepoint. A commit of that
    // transaction then succeeds without effect (seen with sqlx 0.9.0). So a future that is dropped
    // in flight is leaked: a reference to the connection, and an allocation with the text.
    let begin = Box::pin(PgTransactionManager::begin(conn, None));
    let mut leaked_on_drop = scopeguard::guard(begin, mem::forget);
    let begun = leaked_on_drop.as_mut().await;
    drop(ScopeGuard::into_inner(leaked_on_drop));
    begun
}

/// Commits the innermost transaction or savepoint after a check. If either fails, it rolls back.
pub(super) async fn commit(
    conn: &mut PgConnection,
    check: Option<&Script>,
) -> Result<(), SessionError> {
    let mut ending = scopeguard::guard(&mut *conn, PgTransactionManager::start_rollback);
    if let Err(error) = check_and_commit(&mut ending, check).await {
        // sqlx counts the transaction until it has ended. The caller gets the first error.
        drop(ending);
        let _ = drain(conn).await;
        return Err(error);
    }
    ScopeGuard::into_inner(ending);
    Ok(())
}

async fn check_and_commit(
    conn: &mut PgConnection,
    check: Option<&Script>,
) -> Result<(), SessionError> {
    let checked = run_check(conn, check).await;
    checked.map_err(|error| postgres_error(error).before_commit())?;
    let committed = PgTransactionManager::commit(conn).await;
    committed.map_err(postgres_error)
}

async fn run_check(conn: &mut PgConnection, check: Option<&Script>) -> Result<(), Error> {
    drain(conn).await?;
    // A bare `COMMIT` of an aborted transaction rolls back and succeeds.
    let check = check.map_or_else(|| "SAVEPOINT advisory_locking".to_owned(), Script::sql);
    send(conn, &check).await.map(drop)
}

/// Rolls back the innermost transaction or savepoint.
pub(super) async fn roll_back(conn: &mut PgConnection) -> Result<(), Error> {
    let mut ending = scopeguard::guard(&mut *conn, PgTransactionManager::start_rollback);
    drain(&mut ending).await?;
    // Queues the rollback, so that a drop while the reply is outstanding leaves nothing to do.
    // sqlx counts the transaction as ended, also if a savepoint is gone.
    drop(ending);
    let rolled_back = conn.flush().await;
    if rolled_back.is_err() {
        drain(conn).await?;
    }
    rolled_back
}
