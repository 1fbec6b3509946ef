//! What is sent over a pinned connection: the protocol's statements and the body's.

use sea_orm::sqlx::Arguments as _;
use sea_orm::sqlx::postgres::{PgArguments, PgRow};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, Executor as _, Postgres, Row as _};
use sea_orm::{DbErr, ExecResult, QueryResult};
use sea_query_sqlx::SqlxValues;

use super::error::{exec_error, query_error};
use super::state::{InFlight, PinnedState};
use super::values::{answer, arguments, lock_row};
use crate::session::{BatchReply, LockBatch, LockReply, SingleOp, Statement};

/// SeaORM's statement as sqlx wants it.
pub(super) fn to_sqlx_query(statement: &sea_orm::Statement) -> Query<'_, Postgres, SqlxValues> {
    let values = statement
        .values
        .clone()
        .unwrap_or_else(|| sea_orm::Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

/// The values of a statement of the protocol about many locks.
fn batch_arguments(batch: &LockBatch) -> sqlx::Result<PgArguments> {
    let mut arguments = PgArguments::default();
    let sequence = batch.sequence();
    let added = arguments
        .add(batch.pid())
        .and_then(|()| arguments.add(batch.codes()))
        .and_then(|()| arguments.add(batch.numbers()))
        .and_then(|()| sequence.map_or(Ok(()), |sequence| arguments.add(sequence)));
    added.map(|()| arguments).map_err(sqlx::Error::Encode)
}

/// The row of a statement of the protocol about many locks.
fn batch_reply(row: &PgRow) -> sqlx::Result<BatchReply> {
    Ok(BatchReply {
        answers: row.try_get(0)?,
        token: row.try_get(1)?,
        pid: row.try_get(2)?,
    })
}

impl PinnedState {
    /// A statement of the protocol.
    pub(super) async fn run_statement(
        &mut self,
        statement: &Statement,
    ) -> Result<LockReply, DbErr> {
        let row = self.fetch_row(statement.sql(), arguments(statement.binds()));
        let row = lock_row(&row.await?).map_err(query_error)?;
        self.pid = Some(row.pid);
        Ok(row)
    }

    /// A statement of the protocol about one of many locks.
    pub(super) async fn run_single(&mut self, op: &SingleOp) -> Result<Option<bool>, DbErr> {
        let row = self.fetch_row(op.sql(), arguments(op.binds()));
        answer(&row.await?).map_err(query_error)
    }

    /// A statement of the protocol about many locks.
    pub(super) async fn run_batch(&mut self, batch: &LockBatch) -> Result<BatchReply, DbErr> {
        let row = self.fetch_row(batch.sql(), batch_arguments(batch));
        let row = batch_reply(&row.await?).map_err(query_error)?;
        self.pid = Some(row.pid);
        Ok(row)
    }

    /// The row of a statement of the protocol. Not generic: there is one of it for all of them.
    async fn fetch_row(
        &mut self,
        sql: &'static str,
        arguments: sqlx::Result<PgArguments>,
    ) -> Result<PgRow, DbErr> {
        let query = (sql, Some(arguments.map_err(query_error)?));
        self.in_flight = InFlight::LockStatement;
        let answered = self.connection()?.fetch_optional(query).await;
        let row = self.finish(answered).map_err(query_error)?;
        row.ok_or_else(|| query_error(sqlx::Error::RowNotFound))
    }

    /// A message of the protocol.
    pub(super) async fn run_script(&mut self, sql: &str) -> Result<(), DbErr> {
        self.in_flight = InFlight::LockStatement;
        let sent = self.send(sql).await;
        self.in_flight = InFlight::Nothing;
        sent
    }

    pub(super) async fn execute(
        &mut self,
        statement: &sea_orm::Statement,
    ) -> Result<ExecResult, DbErr> {
        self.in_flight = InFlight::UserStatement;
        let executed = to_sqlx_query(statement).execute(self.connection()?).await;
        self.finish(executed).map(Into::into).map_err(exec_error)
    }

    pub(super) async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        self.in_flight = InFlight::UserStatement;
        let executed = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(self.connection()?)
            .await;
        self.finish(executed).map(Into::into).map_err(exec_error)
    }

    pub(super) async fn query_one(
        &mut self,
        statement: &sea_orm::Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        self.in_flight = InFlight::UserStatement;
        let row = to_sqlx_query(statement)
            .fetch_optional(self.connection()?)
            .await;
        self.finish(row)
            .map(|row| row.map(Into::into))
            .map_err(query_error)
    }

    pub(super) async fn query_all(
        &mut self,
        statement: &sea_orm::Statement,
    ) -> Result<Vec<QueryResult>, DbErr> {
        self.in_flight = InFlight::UserStatement;
        let rows = to_sqlx_query(statement).fetch_all(self.connection()?).await;
        let rows: Vec<PgRow> = self.finish(rows).map_err(query_error)?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}
