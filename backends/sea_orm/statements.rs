//! Statements on a pinned connection: those of this crate, and those of the body.

use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use sea_orm::sqlx::postgres::PgRow;
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, Postgres};
use sea_orm::{ConnectionTrait, DatabaseExecutor, DbErr, ExecResult, QueryResult, StreamTrait};
use sea_query_sqlx::SqlxValues;
use tokio::sync::OwnedMutexGuard;

use super::error::{exec_error, query_error, session_error};
use super::state::{InFlight, PinnedState};
use crate::backends::sqlx::statements::{fetch_text, run_statement};
use crate::session::{QueuedRelease, Row, Script, Statement};

pub(super) type RowResult = Result<QueryResult, DbErr>;

/// Converts a statement of SeaORM into a query of sqlx.
///
/// Fails if it has too many values. sqlx would report that as an error of the protocol, after which
/// the connection is discarded.
pub(super) fn to_sqlx_query(
    statement: &sea_orm::Statement,
) -> sqlx::Result<Query<'_, Postgres, SqlxValues>> {
    let values = statement
        .values
        .clone()
        .unwrap_or_else(|| sea_orm::Values(Vec::new()));
    if u16::try_from(values.0.len()).is_err() {
        return Err(sqlx::Error::InvalidArgument(format!(
            "a statement has at most {} values, this one has {}",
            u16::MAX,
            values.0.len()
        )));
    }
    let sql = AssertSqlSafe(statement.sql.as_str());
    Ok(sqlx::query_with(sql, SqlxValues(values)))
}

impl PinnedState {
    /// Runs a lock statement and records the process id of its session.
    pub(super) async fn run_statement(&mut self, statement: &Statement) -> Result<Row, DbErr> {
        let in_transaction = !self.log.lock().open.is_empty();
        // Set before the first poll: a drop at any later point may leave the statement on the
        // server. Neither a report nor an identification leaves a lock, so the reply is only read
        // to the end.
        self.in_flight = match statement {
            Statement::Report { .. } | Statement::Identity { .. } => InFlight::Reply,
            _ => InFlight::LockStatement(None),
        };
        let row = run_statement(self.postgres()?, statement, in_transaction).await;
        self.finish_statement(statement, row)
    }

    /// Records that a lock statement has its reply, and the process id of the session.
    pub(super) fn finish_statement(
        &mut self,
        statement: &Statement,
        reply: sqlx::Result<Row>,
    ) -> Result<Row, DbErr> {
        let row = self.finish(reply).map_err(query_error)?;
        if let Some(column) = statement.pid_column() {
            self.log.lock().pid = row.pid_in(column);
        }
        Ok(row)
    }

    /// Sends a script of this crate.
    pub(super) async fn run_script(&mut self, script: &Script) -> Result<(), DbErr> {
        self.in_flight = InFlight::LockStatement(script.awaited_key());
        let sent = self.send(&script.plain_sql()).await;
        self.in_flight = InFlight::Nothing;
        sent.map(drop)
    }

    /// Sends the release of a dropped guard, and passes the reply to it.
    pub(super) async fn send_release(
        &mut self,
        message: &str,
        release: QueuedRelease,
    ) -> Result<(), DbErr> {
        let reply = match self.postgres() {
            Ok(conn) => fetch_text(conn, message).await.map_err(exec_error),
            Err(error) => Err(error),
        };
        match &reply {
            Ok(reply) => match Script::release_failure(reply.as_deref()) {
                Some(kind) => release.failed(kind),
                None => release.replied(Ok(())),
            },
            Err(error) => release.replied(Err(session_error(error.clone()))),
        }
        reply.map(drop)
    }

    pub(super) async fn execute(
        &mut self,
        statement: sea_orm::Statement,
    ) -> Result<ExecResult, DbErr> {
        if let Some(executor) = self.executor()? {
            return executor.execute_raw(statement).await;
        }
        let query = to_sqlx_query(&statement).map_err(exec_error)?;
        self.in_flight = InFlight::Reply;
        let executed = query.execute(self.postgres()?).await;
        self.finish(executed).map(Into::into).map_err(exec_error)
    }

    pub(super) async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        self.in_flight = InFlight::Reply;
        let sent = self.send(sql).await;
        self.in_flight = InFlight::Nothing;
        sent
    }

    pub(super) async fn query_one(
        &mut self,
        statement: sea_orm::Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        if let Some(executor) = self.executor()? {
            return executor.query_one_raw(statement).await;
        }
        let query = to_sqlx_query(&statement).map_err(query_error)?;
        self.in_flight = InFlight::Reply;
        let row = query.fetch_optional(self.postgres()?).await;
        self.finish(row)
            .map(|row| row.map(Into::into))
            .map_err(query_error)
    }

    pub(super) async fn query_all(
        &mut self,
        statement: sea_orm::Statement,
    ) -> Result<Vec<QueryResult>, DbErr> {
        if let Some(executor) = self.executor()? {
            return executor.query_all_raw(statement).await;
        }
        let query = to_sqlx_query(&statement).map_err(query_error)?;
        self.in_flight = InFlight::Reply;
        let rows = query.fetch_all(self.postgres()?).await;
        let rows: Vec<PgRow> = self.finish(rows).map_err(query_error)?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}

/// Runs a statement on a locked connection, which is freed after the last row.
pub(super) fn rows(
    mut state: OwnedMutexGuard<PinnedState>,
    statement: sea_orm::Statement,
) -> BoxStream<'static, RowResult> {
    async_stream::try_stream! {
        if let Some(executor) = state.executor()? {
            let mut rows = match &executor {
                DatabaseExecutor::Connection(native) => native.stream_raw(statement).await?.boxed(),
                DatabaseExecutor::Transaction(native) => native.stream_raw(statement).await?.boxed(),
                DatabaseExecutor::OwnedTransaction(native) => {
                    native.stream_raw(statement).await?.boxed()
                }
            };
            while let Some(row) = rows.try_next().await? {
                yield row;
            }
            return;
        }
        let query = to_sqlx_query(&statement).map_err(query_error)?;
        // If the stream is dropped before its end, this stays set, and the next user of the
        // connection drains the rest of the rows.
        state.in_flight = InFlight::Reply;
        let read = {
            let mut rows = query.fetch(state.postgres()?);
            loop {
                match rows.try_next().await {
                    Ok(Some(row)) => yield row.into(),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        state.finish(read).map_err(query_error)?;
    }
    .boxed()
}
