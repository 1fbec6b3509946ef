//! A statement of the protocol as a query of Diesel.
//!
//! # Implementation details
//!
//! Diesel caches a prepared statement by the type of its query if that has a static `QueryId`. So
//! each [number of a text](Statement::id) has a type of its own, and no call builds or
//! hashes a text. The reply is [`Untyped`], so one row type serves all statements, and columns are
//! read by their index.

use std::sync::OnceLock;

use diesel::QueryResult;
use diesel::deserialize::{self, FromSql, QueryableByName};
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::row::{Field, NamedRow, Row as DieselRow};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Untyped};

use crate::session::{Bind, Cell, Row, Statement};

/// A statement whose id is `ID`. Made by [`with_prepared`].
pub(crate) struct Prepared<const ID: u8> {
    /// The text, cut at its parameters.
    pieces: &'static [&'static str],
    is_cacheable: bool,
    binds: Vec<Bind>,
}

impl<const ID: u8> Prepared<ID> {
    /// `statement` must have this id.
    pub(crate) fn new(statement: &Statement) -> Self {
        // An id is less than `COUNT`, so the fallback is never used.
        let pieces = PIECES.get(usize::from(ID));
        let pieces = pieces.map(|pieces| pieces.get_or_init(|| cut(statement.sql())));
        Self {
            pieces: pieces.map(Vec::as_slice).unwrap_or_default(),
            is_cacheable: statement.is_cacheable(),
            binds: statement.binds().collect(),
        }
    }
}

/// The pieces of each text, by its number. They serve all calls, because Diesel walks through a
/// statement several times a call.
static PIECES: [OnceLock<Vec<&'static str>>; Statement::COUNT as usize] =
    [const { OnceLock::new() }; Statement::COUNT as usize];

/// Cuts a text at its parameters. Diesel writes `$1`, `$2`, … itself, and they are in order.
fn cut(sql: &'static str) -> Vec<&'static str> {
    sql.split('$')
        .map(|piece| piece.trim_start_matches(|digit: char| digit.is_ascii_digit()))
        .collect()
}

/// Evaluates an expression with `$prepared` of the type for the statement's id.
///
/// The id is known at run time only, so the macro makes one arm for each id. The assertion fails to
/// compile if a statement is added without an arm.
macro_rules! with_prepared {
    ($statement:expr, $prepared:ident => $run:expr) => {
        with_prepared!(@ids $statement, $prepared => $run,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33
            34 35 36 37; 38)
    };
    (@ids $statement:expr, $prepared:ident => $run:expr, $($id:literal)*; $last:literal) => {{
        const _: () = assert!($last + 1 == $crate::session::Statement::COUNT);
        match $statement.id() {
            $($id => with_prepared!(@arm $statement, $prepared => $run, $id),)*
            // An id is less than `COUNT`, so this is the last one.
            _ => with_prepared!(@arm $statement, $prepared => $run, $last),
        }
    }};
    (@arm $statement:expr, $prepared:ident => $run:expr, $id:literal) => {{
        let $prepared = $crate::backends::diesel::prepared::Prepared::<$id>::new($statement);
        $run
    }};
}
pub(crate) use with_prepared;

impl<const ID: u8> QueryId for Prepared<ID> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const ID: u8> Query for Prepared<ID> {
    type SqlType = Untyped;
}

impl<const ID: u8> QueryFragment<Pg> for Prepared<ID> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !self.is_cacheable {
            pass.unsafe_to_cache_prepared();
        }
        let mut pieces = self.pieces.iter();
        pass.push_sql(pieces.next().copied().unwrap_or_default());
        for (piece, bind) in pieces.zip(&self.binds) {
            // Diesel borrows each value for `'b`, so the arms pass references into `self`.
            match bind {
                Bind::Int4(number) => pass.push_bind_param::<Integer, _>(number)?,
                Bind::Int8(number) => pass.push_bind_param::<BigInt, _>(number)?,
                Bind::Timestamptz(_) => pass.push_bind_param::<Timestamptz, _>(bind)?,
                Bind::Int8Array(numbers) => pass.push_bind_param::<Array<BigInt>, _>(numbers)?,
                Bind::Text(text) => pass.push_bind_param::<Text, str>(text)?,
            }
            pass.push_sql(piece);
        }
        Ok(())
    }
}

/// Diesel has no type for the bare microseconds that can be borrowed.
impl ToSql<Timestamptz, Pg> for Bind {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        match self {
            Self::Timestamptz(micros) => ToSql::<BigInt, Pg>::to_sql(micros, out),
            _ => Err("the value is no timestamptz".into()),
        }
    }
}

impl QueryableByName<Pg> for Row {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        let mut columns = [const { Cell::Null }; Self::COLUMNS];
        // By index, so that the texts need no column names. Missing columns stay null.
        for (index, column) in columns.iter_mut().enumerate() {
            let field = DieselRow::get(row, index);
            if let Some(value) = field.as_ref().and_then(Field::value) {
                *column = cell(value)?;
            }
        }
        Ok(Self::new(columns))
    }
}

/// The object identifier of `text[]` in `pg_type`, which is the same on every server.
const TEXT_ARRAY: u32 = 1009;

fn cell(value: PgValue<'_>) -> deserialize::Result<Cell> {
    Ok(match Cell::from_binary(value.as_bytes()) {
        Some(number) => number,
        None if value.get_oid().get() == TEXT_ARRAY => {
            Cell::Texts(FromSql::<Array<Nullable<Text>>, Pg>::from_sql(value)?)
        }
        None => Cell::Numbers(FromSql::<Array<Nullable<BigInt>>, Pg>::from_sql(value)?),
    })
}
