//! diesel-async: `AsyncPgConnection`, which has advisory locks, and
//! `SyncConnectionWrapper<SqliteConnection>`, which has none.
//!
//! Transactions and errors work as for [`diesel`](super::diesel).
//!
//! # Dropped futures
//!
//! diesel-async does not track a statement whose future was dropped. So if the future of a lock
//! statement is dropped in flight, the crate terminates the session without waiting:
//!
//! * It queues the statements that terminate the session, more than once. A cancel request may hit
//!   one.
//! * It marks the transaction manager as broken, so that a pool discards the connection.
//! * It cancels a wait for a lock: from a task in a multi-thread runtime, else from a thread.
//!
//! A cancel request uses a connection of its own, by default without encryption. PostgreSQL accepts
//! it also if it accepts sessions with TLS only. With `sslmode=require` the client sends no request
//! without a TLS connector: see
#![cfg_attr(
    feature = "diesel-async-postgres",
    doc = "[`set_cancel_tls`]. A proxy that accepts TLS only needs one, too."
)]
#![cfg_attr(
    not(feature = "diesel-async-postgres"),
    doc = "`set_cancel_tls`. A proxy that accepts TLS only needs one, too."
)]
//!
//! A wait that is not cancelled ends within a second after its connection is closed, because the
//! server checks the connection: PostgreSQL 14 or later on Linux, 15 or later on macOS and BSD. An
//! interval that is set for such checks replaces the second, see
//! [`WaitStrategy::Block`](crate::WaitStrategy::Block). On other servers the wait lasts to its
//! limit.
//!
//! In the methods of a pool, the connection is closed at once. A connection that the application
//! has checked out of deadpool itself is closed at its next checkout.
//!
//! SQLite has no session to terminate. The crate rolls back the open transaction and marks the
//! connection as broken. `SyncConnectionWrapper` needs a multi-thread runtime: it panics if the
//! future of a statement is dropped in a current-thread runtime (seen with diesel-async 0.9.2).

#[cfg(feature = "diesel-async-postgres")]
mod postgres;
#[cfg(feature = "diesel-async-sqlite")]
mod sqlite;

#[cfg(feature = "diesel-async-postgres")]
pub use crate::backends::tokio_postgres::set_cancel_tls;

use ::diesel::connection::TransactionManagerStatus;
use ::diesel_async::{AsyncConnection, SimpleAsyncConnection, TransactionManager};
use futures_util::FutureExt;

use crate::backends::diesel::{session_error, transaction_state_of};
use crate::session::{SessionError, TransactionState};

/// Returns the transaction manager's view of the transaction.
fn transaction_state<C: AsyncConnection>(conn: &mut C) -> TransactionState {
    let depth = manager_status(conn).transaction_depth();
    transaction_state_of(
        depth,
        C::TransactionManager::is_broken_transaction_manager(conn),
    )
}

fn manager_status<C: AsyncConnection>(conn: &mut C) -> &mut TransactionManagerStatus {
    C::TransactionManager::transaction_manager_status_mut(conn)
}

async fn begin<C: AsyncConnection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::begin_transaction(conn)
        .await
        .map_err(session_error)
}

async fn commit<C: AsyncConnection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::commit_transaction(conn)
        .await
        .map_err(session_error)
}

async fn rollback<C: AsyncConnection>(conn: &mut C) -> Result<(), SessionError> {
    C::TransactionManager::rollback_transaction(conn)
        .await
        .map_err(session_error)
}

/// Sends a message behind the statement in flight, without waiting for the reply. Returns `false`
/// if that fails at once.
fn send_detached<C: SimpleAsyncConnection>(conn: &mut C, sql: &str) -> bool {
    // The first poll hands the message to the task that talks to the server.
    let sent = conn.batch_execute(sql).now_or_never();
    !matches!(sent, Some(Err(_)))
}
