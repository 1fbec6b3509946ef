//! State of a pinned connection for its current user: the client's connection and its statement
//! in flight.

use std::sync::Arc;

use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, PgConnection, PgPool, Postgres};
use sea_orm::{ConnectionTrait, DatabaseExecutor, DatabaseTransaction, DbErr, ExecResult};

use super::error::{closed_error, exec_error, no_lock_error};
use super::native::NativeConnection;
use super::transaction_log::TransactionLog;
use crate::backends::RuntimeBound;
use crate::backends::sqlx::error::is_disconnected;
use crate::backends::sqlx::{statements, terminate};
use crate::key::RawLockKey;

/// Connection of a pool, for one user at a time.
#[derive(Debug)]
pub(super) struct PinnedState {
    /// `None` after [`discard`](Self::discard).
    pub(super) connection: Option<ClientConnection>,
    pub(super) in_flight: InFlight,
    pub(super) log: Arc<TransactionLog>,
}

/// Connection of the client library.
#[derive(Debug)]
pub(super) enum ClientConnection {
    /// Connection of PostgreSQL, and its pool.
    Postgres(RuntimeBound<PoolConnection<Postgres>>, PgPool),
    /// Connection of a SQLite pool. Its statements run to their end and in their order, also if
    /// their futures are dropped.
    Sqlite(RuntimeBound<DatabaseTransaction>),
    /// Connection of a mock or a proxy, whose transactions are SeaORM's own.
    Native(NativeConnection),
}

/// Statement without a reply yet, which a dropped future leaves on the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum InFlight {
    Nothing,
    /// Statement of the body, or a rollback: it runs to its end, and its reply is discarded.
    Reply,
    /// Begin of a transaction at this level. It is rolled back: its caller has no handle of it.
    Begin(usize),
    /// Commit of a transaction at this level. It is rolled back if the commit has failed.
    Commit(usize),
    /// Statement of this crate, which may wait on the server for this key.
    LockStatement(Option<RawLockKey>),
}

impl PinnedState {
    /// Returns the client's connection, unless it is closed.
    pub(super) fn connection(&mut self) -> Result<&mut ClientConnection, DbErr> {
        let closed = self.log.lock().closed;
        let connection = self.connection.as_mut().filter(|_| !closed);
        connection.ok_or_else(closed_error)
    }

    /// Returns the connection for a lock statement, unless it is closed.
    pub(super) fn postgres(&mut self) -> Result<&mut PgConnection, DbErr> {
        match self.connection()? {
            ClientConnection::Postgres(connection, _) => Ok(connection),
            ClientConnection::Sqlite(_) | ClientConnection::Native(_) => Err(no_lock_error()),
        }
    }

    /// Returns SeaORM's connection or transaction that runs the statements, unless the connection
    /// is one of PostgreSQL.
    pub(super) fn executor(&mut self) -> Result<Option<DatabaseExecutor<'_>>, DbErr> {
        Ok(match self.connection()? {
            ClientConnection::Postgres(..) => None,
            ClientConnection::Sqlite(connection) => Some(connection.get_ref().into()),
            ClientConnection::Native(native) => Some(native.executor()),
        })
    }

    /// Returns whether the connection is none of PostgreSQL.
    pub(super) const fn is_no_op(&self) -> bool {
        !matches!(self.connection, Some(ClientConnection::Postgres(..)))
    }

    /// Sends text as one simple-query message.
    pub(super) async fn send(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        if let Some(executor) = self.executor()? {
            return executor.execute_unprepared(sql).await;
        }
        let sent = statements::send(self.postgres()?, sql).await;
        self.discard_if_disconnected(&sent);
        sent.map(Into::into).map_err(exec_error)
    }

    /// Records that the statement in flight has its reply.
    pub(super) fn finish<T>(&mut self, reply: sqlx::Result<T>) -> sqlx::Result<T> {
        self.in_flight = InFlight::Nothing;
        self.discard_if_disconnected(&reply);
        reply
    }

    /// Discards the connection if its session has ended, or if sqlx cannot read the reply.
    ///
    /// So a guard knows of the end after any failed statement. The rest of an unreadable reply may
    /// never end. After `COPY … FROM STDIN` the server waits for data from the client, and sqlx
    /// 0.9.0 for the end of the reply.
    fn discard_if_disconnected<T>(&mut self, reply: &sqlx::Result<T>) {
        if let Err(error) = reply
            && is_disconnected(error)
        {
            // A session that has ended waits no longer.
            if !matches!(error, sqlx::Error::Protocol(_)) {
                self.in_flight = InFlight::Nothing;
            }
            self.discard();
        }
    }

    /// Reads all outstanding replies.
    ///
    /// sqlx sends a statement only after that. So a later statement that is dropped after its first
    /// poll was certainly sent. sqlx 0.9.0 also leaves the rest of a reply with an error unread.
    /// Without an outstanding reply, this needs no I/O.
    pub(super) async fn drain_replies(&mut self) -> Result<(), DbErr> {
        let ClientConnection::Postgres(connection, _) = self.connection()? else {
            return Ok(());
        };
        statements::drain(connection).await.map_err(exec_error)
    }

    /// Closes the connection for good, and terminates the session if it may be waiting for a lock.
    pub(super) fn discard(&mut self) {
        let pid = {
            let mut log = self.log.lock();
            log.closed = true;
            log.pid
        };
        // Without PostgreSQL, no session ends: a database in memory would end with its connection.
        let Some(ClientConnection::Postgres(connection, pool)) = self.connection.take() else {
            return;
        };
        if let InFlight::LockStatement(Some(awaited)) = self.in_flight
            && let Some(pid) = pid
        {
            let runtime = connection.runtime().cloned();
            terminate::spawn(pool, pid, awaited, runtime);
        }
        // Drops the socket. The drop of a `PoolConnection` would return it to its pool, and `close`
        // is a future, which needs a running runtime.
        connection.drop_with(|connection| drop(connection.detach()));
    }
}

/// Returns the connection to its pool, or discards it.
impl Drop for PinnedState {
    fn drop(&mut self) {
        // A statement in flight may leave a lock or a transaction behind, and its reply may never
        // end.
        let replied = matches!(self.in_flight, InFlight::Nothing);
        if !(replied && self.log.lock().is_reusable()) {
            self.discard();
        }
    }
}
