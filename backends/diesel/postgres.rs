//! `PgConnection`.

use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;

use super::prepared::{Prepared, with_prepared};
use super::session_error;
use crate::backends::postgres::COMMIT;
use crate::session::{
    Backend, LockSession, Row, Script, SessionError, Statement, TransactionState,
};

impl<const ID: u8> RunQueryDsl<PgConnection> for Prepared<ID> {}

impl LockSession for PgConnection {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        super::blocking::transaction_state(self)
    }

    fn session_begin(&mut self) -> Result<(), SessionError> {
        super::blocking::begin(self)
    }

    fn session_commit(&mut self) -> Result<(), SessionError> {
        // `COMMIT` is for the outermost transaction. A savepoint and a transaction inside a test's
        // are released by Diesel's own commit.
        if super::blocking::transaction_state(self) != TransactionState::open(1) {
            return super::blocking::commit(self);
        }
        // Diesel reads the transaction state from libpq, so it notices the end of the transaction.
        self.batch_execute(COMMIT).map_err(|error| {
            // Open still if the savepoint failed, in an aborted transaction. A `COMMIT` that fails
            // ends the transaction.
            if super::blocking::transaction_state(self).is_open() {
                // The caller gets the error of the commit.
                let _ = super::blocking::rollback(self);
            }
            session_error(error)
        })
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        super::blocking::rollback(self)
    }

    fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let row = with_prepared!(statement, prepared => prepared.get_result(self));
        row.map_err(session_error)
    }

    fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.batch_execute(&script.sql()).map_err(session_error)
    }

    /// The mark alone would not be enough: the next statement that succeeds outside a transaction
    /// removes it (seen with Diesel 2.3.14). No statement succeeds in a session that has ended.
    fn session_mark_broken(&mut self) {
        super::blocking::manager_status(self).set_in_error();
    }
}
