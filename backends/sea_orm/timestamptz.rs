//! A `timestamptz` as the number that it is on the wire: sqlx has none without one of its features for dates.

use sea_orm::sqlx::encode::IsNull;
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::types::Oid;
use sea_orm::sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sea_orm::sqlx::{Decode, Encode, Postgres, Type};

/// Microseconds since the beginning of 2000 in UTC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamptz(pub(super) i64);

/// Its number in `pg_type`, which is the same on every server.
const OID: Oid = Oid(1184);

impl Type<Postgres> for Timestamptz {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(OID)
    }
}

impl Encode<'_, Postgres> for Timestamptz {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode(self.0, buffer)
    }
}

impl Decode<'_, Postgres> for Timestamptz {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        <i64 as Decode<Postgres>>::decode(value).map(Self)
    }
}
