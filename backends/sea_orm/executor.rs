//! The connections and transactions that run the body's statements.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, RuntimeErr, Statement, StreamTrait, TransactionOptions, TransactionTrait,
};

use super::error::{query_error, transaction_ended_error};
use super::native::{NativeConnection, NativeTransaction, OpenTransactions};
use super::pinned::{SharedConnection, SharedTransaction};
use super::pinned_session::PinnedSession;
use super::transaction_log::TransactionId;
use crate::backends::sqlx::client::decode_row;
use crate::session::Row;

/// Rows of a statement, in the order of their arrival.
pub(super) type Rows<'r> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'r>>;

/// Connection of a body's handle.
#[derive(Debug)]
pub(super) enum ConnectionInner {
    Pinned(PinnedSession),
    Native(NativeConnection),
}

/// Transaction of a body's handle.
#[derive(Debug)]
pub(super) enum TransactionInner {
    Pinned(SharedTransaction),
    Native(NativeTransaction),
}

/// Borrowed connection or transaction that runs a statement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Executor<'t> {
    /// Pinned connection. If a transaction is named, it must still be open.
    Pinned(&'t SharedConnection, Option<TransactionId>),
    /// SeaORM's own connection of a mock or a proxy, with the counter of open transactions.
    Connection(&'t DatabaseConnection, &'t Arc<OpenTransactions>),
    /// SeaORM's own transaction, with the same counter if the body began it.
    Transaction(&'t DatabaseTransaction, Option<&'t Arc<OpenTransactions>>),
    /// SeaORM's own connection after its transactions were terminated.
    Ended,
}

impl ConnectionInner {
    pub(super) fn executor(&self) -> Executor<'_> {
        match self {
            Self::Pinned(session) => Executor::Pinned(&session.connection, None),
            Self::Native(native) if native.closed => Executor::Ended,
            Self::Native(native) => match native.innermost() {
                Some(outer) => Executor::Transaction(outer, Some(&native.open_transactions)),
                None => Executor::Connection(&native.connection, &native.open_transactions),
            },
        }
    }
}

impl TransactionInner {
    pub(super) fn executor(&self) -> Executor<'_> {
        match self {
            Self::Pinned(transaction) => {
                Executor::Pinned(&transaction.connection, Some(transaction.id))
            }
            Self::Native(native) => Executor::Transaction(
                native.transaction.get_ref(),
                native.open_transactions.as_ref(),
            ),
        }
    }

    pub(super) async fn commit(self) -> Result<(), DbErr> {
        match self {
            Self::Pinned(transaction) => transaction.commit().await,
            Self::Native(transaction) => transaction.commit().await,
        }
    }

    pub(super) async fn roll_back(self) -> Result<(), DbErr> {
        match self {
            Self::Pinned(transaction) => transaction.roll_back().await,
            Self::Native(transaction) => transaction.roll_back().await,
        }
    }
}

/// Runs one expression on a pinned connection, and another on SeaORM's connection or transaction.
macro_rules! dispatch {
    (
        $executor:expr,
        $pinned:ident, $transaction:ident => $run:expr,
        $sea:ident => $delegate:expr
    ) => {
        match $executor {
            Executor::Ended => Err(transaction_ended_error()),
            Executor::Pinned($pinned, $transaction) => $run,
            Executor::Connection($sea, _) => $delegate,
            Executor::Transaction($sea, _) => $delegate,
        }
    };
}

impl<'t> Executor<'t> {
    pub(super) fn backend(self) -> DbBackend {
        match self {
            Self::Pinned(connection, _) => connection.backend(),
            Self::Connection(sea, _) => sea.get_database_backend(),
            Self::Transaction(sea, _) => ConnectionTrait::get_database_backend(sea),
            // Only a native connection ends, and its backend is SQLite.
            Self::Ended => DbBackend::Sqlite,
        }
    }

    /// Returns `true` for SeaORM's own connection in a body, and for a transaction begun on it.
    pub(super) fn is_of_native_body(self) -> bool {
        matches!(self, Self::Connection(..) | Self::Transaction(_, Some(_)))
    }

    pub(super) fn is_mock(self) -> bool {
        match self {
            Self::Pinned(..) | Self::Ended => false,
            Self::Connection(sea, _) => sea.is_mock_connection(),
            Self::Transaction(sea, _) => sea.is_mock_connection(),
        }
    }

    pub(super) async fn execute(self, statement: Statement) -> Result<ExecResult, DbErr> {
        dispatch!(self, pinned, id => {
            let mut state = pinned.lock_in(id).await?;
            state.execute(statement).await
        }, sea => sea.execute_raw(statement).await)
    }

    pub(super) async fn execute_unprepared(self, sql: &str) -> Result<ExecResult, DbErr> {
        dispatch!(self, pinned, id => {
            let mut state = pinned.lock_in(id).await?;
            state.execute_unprepared(sql).await
        }, sea => sea.execute_unprepared(sql).await)
    }

    pub(super) async fn query_one(
        self,
        statement: Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        dispatch!(self, pinned, id => {
            let mut state = pinned.lock_in(id).await?;
            state.query_one(statement).await
        }, sea => sea.query_one_raw(statement).await)
    }

    /// Returns the row of a lock statement.
    pub(super) async fn query_row(self, statement: Statement) -> Result<Row, DbErr> {
        let row = self.query_one(statement).await?.ok_or_else(|| {
            DbErr::Query(RuntimeErr::Internal(
                "a lock statement returned no row".to_owned(),
            ))
        })?;
        let row = row.try_as_pg_row().ok_or_else(|| {
            DbErr::Query(RuntimeErr::Internal(
                "a lock statement returned a row that is not PostgreSQL's".to_owned(),
            ))
        })?;
        decode_row(row).map_err(query_error)
    }

    pub(super) async fn query_all(self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        dispatch!(self, pinned, id => {
            let mut state = pinned.lock_in(id).await?;
            state.query_all(statement).await
        }, sea => sea.query_all_raw(statement).await)
    }

    pub(super) async fn begin(
        self,
        options: TransactionOptions,
    ) -> Result<TransactionInner, DbErr> {
        let (transaction, open_transactions) = match self {
            Self::Ended => return Err(transaction_ended_error()),
            Self::Pinned(connection, outer) => {
                let id = connection.lock_in(outer).await?.begin(&options).await?;
                let connection = connection.clone();
                return Ok(TransactionInner::Pinned(SharedTransaction {
                    connection,
                    id,
                }));
            }
            Self::Connection(sea, counter) => {
                (sea.begin_with_options(options).await?, Some(counter))
            }
            Self::Transaction(sea, counter) => (sea.begin_with_options(options).await?, counter),
        };
        Ok(TransactionInner::Native(NativeTransaction::new(
            transaction,
            open_transactions.cloned(),
        )))
    }

    /// Returns the rows of a statement.
    pub(super) async fn stream(self, statement: Statement) -> Result<Rows<'t>, DbErr> {
        dispatch!(
            self,
            pinned, id => Ok(pinned.stream(id, statement).await?.boxed()),
            sea => Ok(sea.stream_raw(statement).await?.boxed())
        )
    }
}
