//! Parameters and rows of the lock statements.

use std::error::Error as StdError;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Error, SimpleQueryRow};

use crate::session::{Bind, Cell, Row, SessionError};

/// Value to bind, with its type.
pub(crate) type TypedValue<'v> = (&'v (dyn ToSql + Sync), Type);

/// Returns a value with its type, which the client then need not ask the server for.
pub(crate) fn typed(bind: &Bind) -> TypedValue<'_> {
    let kind = match bind {
        Bind::Int4(_) => Type::INT4,
        Bind::Int8(_) => Type::INT8,
        Bind::Timestamptz(_) => Type::TIMESTAMPTZ,
        Bind::Int8Array(_) => Type::INT8_ARRAY,
        Bind::Text(_) => Type::TEXT,
    };
    (bind, kind)
}

/// Writes the value in the binary format.
impl ToSql for Bind {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Self::Int4(number) => number.to_sql(kind, out),
            Self::Int8(number) | Self::Timestamptz(number) => number.to_sql(kind, out),
            Self::Int8Array(numbers) => numbers.to_sql(kind, out),
            Self::Text(text) => text.as_ref().to_sql(kind, out),
        }
    }

    // `typed` has named the type of the value, so it is always the right one.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Reads the row of a lock statement in the binary format.
pub(crate) fn binary_row(row: &tokio_postgres::Row) -> Result<Row, Error> {
    let mut columns = [const { Cell::Null }; Row::COLUMNS];
    for (index, column) in columns.iter_mut().enumerate().take(row.len()) {
        *column = row.try_get::<_, Column>(index)?.0;
    }
    Ok(Row::new(columns))
}

/// Column of any type that a lock statement returns.
struct Column(Cell);

impl<'a> FromSql<'a> for Column {
    fn from_sql(kind: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(match *bytes {
            [byte] => Cell::Number(byte.into()),
            [a, b, c, d] => Cell::Number(i32::from_be_bytes([a, b, c, d]).into()),
            [a, b, c, d, e, f, g, h] => Cell::Number(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
            // An array has a header of 12 bytes, so it is never taken for a number.
            _ if *kind == Type::TEXT_ARRAY => Cell::Texts(FromSql::from_sql(kind, bytes)?),
            // postgres-types 0.2.14 panics if the type is no array.
            _ if matches!(kind.kind(), Kind::Array(_)) => {
                Cell::Numbers(FromSql::from_sql(kind, bytes)?)
            }
            _ => return Err(format!("{} bytes of type {kind}", bytes.len()).into()),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(Cell::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Reads the row of an attempt in the text format: the answer, the process id, and the start of the
/// transaction in hexadecimal digits. See [`simple_sql`](crate::session::Statement::simple_sql).
pub(crate) fn text_row(row: &SimpleQueryRow) -> Result<Row, SessionError> {
    let number = |index, radix| match row.try_get(index) {
        Ok(None) => Ok(Cell::Null),
        Ok(Some(text)) => number_in_text(text, radix)
            .map(Cell::Number)
            .ok_or_else(|| SessionError::new(format!("column {index} is no number"))),
        Err(error) => Err(SessionError::new(error)),
    };
    Ok(Row::new([
        number(0, 10)?,
        number(1, 10)?,
        // The start of the transaction, which the text requests as hexadecimal digits.
        number(2, 16)?,
        Cell::Null,
    ]))
}

/// Returns whether the last column of a row in the text format is true.
pub(crate) fn last_is_true(row: &SimpleQueryRow) -> bool {
    let last = row.len().saturating_sub(1);
    matches!(row.try_get(last), Ok(Some("t")))
}

fn number_in_text(text: &str, radix: u32) -> Option<i64> {
    match text {
        "t" => Some(1),
        "f" => Some(0),
        // The digits are those of an `int8` in the binary format, without a sign.
        _ if radix == 16 => u64::from_str_radix(text, radix)
            .ok()
            .map(|bits| i64::from_be_bytes(bits.to_be_bytes())),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: &Type, bytes: &[u8]) -> Option<Cell> {
        Column::from_sql(kind, bytes).ok().map(|column| column.0)
    }

    #[test]
    fn values_are_written_in_the_binary_format() {
        for (bind, kind, bytes) in [
            (Bind::Int4(-2), Type::INT4, (-2_i32).to_be_bytes().to_vec()),
            (Bind::Int8(-2), Type::INT8, (-2_i64).to_be_bytes().to_vec()),
            (
                Bind::Timestamptz(i64::MIN),
                Type::TIMESTAMPTZ,
                i64::MIN.to_be_bytes().to_vec(),
            ),
            (Bind::Text("a".into()), Type::TEXT, b"a".to_vec()),
        ] {
            let (value, typed_as) = typed(&bind);
            assert_eq!(typed_as, kind);
            let mut out = BytesMut::new();
            value.to_sql_checked(&kind, &mut out).unwrap();
            assert_eq!(out, bytes, "{bind:?}");
        }
    }

    #[test]
    fn numbers_of_every_width_are_decoded() {
        for (kind, bytes, number) in [
            (Type::BOOL, [1].as_slice(), 1),
            (Type::INT4, (-2_i32).to_be_bytes().as_slice(), -2),
            (Type::INT8, i64::MIN.to_be_bytes().as_slice(), i64::MIN),
            (Type::TIMESTAMPTZ, 5_i64.to_be_bytes().as_slice(), 5),
        ] {
            assert_eq!(column(&kind, bytes), Some(Cell::Number(number)), "{kind}");
        }
        for bytes in [[].as_slice(), &[0; 3], &[0; 9]] {
            assert_eq!(column(&Type::INT8, bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn numbers_of_a_simple_query_are_parsed() {
        for (text, radix, number) in [
            ("t", 10, Some(1)),
            ("f", 10, Some(0)),
            ("12345", 10, Some(12345)),
            ("-9223372036854775808", 10, Some(i64::MIN)),
            ("0000000000000010", 16, Some(16)),
            ("fffffffffffffffe", 16, Some(-2)),
            ("", 10, None),
            ("x", 16, None),
        ] {
            assert_eq!(number_in_text(text, radix), number, "{text}");
        }
    }
}
