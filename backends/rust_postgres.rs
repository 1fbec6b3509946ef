//! The blocking crate postgres: `Client` and `Transaction`.
//!
//! | connection | locks |
//! |---|---|
//! | [`Client`], also in a pool of r2d2 | session-level; transaction-level with a body |
//! | [`Transaction`] | transaction-level |
//!
//! Transactions, statements and errors work as for tokio-postgres, on which the crate is built. See
//! `backends::tokio_postgres`.
//!
//! ```no_run
//! use advisory_locking::{AdvisoryLocking, LockOptions};
//! use postgres::{Client, NoTls};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect("host=localhost user=app", NoTls)?;
//! client.with_advisory_lock(("sync", 4), LockOptions::no_wait(), |client| {
//!     client.execute("DELETE FROM stale", &[])?;
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! # Async tasks
//!
//! A `Client` panics in an async task, so applications call it on a thread for blocking code. A
//! guard may be dropped in a task: each release in a tokio runtime runs on a thread of its own. The
//! drop blocks the task until the reply. If the session has ended, r2d2 drops its `Client` there,
//! which panics in postgres 0.19: such a guard is better dropped on a thread.
//!
//! # A session that ends right behind a reply
//!
//! The client may read a reply and the end of the session at once. It then returns the end in place
//! of the reply (seen with postgres 0.19.14). So a call may fail whose statement succeeded:
//!
//! | call | error |
//! |---|---|
//! | acquire | [`Database`](LockErrorKind::Database): the lock has ended with the session |
//! | release | [`Lost`](LockErrorKind::Lost): the lock may have been held until the release |
//! | commit | [`CommitUnknown`](LockErrorKind::CommitUnknown): the work may be committed |
//!
//! # Broken connections
//!
//! r2d2 tests a connection at its next checkout, unless `test_on_check_out` is off. So it never
//! hands out a session that this crate has terminated. With the test off, it may, because the crate
//! postgres 0.19 does not show that a session has ended. Such a session holds no lock.

use std::panic::resume_unwind;
use std::thread;

use postgres::{Client, GenericClient, SimpleQueryMessage, SimpleQueryRow, Transaction};
use tokio::runtime::Handle;

use super::open_transactions;
use super::postgres::{BEGAN_WITH_THIS_MESSAGE, begin_text, classify, commit_text, rollback_text};
use super::tokio_postgres::error::session_error;
use super::tokio_postgres::values;
use crate::error::LockErrorKind;
use crate::session::{
    Backend, LockSession, Row, Script, SessionError, Statement, StatementKind, TransactionState,
};

/// Implements the port. `outer` is the number of transactions that the connection itself stands
/// for.
macro_rules! lock_session {
    ($($connection:ty, outer: $outer:literal, is_closed: $is_closed:expr;)*) => {$(
        impl LockSession for $connection {
            fn session_backend(&mut self) -> Backend {
                Backend::Postgres
            }

            fn session_transaction_state(&mut self) -> TransactionState {
                if $is_closed(self) {
                    return TransactionState::broken();
                }
                TransactionState::open(open_transactions::depth(self).saturating_add($outer))
            }

            fn session_begin(&mut self) -> Result<(), SessionError> {
                begin(self, "SELECT")??;
                open_transactions::push(self);
                Ok(())
            }

            fn session_begin_and_query(
                &mut self,
                statement: &Statement,
            ) -> Result<Result<Row, SessionError>, SessionError> {
                begin_and_query(self, statement)
            }

            fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
                commit(self, $outer, check)
            }

            fn session_rollback(&mut self) -> Result<(), SessionError> {
                roll_back(self, $outer)
            }

            fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
                query(self, statement)
            }

            fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
                execute(self, script)
            }

            fn session_mark_broken(&mut self) {
                open_transactions::clear(self);
            }
        }
    )*};
}
lock_session! {
    Client, outer: 0, is_closed: Client::is_closed;
    // The `Client` is borrowed. Its owner sees the end of the session.
    Transaction<'_>, outer: 1, is_closed: |_: &Self| false;
}

/// Runs the call of a release, on a thread of its own if this thread is in a tokio runtime.
///
/// The crate postgres 0.19 blocks on a runtime of its own, which panics in an async task. The drop
/// of a guard there would keep the lock, and its connection would return to the pool. tokio does
/// not show whether a thread runs a task or blocking code. So a release in `spawn_blocking` runs on
/// a thread of its own, too. So does one in a destructor of a thread-local variable, which may run
/// after tokio's variables are destroyed.
fn outside_runtime<T: Send>(
    call: impl FnOnce() -> Result<T, SessionError> + Send,
) -> Result<T, SessionError> {
    if Handle::try_current().is_err_and(|error| !error.is_thread_local_destroyed()) {
        return call();
    }
    let mut call = Some(call);
    let called = thread::scope(|scope| {
        let thread = thread::Builder::new().name("advisory-locking".to_owned());
        let called = thread.spawn_scoped(scope, || call.take().map(|call| call()));
        // The panic goes on here, where the driver terminates the session.
        called
            .ok()?
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    });
    match (called, call) {
        (Some(result), _) => result,
        // No thread started. The call works here in blocking code. In a task it panics.
        (None, Some(call)) => call(),
        (None, None) => Err(SessionError::new("the call of a release has no result")),
    }
}

/// Begins a transaction, or a savepoint in one, and runs a `SELECT` in it, to whose columns this
/// adds one more. The outer error: an unknown transaction was open before, or an aborted one.
fn begin<C: GenericClient + LockSession>(
    conn: &mut C,
    select: &str,
) -> Result<Result<SimpleQueryRow, SessionError>, SessionError> {
    let depth = conn.session_transaction_state().depth();
    let begin = begin_text(open_transactions::savepoint(depth).as_deref());
    let script = format!("{begin}; {select} {BEGAN_WITH_THIS_MESSAGE}");
    let replies = conn.simple_query(&script).map_err(session_error);
    let row = replies.and_then(|replies| {
        let row = replies.into_iter().find_map(|reply| match reply {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        row.ok_or_else(|| SessionError::new("the server returned no row"))
    });
    match row {
        Ok(row) if depth == 0 && !values::last_is_true(&row) => {
            Err(open_transactions::unknown_transaction())
        }
        // Only the begin fails so. A rollback would reach a transaction or savepoint around it.
        Err(error) if classify(error.code()) == LockErrorKind::TransactionAborted => Err(error),
        row => Ok(row),
    }
}

fn begin_and_query<C: GenericClient + LockSession>(
    conn: &mut C,
    statement: &Statement,
) -> Result<Result<Row, SessionError>, SessionError> {
    let row = begin(conn, &format!("{},", statement.simple_sql()))?;
    // After an error, the transaction is open and aborted. If the begin itself failed, nothing is
    // open, and the rollback that follows only warns.
    open_transactions::push(conn);
    Ok(row.and_then(|row| values::text_row(&row)))
}

fn commit<C: GenericClient>(
    conn: &mut C,
    outer: u32,
    check: Option<&Script>,
) -> Result<(), SessionError> {
    let savepoint = open_transactions::innermost_savepoint(conn, outer);
    let committed = conn.batch_execute(&commit_text(savepoint.as_deref(), check));
    let result = committed.map_err(|error| {
        // The caller gets the error of the commit. postgres 0.19.14 shows the end of the session
        // only after the error that the server sent before.
        let rolled_back = conn.batch_execute(&rollback_text(savepoint.as_deref()));
        let gone = rolled_back.is_err_and(|error| session_error(error).is_disconnected());
        commit_error(session_error(error), gone)
    });
    open_transactions::pop(conn);
    result
}

/// Converts the error of a commit, which may belong to the connection. `gone`: the session has
/// ended since.
///
/// If the server ends the session after the commit, the client may read both replies at once, and
/// returns the second one only (seen with postgres 0.19.14). So an error that ends the session does
/// not say whether the transaction was committed. Any other error of the server shows that nothing
/// is committed.
fn commit_error(error: SessionError, gone: bool) -> SessionError {
    if error.is_disconnected() || (gone && error.code().is_none()) {
        SessionError::new(error.into_source()).with_disconnected(true)
    } else {
        error
    }
}

fn roll_back<C: GenericClient>(conn: &mut C, outer: u32) -> Result<(), SessionError> {
    let savepoint = open_transactions::innermost_savepoint(conn, outer);
    let rolled_back = conn.batch_execute(&rollback_text(savepoint.as_deref()));
    open_transactions::pop(conn);
    rolled_back.map_err(session_error)
}

fn execute<C: GenericClient + Send>(conn: &mut C, script: &Script) -> Result<(), SessionError> {
    let text = script.plain_sql();
    let mut call = || conn.batch_execute(&text).map_err(session_error);
    match *script {
        // Sent after a release that failed.
        Script::RollBackTransaction | Script::Terminate { .. } => outside_runtime(call),
        _ => call(),
    }
}

/// Runs a statement unprepared, in one round trip.
fn query<C>(conn: &mut C, statement: &Statement) -> Result<Row, SessionError>
where
    C: GenericClient + Send,
{
    let binds: Vec<_> = statement.binds().collect();
    let values: Vec<_> = binds.iter().map(values::typed).collect();
    let mut call = || {
        let row = conn.query_typed_one(statement.sql(), &values);
        row.map_err(session_error)
    };
    let row = match statement.kind() {
        Some(StatementKind::TryAcquire { .. }) => call()?,
        _ => outside_runtime(call)?,
    };
    values::binary_row(&row).map_err(session_error)
}
