//! Many locks in one statement, as a query of Diesel's.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text};

use super::prepared::write;
use crate::session::{BatchMode, BatchReply, LockBatch, TokenSource};

/// A round as Diesel wants it. `SHAPE` decides its text, as that of a [`Prepared`](super::prepared::Prepared) does. Made by
/// [`with_round`].
pub(crate) struct PreparedRound<const SHAPE: u8> {
    sql: &'static str,
    binds: Vec<BatchBind>,
}

enum BatchBind {
    Pid(i32),
    Numbers(Vec<i64>),
    Sequence(String),
}

/// The three columns, as Diesel reads them.
pub(crate) type Columns = (Option<Vec<Option<i64>>>, Option<i64>, i32);

impl<const SHAPE: u8> PreparedRound<SHAPE> {
    /// `round` must be of this shape.
    pub(crate) fn new(round: &LockBatch) -> Self {
        let mut binds = vec![
            BatchBind::Pid(round.pid()),
            BatchBind::Numbers(round.codes()),
            BatchBind::Numbers(round.numbers()),
        ];
        let sequence = round.sequence();
        binds.extend(sequence.map(|name| BatchBind::Sequence(name.to_owned())));
        Self {
            sql: round.sql(),
            binds,
        }
    }
}

/// A number for all that decides a round's text.
pub(crate) fn shape(round: &LockBatch) -> u8 {
    match (round.mode(), round.tokens()) {
        (BatchMode::Execute, TokenSource::TransactionId) => 0,
        (BatchMode::Execute, TokenSource::Sequence(_)) => 1,
        (BatchMode::Compensate, _) => 2,
    }
}

/// Evaluates an expression with `$prepared` of the round's own type.
macro_rules! with_round {
    ($round:expr, $prepared:ident => $run:expr) => {
        with_round!(@shapes $round, $prepared => $run, 0 1; 2)
    };
    (@shapes $round:expr, $prepared:ident => $run:expr, $($shape:literal)*; $last:literal) => {
        match $crate::backends::diesel::rounds::shape($round) {
            $($shape => {
                let $prepared = $crate::backends::diesel::rounds::PreparedRound::<$shape>::new($round);
                $run
            })*
            _ => {
                let $prepared = $crate::backends::diesel::rounds::PreparedRound::<$last>::new($round);
                $run
            }
        }
    };
}
pub(crate) use with_round;

pub(crate) fn round_row((answers, token, pid): Columns) -> BatchReply {
    BatchReply {
        answers,
        token,
        pid,
    }
}

impl<const SHAPE: u8> QueryFragment<Pg> for PreparedRound<SHAPE> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        write(&mut pass, self.sql, &self.binds, |pass, bind| match bind {
            BatchBind::Pid(pid) => pass.push_bind_param::<Integer, _>(pid),
            BatchBind::Numbers(numbers) => pass.push_bind_param::<Array<BigInt>, _>(numbers),
            BatchBind::Sequence(name) => pass.push_bind_param::<Text, _>(name),
        })
    }
}

impl<const SHAPE: u8> QueryId for PreparedRound<SHAPE> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const SHAPE: u8> Query for PreparedRound<SHAPE> {
    type SqlType = (Nullable<Array<Nullable<BigInt>>>, Nullable<BigInt>, Integer);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Two texts of one shape would be one prepared statement.
    #[test]
    fn every_shape_is_one_text() {
        let mut seen = HashSet::new();
        for kind in [BatchMode::Execute, BatchMode::Compensate] {
            for tokens in [
                TokenSource::TransactionId,
                TokenSource::Sequence("name".into()),
            ] {
                let round = LockBatch::new(kind, 0, Vec::new(), tokens);
                seen.insert((shape(&round), round.sql()));
            }
        }
        let shapes: HashSet<_> = seen.iter().map(|(shape, _)| *shape).collect();
        let texts: HashSet<_> = seen.iter().map(|(_, text)| *text).collect();
        assert_eq!(shapes, HashSet::from([0, 1, 2]));
        assert_eq!((seen.len(), texts.len()), (3, 3));
    }
}
