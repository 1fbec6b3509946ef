//! The numbers of the protocol's statements, as sqlx sends and reads them.
//!
//! All of them go through one type each way, not through one for each of PostgreSQL's, so that a
//! cycle runs through less code. And sqlx has no `timestamptz` without one of its features for
//! dates.

use sea_orm::sqlx::encode::IsNull;
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::types::Oid;
use sea_orm::sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueFormat};
use sea_orm::sqlx::{self, Arguments as _, Encode, Postgres, Row as _, Type, ValueRef as _};

use crate::session::{Bind, Cell, Row};

// Their numbers in `pg_type`, which are the same on every server.
const INT8: Oid = Oid(20);
const INT4: Oid = Oid(23);
const TEXT: Oid = Oid(25);
const INT8_ARRAY: Oid = Oid(1016);
const TIMESTAMPTZ: Oid = Oid(1184);

/// A value to send.
struct Param(Bind);

impl Type<Postgres> for Param {
    fn type_info() -> PgTypeInfo {
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

/// The values of a statement.
pub(super) fn arguments(binds: impl Iterator<Item = Bind>) -> sqlx::Result<PgArguments> {
    // At most four values, usually of at most eight bytes, each after its length.
    let mut arguments = PgArguments::default();
    arguments.reserve(4, 4 * (4 + 8));
    for bind in binds {
        arguments.add(Param(bind)).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Reads the row of a statement.
pub(super) fn lock_row(row: &PgRow) -> sqlx::Result<Row> {
    let mut columns = [const { Cell::Null }; Row::COLUMNS];
    for (index, column) in columns.iter_mut().enumerate().take(row.len()) {
        *column = cell(row, index)?;
    }
    Ok(Row::new(columns))
}

/// Reads a column. Numbers are in network byte order, whatever their type.
fn cell(row: &PgRow, column: usize) -> sqlx::Result<Cell> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let bytes = value
        .as_bytes()
        .map_err(|error| decode_error(column, error))?;
    // An array has a header of 12 bytes.
    if bytes.len() > 8 {
        return row.try_get(column).map(Cell::Numbers);
    }
    decode_number(value.format(), bytes)
        .map(Cell::Number)
        .map_err(|error| decode_error(column, error))
}

fn decode_number(format: PgValueFormat, bytes: &[u8]) -> Result<i64, BoxDynError> {
    // How much of 64 bits it leaves.
    let unused_bits = 64_usize.checked_sub(8 * bytes.len());
    match (format, unused_bits) {
        (PgValueFormat::Binary, Some(unused_bits @ 0..64)) => {
            let number = bytes
                .iter()
                .fold(0, |number, byte| number << 8 | i64::from(*byte));
            // There and back again with its sign.
            Ok(number << unused_bits >> unused_bits)
        }
        _ => Err(format!("no number: {format:?} format, length {}", bytes.len()).into()),
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
        decode_number(PgValueFormat::Binary, bytes).ok()
    }

    #[test]
    fn numbers_are_read_as_wide_as_they_are() {
        assert_eq!((number(&[0]), number(&[1])), (Some(0), Some(1)));
        for pid in [0, 1, 0x0102_0304, i32::MAX, -1, i32::MIN] {
            assert_eq!(number(&pid.to_be_bytes()), Some(pid.into()));
        }
        for time in [0, 1, 0x0102_0304_0506_0708, i64::MAX, -1, i64::MIN] {
            assert_eq!(number(&time.to_be_bytes()), Some(time));
        }
    }

    #[test]
    fn non_numeric_column_is_an_error() {
        assert_eq!(number(&[]), None);
        assert_eq!(number(&[0; 9]), None);
        let text = decode_number(PgValueFormat::Text, b"t")
            .unwrap_err()
            .to_string();
        assert_eq!(text, "no number: Text format, length 1");
    }

    /// The server is told the type with each value, and takes what it is sent for that.
    #[test]
    fn values_are_sent_as_their_type() {
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
