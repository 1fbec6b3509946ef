//! A statement of the protocol as a query of Diesel's.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable};

use crate::session::{Bind, Statement};

/// A statement as Diesel wants it. Kept in its cache of prepared statements under its text, of which there are few.
pub(crate) struct Prepared {
    sql: &'static str,
    binds: Vec<Bind>,
}

impl Prepared {
    pub(crate) fn new(statement: &Statement) -> Self {
        Self {
            sql: statement.sql(),
            binds: statement.binds().collect(),
        }
    }
}

impl QueryFragment<Pg> for Prepared {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // Diesel writes the parameters `$1`, `$2`, … itself, so the text is cut at its own, which are in that order.
        let mut pieces = self.sql.split('$');
        pass.push_sql(pieces.next().unwrap_or_default());
        for (piece, bind) in pieces.zip(&self.binds) {
            match bind {
                Bind::Int4(number) => pass.push_bind_param::<Integer, _>(number)?,
                Bind::Int8(number) => pass.push_bind_param::<BigInt, _>(number)?,
            }
            pass.push_sql(piece.trim_start_matches(|digit: char| digit.is_ascii_digit()));
        }
        Ok(())
    }
}

impl QueryId for Prepared {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Prepared {
    type SqlType = (Nullable<Bool>, Integer);
}
