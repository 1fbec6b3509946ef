//! Parameters and rows of lock statements.
//!
//! # Implementation details
//!
//! sqlx has one Rust type for each PostgreSQL type. Here all parameters are one type, [`Param`],
//! and one function decodes all numbers. That keeps the code of an acquire and a release small. It
//! also covers `timestamptz`, which sqlx supports with one of its date features only.

use ::sqlx::encode::IsNull;
use ::sqlx::error::BoxDynError;
use ::sqlx::postgres::types::Oid;
use ::sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueFormat};
use ::sqlx::{Arguments as _, Encode, Error, Postgres, Row as _, Type, ValueRef as _};

use crate::session::{Bind, Cell, Row};

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
pub(super) fn arguments(binds: impl Iterator<Item = Bind>) -> ::sqlx::Result<PgArguments> {
    // At most four parameters, usually of at most eight bytes, each after its length.
    let mut arguments = PgArguments::default();
    arguments.reserve(4, 4 * (4 + 8));
    for bind in binds {
        arguments.add(Param(bind)).map_err(Error::Encode)?;
    }
    Ok(arguments)
}

/// Decodes the row of a lock statement.
pub(crate) fn decode_row(row: &PgRow) -> ::sqlx::Result<Row> {
    let mut columns = [const { Cell::Null }; Row::COLUMNS];
    for (index, column) in columns.iter_mut().enumerate().take(row.len()) {
        *column = decode_cell(row, index)?;
    }
    Ok(Row::new(columns))
}

fn decode_cell(row: &PgRow, column: usize) -> ::sqlx::Result<Cell> {
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
fn decode_error(column: usize, source: BoxDynError) -> Error {
    Error::ColumnDecode {
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
