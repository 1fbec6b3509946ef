//! A statement of the protocol as a query of Diesel's.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::pg::data_types::PgTimestamp;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Timestamptz};

use crate::key::RawLockKey;
use crate::options::LockMode;
use crate::session::{Bind, LockReply, Statement, StatementKind};

/// A statement as Diesel wants it. `SHAPE` decides its text, so Diesel may keep it in its cache of prepared statements under this
/// type, and need not write and hash the text to find it there. Made by [`with_prepared`].
pub(crate) struct Prepared<const SHAPE: u8>(Text);

/// A text and its values.
pub(super) struct Text {
    sql: &'static str,
    binds: Vec<Value>,
}

/// A value in the form that Diesel binds.
enum Value {
    Int4(i32),
    Int8(i64),
    Timestamptz(PgTimestamp),
}

impl From<Bind> for Value {
    fn from(bind: Bind) -> Self {
        match bind {
            Bind::Int4(number) => Self::Int4(number),
            Bind::Int8(number) => Self::Int8(number),
            Bind::Timestamptz(time) => Self::Timestamptz(PgTimestamp(time)),
        }
    }
}

impl<const SHAPE: u8> Prepared<SHAPE> {
    /// `statement` must be of this shape.
    pub(crate) fn new(statement: &Statement) -> Self {
        Self(Text::new(statement.sql(), statement.binds()))
    }
}

impl Text {
    pub(super) fn new(sql: &'static str, binds: impl Iterator<Item = Bind>) -> Self {
        let binds = binds.map(Value::from).collect();
        Self { sql, binds }
    }

    pub(super) fn walk<'b>(&'b self, pass: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        write(pass, self.sql, &self.binds, |pass, bind| match bind {
            Value::Int4(number) => pass.push_bind_param::<Integer, _>(number),
            Value::Int8(number) => pass.push_bind_param::<BigInt, _>(number),
            Value::Timestamptz(time) => pass.push_bind_param::<Timestamptz, _>(time),
        })
    }
}

/// A number for all that decides a statement's text: kind, key space and mode.
pub(crate) fn shape(statement: &Statement) -> u8 {
    let kind = match statement.kind() {
        StatementKind::TryAcquire => 0,
        StatementKind::TryAcquireXact => 1,
        StatementKind::Release { .. } => 2,
        StatementKind::ReleaseIfHeld => 3,
        StatementKind::IsHeld => 4,
    };
    let pair = u8::from(matches!(statement.key(), RawLockKey::Pair(..)));
    let shared = u8::from(statement.mode() == LockMode::Shared);
    4 * kind + 2 * pair + shared
}

/// Evaluates an expression with `$prepared` of the statement's own type.
macro_rules! with_prepared {
    ($statement:expr, $prepared:ident => $run:expr) => {
        with_prepared!(@shapes $statement, $prepared => $run,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; 19)
    };
    (@shapes $statement:expr, $prepared:ident => $run:expr, $($shape:literal)*; $last:literal) => {
        match $crate::backends::diesel::prepared::shape($statement) {
            $($shape => {
                let $prepared = $crate::backends::diesel::prepared::Prepared::<$shape>::new($statement);
                $run
            })*
            _ => {
                let $prepared = $crate::backends::diesel::prepared::Prepared::<$last>::new($statement);
                $run
            }
        }
    };
}
pub(crate) use with_prepared;

impl<const SHAPE: u8> QueryFragment<Pg> for Prepared<SHAPE> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk(&mut pass)
    }
}

/// Writes a text with its parameters. Diesel writes `$1`, `$2`, … itself, so the text is cut at its own, which are in that order.
pub(super) fn write<'b, B: 'b>(
    pass: &mut AstPass<'_, 'b, Pg>,
    sql: &str,
    binds: impl IntoIterator<Item = &'b B>,
    push: impl Fn(&mut AstPass<'_, 'b, Pg>, &'b B) -> QueryResult<()>,
) -> QueryResult<()> {
    let mut pieces = sql.split('$');
    pass.push_sql(pieces.next().unwrap_or_default());
    for (piece, bind) in pieces.zip(binds) {
        push(pass, bind)?;
        pass.push_sql(piece.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    }
    Ok(())
}

impl<const SHAPE: u8> QueryId for Prepared<SHAPE> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const SHAPE: u8> Query for Prepared<SHAPE> {
    type SqlType = (Nullable<Bool>, Integer, Timestamptz);
}

/// The columns as Diesel reads them.
pub(crate) type Columns = (Option<bool>, i32, PgTimestamp);

/// The row of a statement of the protocol.
pub(crate) fn row((answer, pid, PgTimestamp(transaction_began)): Columns) -> LockReply {
    LockReply {
        answer,
        pid,
        transaction_began,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::key::LockKey;

    /// Two texts of one shape would be one prepared statement.
    #[test]
    fn every_shape_is_one_text() {
        let kinds = [
            StatementKind::TryAcquire,
            StatementKind::TryAcquireXact,
            StatementKind::Release {
                pid: 1,
                transaction_began: None,
            },
            StatementKind::ReleaseIfHeld,
            StatementKind::IsHeld,
        ];
        let mut texts = HashMap::new();
        for kind in kinds {
            for key in [LockKey::from(1), LockKey::from((1, 2))] {
                for mode in [LockMode::Exclusive, LockMode::Shared] {
                    let statement = Statement::new(kind, &key, mode);
                    texts.insert(shape(&statement), statement.sql());
                }
            }
        }
        let mut shapes: Vec<_> = texts.keys().copied().collect();
        shapes.sort_unstable();
        assert_eq!(shapes, (0..20).collect::<Vec<_>>());
        let different: std::collections::HashSet<_> = texts.values().collect();
        assert_eq!(different.len(), 20);
    }
}
