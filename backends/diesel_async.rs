//! diesel-async: `AsyncPgConnection` with the locks of PostgreSQL, `SyncConnectionWrapper<SqliteConnection>` with the no-op.
//!
//! What the page on [`diesel`](super::diesel) says of transactions and errors holds here too.
//!
//! # Dropped futures
//!
//! diesel-async cannot tell what became of a statement whose future was dropped, so a connection that was dropped in the midst of a
//! statement of ours is ended: two statements that end the session are queued behind it (one of them may be hit by the cancel that
//! shortens a wait), its transaction manager is marked as broken, and pools replace it. Nothing is waited for. The cancel is sent by a
//! task, or by a thread where there is no tokio runtime, or no more. With
//! `sslmode=require` or a server that speaks nothing but TLS there is none, because it goes over a connection of its own, in the clear, and the
//! wait lasts to its limit; so it does if the process ends before the cancel is sent. There, give every
//! [`WaitStrategy::Block`](crate::WaitStrategy::Block) a limit, or poll.
//!
//! On SQLite there is no session to end: what is open is rolled back and the connection is marked as broken. diesel-async itself
//! panics there when a statement in flight is dropped in a runtime of one thread; its wrapper wants a runtime of several.

#[cfg(feature = "diesel-async-postgres")]
mod postgres;
#[cfg(feature = "diesel-async-sqlite")]
mod sqlite;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ::diesel::connection::TransactionManagerStatus;
use ::diesel_async::{AsyncConnection, SimpleAsyncConnection, TransactionManager};

use crate::backends::diesel::{session_error, transaction_state_of};
use crate::session::{SessionError, TransactionState};

/// What diesel-async's transaction manager knows.
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

/// Hands a message to whatever talks to the database and does not wait for the answer: the first poll sends it, behind what runs.
fn queue<C: SimpleAsyncConnection>(conn: &mut C, sql: &str) -> bool {
    let message = pin!(conn.batch_execute(sql));
    let polled = message.poll(&mut Context::from_waker(Waker::noop()));
    !matches!(polled, Poll::Ready(Err(_)))
}
