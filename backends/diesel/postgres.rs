//! `PgConnection`.

use diesel::connection::SimpleConnection;
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable};
use diesel::{QueryResult, RunQueryDsl};

use super::session_error;
use crate::backends::postgres::CONDEMN;
use crate::session::{
    Backend, Batch, Bind, LockSession, Row, SessionError, Statement, TransactionState,
};

/// A statement as Diesel wants it. Kept in its cache of prepared statements under its text, of which there are few.
struct Prepared {
    sql: &'static str,
    binds: Vec<Bind>,
}

impl Prepared {
    fn new(statement: &Statement) -> Self {
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

impl RunQueryDsl<PgConnection> for Prepared {}

impl LockSession for PgConnection {
    fn backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn transaction_state(&mut self) -> TransactionState {
        super::transaction_state(self)
    }

    fn begin(&mut self) -> Result<(), SessionError> {
        super::begin(self)
    }

    fn commit(&mut self) -> Result<(), SessionError> {
        if super::transaction_state(self) != TransactionState::open(1) {
            return super::commit(self);
        }
        // In an aborted transaction `COMMIT` rolls back and succeeds, and Diesel takes that for a commit. A statement before it in
        // the same message is refused there. Diesel follows the state that the server tells, so it knows when this has ended the
        // transaction.
        self.batch_execute("SELECT 1; COMMIT").map_err(|error| {
            if super::transaction_state(self).is_open() {
                // The commit's error is the one to report.
                let _ = super::rollback(self);
            }
            session_error(error)
        })
    }

    fn rollback(&mut self) -> Result<(), SessionError> {
        super::rollback(self)
    }

    fn query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let (answer, pid) = Prepared::new(statement)
            .get_result(self)
            .map_err(session_error)?;
        Ok(Row { answer, pid })
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), SessionError> {
        self.batch_execute(&batch.sql()).map_err(session_error)
    }

    /// Marking the transaction manager alone would not do: any statement that goes through repairs the mark. A session that the
    /// server has ended does not come back.
    fn condemn(&mut self) {
        for sql in CONDEMN {
            // Each is an attempt, and the first that succeeds reports that the connection was closed.
            let _ = self.batch_execute(sql);
        }
        super::manager_status(self).set_in_error();
    }
}
