//! Parameters and rows of the lock statements.

use std::error::Error as StdError;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Error, SimpleQueryRow};

use crate::session::{Bind, Cell, Row, SessionError};

/// Returns a value with its type, which the client then need not ask the server for.
pub(crate) fn typed(bind: &Bind) -> (&(dyn ToSql + Sync), Type) {
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
        Ok(Self(match Cell::from_binary(bytes) {
            Some(number) => number,
            None if *kind == Type::TEXT_ARRAY => Cell::Texts(FromSql::from_sql(kind, bytes)?),
            // postgres-types 0.2.14 panics if the type is no array.
            None if matches!(kind.kind(), Kind::Array(_)) => {
                Cell::Numbers(FromSql::from_sql(kind, bytes)?)
            }
            None => return Err(format!("{} bytes of type {kind}", bytes.len()).into()),
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
    let number = |index, is_hexadecimal| match row.try_get(index) {
        Ok(None) => Ok(Cell::Null),
        Ok(Some(text)) => Cell::from_text(text, is_hexadecimal)
            .ok_or_else(|| SessionError::new(format!("column {index} is no number"))),
        Err(error) => Err(SessionError::new(error)),
    };
    Ok(Row::new([
        number(0, false)?,
        number(1, false)?,
        number(2, true)?,
        Cell::Null,
    ]))
}

/// Returns whether the last column of a row in the text format is true.
pub(crate) fn last_is_true(row: &SimpleQueryRow) -> bool {
    let last = row.len().saturating_sub(1);
    matches!(row.try_get(last), Ok(Some("t")))
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
    fn column_of_another_type_is_an_error() {
        assert_eq!(column(&Type::INT8, &[0; 8]), Some(Cell::Number(0)));
        for bytes in [[].as_slice(), &[0; 3], &[0; 9]] {
            assert_eq!(column(&Type::INT8, bytes), None, "{bytes:?}");
        }
    }
}
