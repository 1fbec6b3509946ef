//! Statements on a pinned connection: those of this crate, with their parameters and rows, and
//! those of the body.
//!
//! # Implementation details
//!
//! sqlx has one Rust type for each PostgreSQL type. Here all parameters are one type, [`Param`],
//! and one function decodes all numbers. That keeps the code of an acquire and a release small. It
//! also covers `timestamptz`, which sqlx supports with one of its date features only.

use sea_orm::sqlx::encode::IsNull;
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::types::Oid;
use sea_orm::sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueFormat};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{
    self, Arguments as _, AssertSqlSafe, Connection as _, Encode, Executor as _, Postgres,
    Row as _, Type, ValueRef as _,
};
use sea_orm::{ConnectionTrait, DbErr, ExecResult, QueryResult};
use sea_query_sqlx::SqlxValues;

use super::error::{exec_error, is_statement_missing, query_error};
use super::state::{ClientConnection, InFlight, PinnedState};
use crate::session::{Bind, Cell, Request, Row, Statement, StatementKind};

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
    ///
    /// Clears sqlx's cache of prepared statements if the session has lost them, by `DISCARD ALL` in
    /// a body or in a hook of the pool.
    pub(super) async fn run_statement(&mut self, statement: &Statement) -> Result<Row, DbErr> {
        let is_release = matches!(statement.kind(), Some(StatementKind::Release { .. }));
        let mut row = self.fetch_row(statement).await;
        // A release that fails may have lost its lock, too, so the caller gets the error.
        if !is_release
            && row.as_ref().is_err_and(is_statement_missing)
            && self.log.lock().open.is_empty()
        {
            self.clear_statement_cache().await?;
            row = self.fetch_row(statement).await;
        }
        // Not held: perhaps because of `DISCARD ALL`.
        if is_release && row.as_ref().is_ok_and(Row::is_false) {
            self.clear_statement_cache().await?;
        }
        row
    }

    async fn clear_statement_cache(&mut self) -> Result<(), DbErr> {
        self.in_flight = InFlight::LockStatement;
        let cleared = self.postgres()?.clear_cached_statements().await;
        self.finish(cleared).map_err(exec_error)
    }

    async fn fetch_row(&mut self, statement: &Statement) -> Result<Row, DbErr> {
        let arguments = arguments(statement.binds()).map_err(query_error)?;
        // Set before the first poll: a drop at any later point may leave the statement on the
        // server. A report changes no lock, so its reply is only read to the end.
        self.in_flight = match statement.request() {
            Request::Report { .. } => InFlight::UserStatement,
            _ => InFlight::LockStatement,
        };
        let query = sqlx::query_with(statement.sql(), arguments);
        let query = query.persistent(statement.is_cacheable());
        let fetched = self.postgres()?.fetch_optional(query).await;
        let row = self.finish(fetched).and_then(|row| {
            let row = row.ok_or(sqlx::Error::RowNotFound)?;
            decode_row(&row)
        });
        let row = row.map_err(query_error)?;
        if let Some(column) = statement.pid_column() {
            self.pid = row.pid_in(column);
            self.log.lock().pid = self.pid;
        }
        Ok(row)
    }

    /// Sends a script of this crate.
    pub(super) async fn run_script(&mut self, sql: &str) -> Result<(), DbErr> {
        self.in_flight = InFlight::LockStatement;
        let sent = self.send(sql).await;
        self.in_flight = InFlight::Nothing;
        sent
    }

    pub(super) async fn execute(
        &mut self,
        statement: sea_orm::Statement,
    ) -> Result<ExecResult, DbErr> {
        if let ClientConnection::Sqlite(sqlite) = self.connection()? {
            return sqlite.execute_raw(statement).await;
        }
        let query = to_sqlx_query(&statement).map_err(exec_error)?;
        self.in_flight = InFlight::UserStatement;
        let executed = query.execute(self.postgres()?).await;
        self.finish(executed).map(Into::into).map_err(exec_error)
    }

    pub(super) async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        if let ClientConnection::Sqlite(sqlite) = self.connection()? {
            return sqlite.execute_unprepared(sql).await;
        }
        self.in_flight = InFlight::UserStatement;
        let executed = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(self.postgres()?)
            .await;
        self.finish(executed).map(Into::into).map_err(exec_error)
    }

    pub(super) async fn query_one(
        &mut self,
        statement: sea_orm::Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        if let ClientConnection::Sqlite(sqlite) = self.connection()? {
            return sqlite.query_one_raw(statement).await;
        }
        let query = to_sqlx_query(&statement).map_err(query_error)?;
        self.in_flight = InFlight::UserStatement;
        let row = query.fetch_optional(self.postgres()?).await;
        self.finish(row)
            .map(|row| row.map(Into::into))
            .map_err(query_error)
    }

    pub(super) async fn query_all(
        &mut self,
        statement: sea_orm::Statement,
    ) -> Result<Vec<QueryResult>, DbErr> {
        if let ClientConnection::Sqlite(sqlite) = self.connection()? {
            return sqlite.query_all_raw(statement).await;
        }
        let query = to_sqlx_query(&statement).map_err(query_error)?;
        self.in_flight = InFlight::UserStatement;
        let rows = query.fetch_all(self.postgres()?).await;
        let rows: Vec<PgRow> = self.finish(rows).map_err(query_error)?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}

// Object identifiers in `pg_type`, which are the same on every server.
const INT8: Oid = Oid(20);
const INT4: Oid = Oid(23);
const TEXT: Oid = Oid(25);
const TEXT_ARRAY: Oid = Oid(1009);
const INT8_ARRAY: Oid = Oid(1016);
const TIMESTAMPTZ: Oid = Oid(1184);

/// Bound parameter.
struct Param(Bind);

impl Type<Postgres> for Param {
    fn type_info() -> PgTypeInfo {
        // A default, which `produces` replaces by the type of each value.
        PgTypeInfo::with_oid(INT8)
    }
}

impl Encode<'_, Postgres> for Param {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match &self.0 {
            Bind::Int4(number) => buffer.extend_from_slice(&number.to_be_bytes()),
            Bind::Int8(number) | Bind::Timestamptz(number) => {
                buffer.extend_from_slice(&number.to_be_bytes());
            }
            Bind::Int8Array(numbers) => return numbers.encode_by_ref(buffer),
            Bind::Text(text) => buffer.extend_from_slice(text.as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(match self.0 {
            Bind::Int4(_) => INT4,
            Bind::Int8(_) => INT8,
            Bind::Timestamptz(_) => TIMESTAMPTZ,
            Bind::Int8Array(_) => INT8_ARRAY,
            Bind::Text(_) => TEXT,
        }))
    }
}

/// Encodes the parameters of a lock statement.
fn arguments(binds: impl Iterator<Item = Bind>) -> sqlx::Result<PgArguments> {
    // At most four parameters, usually of at most eight bytes, each after its length.
    let mut arguments = PgArguments::default();
    arguments.reserve(4, 4 * (4 + 8));
    for bind in binds {
        arguments.add(Param(bind)).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Decodes the row of a lock statement.
pub(super) fn decode_row(row: &PgRow) -> sqlx::Result<Row> {
    let mut columns = [const { Cell::Null }; Row::COLUMNS];
    for (index, column) in columns.iter_mut().enumerate().take(row.len()) {
        *column = decode_cell(row, index)?;
    }
    Ok(Row::new(columns))
}

fn decode_cell(row: &PgRow, column: usize) -> sqlx::Result<Cell> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let bytes = value
        .as_bytes()
        .map_err(|error| decode_error(column, error))?;
    let number = match value.format() {
        PgValueFormat::Text => parse_number(value.type_info().oid(), bytes),
        // A number has eight bytes at most. An array begins with a header of twelve.
        PgValueFormat::Binary if bytes.len() > 8 => {
            return if value.type_info().oid() == Some(TEXT_ARRAY) {
                row.try_get(column).map(Cell::Texts)
            } else {
                row.try_get(column).map(Cell::Numbers)
            };
        }
        PgValueFormat::Binary => decode_number(bytes),
    };
    number
        .map(Cell::Number)
        .map_err(|error| decode_error(column, error))
}

/// Parses a number of a simple query's reply. A `text` is the hexadecimal form of an `int8`.
fn parse_number(oid: Option<Oid>, bytes: &[u8]) -> Result<i64, BoxDynError> {
    match (bytes, std::str::from_utf8(bytes)?) {
        (b"t", _) => Ok(1),
        (b"f", _) => Ok(0),
        (_, text) if oid == Some(TEXT) => Ok(i64::from_be_bytes(
            u64::from_str_radix(text, 16)?.to_be_bytes(),
        )),
        (_, text) => Ok(text.parse()?),
    }
}

/// Decodes a number in network byte order, whatever its type.
fn decode_number(bytes: &[u8]) -> Result<i64, BoxDynError> {
    match 64_usize.checked_sub(8 * bytes.len()) {
        Some(unused_bits @ 0..64) => {
            let number = bytes
                .iter()
                .fold(0, |number, byte| number << 8 | i64::from(*byte));
            // The two shifts extend the sign.
            Ok(number << unused_bits >> unused_bits)
        }
        _ => Err(format!("not a number of {} bytes", bytes.len()).into()),
    }
}

#[cold]
fn decode_error(column: usize, source: BoxDynError) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Option<i64> {
        decode_number(bytes).ok()
    }

    #[test]
    fn numbers_of_every_width_are_decoded() {
        assert_eq!((number(&[0]), number(&[1])), (Some(0), Some(1)));
        for pid in [0, 1, 0x0102_0304, i32::MAX, -1, i32::MIN] {
            assert_eq!(number(&pid.to_be_bytes()), Some(pid.into()));
        }
        for time in [0, 1, 0x0102_0304_0506_0708, i64::MAX, -1, i64::MIN] {
            assert_eq!(number(&time.to_be_bytes()), Some(time));
        }
    }

    #[test]
    fn numbers_of_a_simple_query_are_parsed() {
        for (oid, text, number) in [
            (16, "t", 1),
            (16, "f", 0),
            (23, "12345", 12345),
            (20, "-9223372036854775808", i64::MIN),
            (25, "0000000000000010", 16),
            (25, "fffffffffffffffe", -2),
        ] {
            let parsed = parse_number(Some(Oid(oid)), text.as_bytes());
            assert_eq!(parsed.ok(), Some(number), "{text}");
        }
    }

    #[test]
    fn non_numeric_column_is_an_error() {
        assert_eq!(number(&[]), None);
        assert_eq!(number(&[0; 9]), None);
        for text in [b"".as_slice(), b"x", b"\xff", b"9223372036854775808"] {
            assert!(parse_number(Some(INT8), text).is_err(), "{text:?}");
        }
    }

    /// The server reads the bytes of a parameter as the type that is sent with it.
    #[test]
    fn parameters_are_sent_with_their_type() {
        for (bind, oid, bytes) in [
            (Bind::Int4(-2), 23, (-2_i32).to_be_bytes().as_slice()),
            (Bind::Int8(-3), 20, (-3_i64).to_be_bytes().as_slice()),
            (
                Bind::Timestamptz(i64::MIN),
                1184,
                i64::MIN.to_be_bytes().as_slice(),
            ),
            (Bind::Text("seq".into()), 25, b"seq".as_slice()),
        ] {
            let param = Param(bind);
            let mut buffer = PgArgumentBuffer::default();
            let null = param.encode_by_ref(&mut buffer).unwrap();
            assert!(matches!(null, IsNull::No));
            assert_eq!(buffer.as_slice(), bytes);
            let produced = param.produces().and_then(|kind| kind.oid());
            assert_eq!(produced, Some(Oid(oid)));
        }
    }
}
