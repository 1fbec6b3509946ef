//! `PgConnection`.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionDepthChange};
use diesel::pg::PgConnection;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::{Connection, QueryResult, RunQueryDsl};

use super::prepared::{Prepared, with_prepared};
use super::{NO_INSTRUMENTATION, change_depth, savepoint_name, session_error};
use crate::backends::postgres::{begin, commit_text, rollback_text};
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
        if super::blocking::transaction_state(self) != TransactionState::none() {
            return super::blocking::begin(self);
        }
        AnsiTransactionManager::begin_transaction_sql(self, &begin()).map_err(session_error)
    }

    fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        // `COMMIT` is for the outermost transaction, and a transaction inside a test's is a
        // savepoint.
        if super::blocking::transaction_state(self) != TransactionState::open(1) {
            return commit_savepoint(self, check);
        }
        // Diesel reads the transaction state from libpq, so it notices the end of the transaction.
        self.batch_execute(&commit_text(None, check))
            .map_err(|error| {
                // It is still open if the check failed. A `COMMIT` that fails ends it.
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
        let row = match query(self, statement) {
            Err(error) if is_not_sent(&error) => {
                discard_unread_reply(self);
                query(self, statement)
            }
            row => row,
        };
        row.map_err(session_error)
    }

    fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        if matches!(script, Script::Terminate { .. }) {
            self.set_instrumentation(NO_INSTRUMENTATION);
        }
        self.batch_execute(&script.sql()).map_err(session_error)
    }

    /// The driver also terminates the session, because the next statement that succeeds outside a
    /// transaction removes the mark (seen with Diesel 2.3.14).
    fn session_mark_broken(&mut self) {
        super::blocking::manager_status(self).set_in_error();
    }
}

fn query(conn: &mut PgConnection, statement: &Statement) -> QueryResult<Row> {
    with_prepared!(statement, prepared => prepared.get_result(conn))
}

/// Returns whether libpq has refused to send a statement: it has closed the connection, or a reply
/// is unread.
fn is_not_sent(error: &Error) -> bool {
    matches!(
        error,
        Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _)
    )
}

/// Discards a reply that the application has not read, as libpq's [`PQexec`] does before it sends a
/// statement.
///
/// A `COPY` leaves one if it is sent as text. So does [`copy_to`](diesel::copy_to), even if all of
/// its data is read (seen with Diesel 2.3.14).
///
/// [`PQexec`]: https://www.postgresql.org/docs/current/libpq-exec.html#LIBPQ-PQEXEC
fn discard_unread_reply(conn: &mut PgConnection) {
    // It fails on a closed connection and in an aborted transaction, as the next statement does.
    let _ = conn.batch_execute(&Script::EndSnapshot.sql());
}

/// Releases a savepoint after the check, or rolls back to it if that fails.
fn commit_savepoint(conn: &mut PgConnection, check: Option<&Script>) -> Result<(), SessionError> {
    let depth = super::blocking::manager_status(conn).transaction_depth();
    let Some(depth) = depth.ok().flatten().filter(|depth| depth.get() > 1) else {
        // There is no savepoint, and Diesel's own commit reports the reason.
        return super::blocking::commit(conn);
    };
    let name = savepoint_name(depth);
    let released = conn.batch_execute(&commit_text(Some(&name), check));
    // If neither statement ends the savepoint, the depth below is wrong. So no pool may hand the
    // connection out.
    if released.is_err() && conn.batch_execute(&rollback_text(Some(&name))).is_err() {
        super::blocking::manager_status(conn).set_in_error();
    }
    let status = super::blocking::manager_status(conn);
    change_depth(status, TransactionDepthChange::DecreaseDepth);
    released.map_err(session_error)
}
