//! What is sent over a pinned connection: the protocol's statements and the body's.

use sea_orm::sqlx::Arguments as _;
use sea_orm::sqlx::postgres::{PgArguments, PgRow};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, Postgres, Row as _};
use sea_orm::{DbErr, ExecResult, QueryResult};
use sea_query_sqlx::SqlxValues;

use super::error::{exec_error, query_error};
use super::pinned::{Flight, TransactionId, Wire, over};
use super::timestamptz::Timestamptz;
use crate::session::{Bind, Round, RoundRow, Row, SingleStep, Statement};

/// SeaORM's statement as sqlx wants it.
pub(super) fn bound(statement: &sea_orm::Statement) -> Query<'_, Postgres, SqlxValues> {
    let values = statement
        .values
        .clone()
        .unwrap_or_else(|| sea_orm::Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

/// A statement of the protocol as sqlx wants it.
fn prepared(
    sql: &'static str,
    binds: impl Iterator<Item = Bind>,
) -> Query<'static, Postgres, PgArguments> {
    // Four values at most, of eight bytes at most, each after its length.
    let mut arguments = PgArguments::default();
    arguments.reserve(4, 4 * (4 + 8));
    binds.fold(sqlx::query_with(sql, arguments), |query, bind| match bind {
        Bind::Int4(number) => query.bind(number),
        Bind::Int8(number) => query.bind(number),
        Bind::Timestamptz(time) => query.bind(Timestamptz(time)),
    })
}

/// The row of a statement of the protocol.
pub(super) fn lock_row(row: &PgRow) -> sqlx::Result<Row> {
    let Timestamptz(transaction_began) = row.try_get(2)?;
    Ok(Row {
        answer: row.try_get(0)?,
        pid: row.try_get(1)?,
        transaction_began,
    })
}

impl Wire {
    /// Fails if the transaction is over.
    pub(super) fn check(&self, transaction: Option<TransactionId>) -> Result<(), DbErr> {
        match transaction {
            Some(id) if self.level_of(id).is_none() => Err(over()),
            Some(_) | None => Ok(()),
        }
    }

    /// A statement of the protocol.
    pub(super) async fn lock_query(&mut self, statement: &Statement) -> Result<Row, DbErr> {
        let query = prepared(statement.sql(), statement.binds());
        let row = self.ask(query, |row| lock_row(&row)).await?;
        self.pid = Some(row.pid);
        Ok(row)
    }

    /// A statement of the protocol about one of many locks.
    pub(super) async fn lock_single_step(
        &mut self,
        step: &SingleStep,
    ) -> Result<Option<bool>, DbErr> {
        let query = prepared(step.sql(), step.binds());
        self.ask(query, |row| row.try_get(0)).await
    }

    /// A statement of the protocol about many locks.
    pub(super) async fn lock_round(&mut self, round: &Round) -> Result<RoundRow, DbErr> {
        let mut query = sqlx::query(round.sql())
            .bind(round.pid())
            .bind(round.codes())
            .bind(round.numbers());
        if let Some(sequence) = round.sequence() {
            query = query.bind(sequence);
        }
        let row = self.ask(query, |row| {
            Ok(RoundRow {
                answers: row.try_get(0)?,
                token: row.try_get(1)?,
                pid: row.try_get(2)?,
            })
        });
        let row = row.await?;
        self.pid = Some(row.pid);
        Ok(row)
    }

    async fn ask<T>(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
        read: impl FnOnce(PgRow) -> sqlx::Result<T>,
    ) -> Result<T, DbErr> {
        self.flight = Flight::Protocol;
        let answered = query.fetch_one(self.connection()?).await;
        self.landed(answered).and_then(read).map_err(query_error)
    }

    /// A message of the protocol.
    pub(super) async fn lock_batch(&mut self, sql: &str) -> Result<(), DbErr> {
        self.flight = Flight::Protocol;
        let sent = self.send(sql).await;
        self.flight = Flight::Landed;
        sent
    }

    pub(super) async fn execute(
        &mut self,
        statement: &sea_orm::Statement,
    ) -> Result<ExecResult, DbErr> {
        self.flight = Flight::Body;
        let executed = bound(statement).execute(self.connection()?).await;
        self.landed(executed).map(Into::into).map_err(exec_error)
    }

    pub(super) async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        self.flight = Flight::Body;
        let executed = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(self.connection()?)
            .await;
        self.landed(executed).map(Into::into).map_err(exec_error)
    }

    pub(super) async fn query_one(
        &mut self,
        statement: &sea_orm::Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        self.flight = Flight::Body;
        let row = bound(statement).fetch_optional(self.connection()?).await;
        self.landed(row)
            .map(|row| row.map(Into::into))
            .map_err(query_error)
    }

    pub(super) async fn query_all(
        &mut self,
        statement: &sea_orm::Statement,
    ) -> Result<Vec<QueryResult>, DbErr> {
        self.flight = Flight::Body;
        let rows = bound(statement).fetch_all(self.connection()?).await;
        let rows: Vec<PgRow> = self.landed(rows).map_err(query_error)?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}
