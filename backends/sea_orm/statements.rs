//! What is sent over a pinned connection: the protocol's statements and the body's.

use sea_orm::sqlx::postgres::{PgArguments, PgRow};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, Executor as _, Postgres};
use sea_orm::{DbErr, ExecResult, QueryResult};
use sea_query_sqlx::SqlxValues;

use super::error::{exec_error, query_error};
use super::state::{InFlight, PinnedState};
use super::values::{arguments, lock_row};
use crate::session::{Row, Statement};

/// SeaORM's statement as sqlx wants it.
pub(super) fn to_sqlx_query(statement: &sea_orm::Statement) -> Query<'_, Postgres, SqlxValues> {
    let values = statement
        .values
        .clone()
        .unwrap_or_else(|| sea_orm::Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

impl PinnedState {
    /// Runs a statement of the protocol and notes which session ran it.
    pub(super) async fn run_statement(&mut self, statement: &Statement) -> Result<Row, DbErr> {
        let row = self.fetch_row(statement.sql(), arguments(statement.binds()));
        let row = lock_row(&row.await?).map_err(query_error)?;
        if let Some(column) = statement.pid_column() {
            self.pid = row.pid_in(column);
        }
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
