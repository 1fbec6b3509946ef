//! Messages that no task waits for, because they follow a dropped future.
//!
//! # Implementation details
//!
//! sqlx sends a statement only after it has read all outstanding replies, which a drop cannot wait
//! for. [`begin_with`](Connection::begin_with) is the exception: its first poll queues its text
//! behind the statement in flight (seen with sqlx 0.9.0). It does so outside a transaction only.
//! Inside one, only rollbacks can be queued.

use std::mem;

use ::sqlx::postgres::PgTransactionManager;
use ::sqlx::{AssertSqlSafe, Connection, PgConnection};
use futures_util::FutureExt;
use sqlx_core::transaction::TransactionManager;

use super::error::is_disconnected;
use super::statements::{drain, send};
use crate::backends::postgres::TerminateStep;

/// Queues a message behind the statement in flight. Returns whether sqlx has queued a rollback
/// behind it, and `None` in a transaction and on a closed connection.
fn queue(conn: &mut PgConnection, sql: &str) -> Option<bool> {
    if conn.is_in_transaction() {
        return None;
    }
    // Any other error has no meaning.
    match conn.begin_with(AssertSqlSafe(sql)).now_or_never() {
        Some(Err(error)) if is_disconnected(&error) => None,
        // The reply to a `BEGIN` came at once. The drop of sqlx's transaction rolls it back.
        Some(Ok(_transaction)) => Some(true),
        // The dropped future queues a rollback inside a transaction only.
        Some(Err(_)) | None => Some(false),
    }
}

/// Queues messages in order. Returns `false` in a transaction and on a closed connection.
pub(super) fn queue_all(conn: &mut PgConnection, messages: &[String]) -> bool {
    let mut rollback_is_queued = false;
    messages.iter().all(|message| {
        // A second rollback would write a warning to the server's log.
        if mem::take(&mut rollback_is_queued) && message == "ROLLBACK" {
            return true;
        }
        let queued = queue(conn, message);
        rollback_is_queued = queued == Some(true);
        queued.is_some()
    })
}

/// Queues the rollback of the transactions above a depth. Returns whether there is one.
pub(super) fn start_rollback_to(conn: &mut PgConnection, depth: u32) -> bool {
    let depth = usize::try_from(depth).unwrap_or(usize::MAX);
    let open = PgTransactionManager::get_transaction_depth(conn);
    for _ in depth..open {
        PgTransactionManager::start_rollback(conn);
    }
    // Sends the rollback. It fails only if the connection is closed.
    let _ = conn.flush().now_or_never();
    open > depth
}

/// Queues the statements that terminate the session.
///
/// In a transaction of the caller they are sent only if no statement is in flight. The transaction
/// is not rolled back: sqlx's [`commit`](::sqlx::Transaction::commit) would send nothing then, and
/// succeed.
pub(super) fn start_terminate(conn: &mut PgConnection, pid: Option<i32>) {
    if conn.is_in_transaction() {
        let end = TerminateStep::RollBackAndEndSession.sql(pid);
        let sent = async {
            // The error of a dropped statement precedes the end of its reply.
            drain(conn).await?;
            send(conn, &end).await
        };
        let _ = sent.now_or_never();
    } else {
        let texts: Vec<String> = TerminateStep::queued(pid, false).collect();
        queue_all(conn, &texts);
    }
}
