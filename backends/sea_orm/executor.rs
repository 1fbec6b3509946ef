//! Where a statement of the body's goes.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, RuntimeErr, Statement, StreamTrait, TransactionOptions, TransactionTrait,
};

use super::error::query_error;
use super::handle::PinnedTransaction;
use super::native::OpenTransactions;
use super::pinned::{InFlight, PostgresConnection, TransactionId, transaction_ended_error};
use super::statements::to_sqlx_query;
use super::values::lock_row;
use crate::session::LockReply;

/// The rows of a statement, as they come.
pub(super) type Rows<'r> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'r>>;

/// What a handle stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Executor<'t> {
    /// A pinned connection, and the transaction on it that must still be open.
    Postgres(&'t PostgresConnection, Option<TransactionId>),
    /// Without locks: SeaORM's own connection,
    Connection(&'t DatabaseConnection, &'t Arc<OpenTransactions>),
    /// and SeaORM's own transaction. Both with those who count the transactions in them.
    Transaction(&'t DatabaseTransaction, Option<&'t Arc<OpenTransactions>>),
    /// A transaction that is over.
    Ended,
}

/// Does the same with SeaORM's connection and its transaction.
macro_rules! dispatch {
    ($executor:expr, $pinned:ident, $transaction:ident => $run:expr, $sea:ident => $delegate:expr) => {
        match $executor {
            Executor::Ended => Err(transaction_ended_error()),
            Executor::Postgres($pinned, $transaction) => $run,
            Executor::Connection($sea, _) => $delegate,
            Executor::Transaction($sea, _) => $delegate,
        }
    };
}

impl<'t> Executor<'t> {
    pub(super) fn backend(self) -> DbBackend {
        match self {
            Self::Postgres(..) => DbBackend::Postgres,
            Self::Connection(sea, _) => sea.get_database_backend(),
            Self::Transaction(sea, _) => ConnectionTrait::get_database_backend(sea),
            Self::Ended => DbBackend::Sqlite,
        }
    }

    pub(super) fn is_mock(self) -> bool {
        match self {
            Self::Postgres(..) | Self::Ended => false,
            Self::Connection(sea, _) => sea.is_mock_connection(),
            Self::Transaction(sea, _) => sea.is_mock_connection(),
        }
    }

    pub(super) async fn execute(self, statement: Statement) -> Result<ExecResult, DbErr> {
        dispatch!(self, pinned, id => {
            let mut state = pinned.lock_in(id).await?;
            state.execute(&statement).await
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
            state.query_one(&statement).await
        }, sea => sea.query_one_raw(statement).await)
    }

    /// The row of a statement of the protocol.
    pub(super) async fn query_row(self, statement: Statement) -> Result<LockReply, DbErr> {
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
        lock_row(row).map_err(query_error)
    }

    pub(super) async fn query_all(self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        dispatch!(self, pinned, id => {
            let mut state = pinned.lock_in(id).await?;
            state.query_all(&statement).await
        }, sea => sea.query_all_raw(statement).await)
    }

    pub(super) async fn begin(
        self,
        options: TransactionOptions,
    ) -> Result<PinnedTransaction, DbErr> {
        let (begun, open_transactions) = match self {
            Self::Ended => return Err(transaction_ended_error()),
            Self::Postgres(pinned, id) => {
                let mut state = pinned.lock_in(id).await?;
                let id = state.begin(&options).await?;
                return Ok(PinnedTransaction::postgres(pinned.clone(), id));
            }
            Self::Connection(sea, counter) => {
                (sea.begin_with_options(options).await?, Some(counter))
            }
            Self::Transaction(sea, counter) => (sea.begin_with_options(options).await?, counter),
        };
        Ok(PinnedTransaction::native(begun, open_transactions.cloned()))
    }

    pub(super) async fn stream(self, statement: Statement) -> Result<Rows<'t>, DbErr> {
        dispatch!(self, pinned, id => {
            let mut state = pinned.lock_in(id).await?;
            Ok(async_stream::try_stream! {
                state.in_flight = InFlight::UserStatement;
                {
                    let mut rows = to_sqlx_query(&statement).fetch(state.connection()?);
                    while let Some(row) = rows.try_next().await.map_err(query_error)? {
                        yield row.into();
                    }
                }
                state.in_flight = InFlight::Nothing;
            }.boxed())
        }, sea => Ok(sea.stream_raw(statement).await?.boxed()))
    }
}
