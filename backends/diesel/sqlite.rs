//! `SqliteConnection`, which has no locks.

use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;

use crate::session::{Backend, LockSession, Script, SessionError, TransactionState};

impl LockSession for SqliteConnection {
    fn session_backend(&mut self) -> Backend {
        Backend::Sqlite
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        super::blocking::transaction_state(self)
    }

    fn session_begin(&mut self) -> Result<(), SessionError> {
        super::blocking::begin(self)
    }

    fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        super::blocking::commit(self)
    }

    fn session_rollback(&mut self) -> Result<(), SessionError> {
        super::blocking::rollback(self)
    }

    fn session_mark_broken(&mut self) {
        // Ends a transaction that Diesel does not know of. It fails without one.
        let _ = self.batch_execute("ROLLBACK");
        super::blocking::manager_status(self).set_in_error();
    }
}
