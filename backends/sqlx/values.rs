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
    let invalid = |source| Error::ColumnDecode {
        index: column.to_string(),
        source,
    };
    if value.format() == PgValueFormat::Text {
        // A `text` is the hexadecimal form of an `int8`.
        let is_hexadecimal = value.type_info().oid() == Some(TEXT);
        let number = Cell::from_text(value.as_str().map_err(invalid)?, is_hexadecimal);
        return number.ok_or_else(|| invalid("it is no number".into()));
    }
    match Cell::from_binary(value.as_bytes().map_err(invalid)?) {
        Some(number) => Ok(number),
        None if value.type_info().oid() == Some(TEXT_ARRAY) => row.try_get(column).map(Cell::Texts),
        None => row.try_get(column).map(Cell::Numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
