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
use super::pinned::{Flight, Pinned, TransactionId, over};
use super::values::lock_row;
use super::wire::bound;
use super::without_locks::BodysTransactions;
use crate::session::Row;

/// The rows of a statement, as they come.
pub(super) type Rows<'r> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'r>>;

/// What a handle stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'t> {
    /// A pinned connection, and the transaction on it that must still be open.
    Pinned(&'t Pinned, Option<TransactionId>),
    /// Without locks: SeaORM's own connection,
    Connection(&'t DatabaseConnection, &'t Arc<BodysTransactions>),
    /// and SeaORM's own transaction. Both with those who count the transactions in them.
    Transaction(&'t DatabaseTransaction, Option<&'t Arc<BodysTransactions>>),
    /// A transaction that is over.
    Over,
}

/// Does the same with SeaORM's connection and its transaction.
macro_rules! either {
    ($target:expr, $pinned:ident, $transaction:ident => $run:expr, $sea:ident => $delegate:expr) => {
        match $target {
            Target::Over => Err(over()),
            Target::Pinned($pinned, $transaction) => $run,
            Target::Connection($sea, _) => $delegate,
            Target::Transaction($sea, _) => $delegate,
        }
    };
}

impl<'t> Target<'t> {
    pub(super) fn backend(self) -> DbBackend {
        match self {
            Self::Pinned(..) => DbBackend::Postgres,
            Self::Connection(sea, _) => sea.get_database_backend(),
            Self::Transaction(sea, _) => ConnectionTrait::get_database_backend(sea),
            Self::Over => DbBackend::Sqlite,
        }
    }

    pub(super) fn is_mock(self) -> bool {
        match self {
            Self::Pinned(..) | Self::Over => false,
            Self::Connection(sea, _) => sea.is_mock_connection(),
            Self::Transaction(sea, _) => sea.is_mock_connection(),
        }
    }

    pub(super) async fn execute(self, statement: Statement) -> Result<ExecResult, DbErr> {
        either!(self, pinned, id => {
            let mut wire = pinned.lock_in(id).await?;
            wire.execute(&statement).await
        }, sea => sea.execute_raw(statement).await)
    }

    pub(super) async fn execute_unprepared(self, sql: &str) -> Result<ExecResult, DbErr> {
        either!(self, pinned, id => {
            let mut wire = pinned.lock_in(id).await?;
            wire.execute_unprepared(sql).await
        }, sea => sea.execute_unprepared(sql).await)
    }

    pub(super) async fn query_one(
        self,
        statement: Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        either!(self, pinned, id => {
            let mut wire = pinned.lock_in(id).await?;
            wire.query_one(&statement).await
        }, sea => sea.query_one_raw(statement).await)
    }

    /// The row of a statement of the protocol.
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
        lock_row(row).map_err(query_error)
    }

    pub(super) async fn query_all(self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        either!(self, pinned, id => {
            let mut wire = pinned.lock_in(id).await?;
            wire.query_all(&statement).await
        }, sea => sea.query_all_raw(statement).await)
    }

    pub(super) async fn begin(
        self,
        options: TransactionOptions,
    ) -> Result<PinnedTransaction, DbErr> {
        let (begun, counted) = match self {
            Self::Over => return Err(over()),
            Self::Pinned(pinned, id) => {
                let mut wire = pinned.lock_in(id).await?;
                let id = wire.begin(&options).await?;
                return Ok(PinnedTransaction::on_postgres(pinned.clone(), id));
            }
            Self::Connection(sea, counter) => {
                (sea.begin_with_options(options).await?, Some(counter))
            }
            Self::Transaction(sea, counter) => (sea.begin_with_options(options).await?, counter),
        };
        Ok(PinnedTransaction::without_locks(begun, counted.cloned()))
    }

    pub(super) async fn stream(self, statement: Statement) -> Result<Rows<'t>, DbErr> {
        either!(self, pinned, id => {
            let mut wire = pinned.lock_in(id).await?;
            Ok(async_stream::try_stream! {
                wire.flight = Flight::Body;
                {
                    let mut rows = bound(&statement).fetch(wire.connection()?);
                    while let Some(row) = rows.try_next().await.map_err(query_error)? {
                        yield row.into();
                    }
                }
                wire.flight = Flight::Landed;
            }.boxed())
        }, sea => Ok(sea.stream_raw(statement).await?.boxed()))
    }
}
