//! One lock in one statement, as a query of Diesel's.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Bool, Nullable};

use super::prepared::Text;
use crate::session::SingleOp;

/// A single step as Diesel wants it. `SHAPE`, the step's code, decides its text, as that of a [`Prepared`](super::prepared::Prepared) does. Made by
/// [`with_step`].
pub(crate) struct PreparedStep<const SHAPE: u8>(Text);

impl<const SHAPE: u8> PreparedStep<SHAPE> {
    /// `step` must be of this shape.
    pub(crate) fn new(step: &SingleOp) -> Self {
        Self(Text::new(step.sql(), step.binds()))
    }
}

/// Evaluates an expression with `$prepared` of the step's own type.
macro_rules! with_step {
    ($step:expr, $prepared:ident => $run:expr) => {
        with_step!(@shapes $step, $prepared => $run, 0 1 2 3 4 5 6; 7)
    };
    (@shapes $step:expr, $prepared:ident => $run:expr, $($shape:literal)*; $last:literal) => {
        match $crate::backends::postgres::step_code(&$step.step()) {
            $($shape => {
                let $prepared = $crate::backends::diesel::single::PreparedStep::<$shape>::new($step);
                $run
            })*
            _ => {
                let $prepared = $crate::backends::diesel::single::PreparedStep::<$last>::new($step);
                $run
            }
        }
    };
}
pub(crate) use with_step;

impl<const SHAPE: u8> QueryFragment<Pg> for PreparedStep<SHAPE> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk(&mut pass)
    }
}

impl<const SHAPE: u8> QueryId for PreparedStep<SHAPE> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const SHAPE: u8> Query for PreparedStep<SHAPE> {
    type SqlType = Nullable<Bool>;
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::backends::postgres::step_code;
    use crate::key::LockKey;
    use crate::options::LockMode;
    use crate::session::{BatchMode, LockBatch, LockOp, LockOpKind, TokenSource};

    /// Two texts of one shape would be one prepared statement.
    #[test]
    fn every_shape_is_one_text() {
        let mut texts = HashMap::new();
        for kind in [
            LockOpKind::Acquire { with_token: false },
            LockOpKind::Release,
        ] {
            for key in [LockKey::from(1), LockKey::from((1, 2))] {
                for mode in [LockMode::Exclusive, LockMode::Shared] {
                    let step = LockOp::new(kind, key.raw(), mode);
                    let tokens = TokenSource::TransactionId;
                    let round = LockBatch::new(BatchMode::Execute, 1, vec![step], tokens);
                    let single = round.single().unwrap();
                    texts.insert(step_code(&step), single.sql());
                }
            }
        }
        let mut shapes: Vec<_> = texts.keys().copied().collect();
        shapes.sort_unstable();
        assert_eq!(shapes, (0..8).collect::<Vec<_>>());
        let different: std::collections::HashSet<_> = texts.values().collect();
        assert_eq!(different.len(), 8);
    }
}
