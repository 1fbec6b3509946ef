//! `SqliteConnection`: the no-op.

use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;

use crate::session::{Backend, LockSession, SessionError, TransactionState};

impl LockSession for SqliteConnection {
    fn backend(&mut self) -> Backend {
        Backend::Sqlite
    }

    fn transaction_state(&mut self) -> TransactionState {
        super::blocking::transaction_state(self)
    }

    fn begin(&mut self) -> Result<(), SessionError> {
        super::blocking::begin(self)
    }

    fn commit(&mut self) -> Result<(), SessionError> {
        super::blocking::commit(self)
    }

    fn rollback(&mut self) -> Result<(), SessionError> {
        super::blocking::rollback(self)
    }

    fn condemn(&mut self) {
        // There is no session to end; what was left open is rolled back. It fails if nothing is open.
        let _ = self.batch_execute("ROLLBACK");
        super::blocking::manager_status(self).set_in_error();
    }
}
