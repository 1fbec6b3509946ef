//! `AsyncPgConnection`.

use std::pin::Pin;

use diesel::QueryResult;
use diesel::connection::{TransactionDepthChange, TransactionManagerStatus};
use diesel::result::{DatabaseErrorKind, Error};
#[cfg(any(feature = "bb8", feature = "deadpool", feature = "mobc"))]
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::join3;

use crate::backends::diesel::prepared::with_prepared;
use crate::backends::diesel::{NO_INSTRUMENTATION, change_depth, savepoint_name, session_error};
use crate::backends::postgres::{TerminateStep, begin, commit_text, rollback_text};
use crate::backends::tokio_postgres::cancel;
use crate::session::{
    AsyncLockSession, Backend, Row, Script, SessionError, Statement, TransactionState,
};

impl AsyncLockSession for AsyncPgConnection {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        super::transaction_state(self)
    }

    /// Only diesel-async's trait for pools shows that tokio-postgres has closed the connection.
    #[cfg(any(feature = "bb8", feature = "deadpool", feature = "mobc"))]
    fn session_has_ended(&mut self) -> bool {
        // `is_broken` is also true in a transaction, so it must not see one.
        let manager = std::mem::take(self.transaction_state());
        let is_closed = PoolableConnection::is_broken(self);
        *self.transaction_state() = manager;
        is_closed || self.session_transaction_state() == TransactionState::broken()
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        let depth = super::manager_status(self).transaction_depth();
        let depth = depth.ok().flatten().and_then(|depth| depth.checked_add(1));
        let Some(depth) = depth else {
            return super::begin(self).await;
        };
        // diesel-async's own begin panics in a debug build if a statement of its transaction
        // manager was dropped in flight (seen with diesel-async 0.9.2).
        let savepoint = format!("SAVEPOINT {}", savepoint_name(depth));
        self.batch_execute(&savepoint)
            .await
            .map_err(session_error)?;
        change_depth(
            super::manager_status(self),
            TransactionDepthChange::IncreaseDepth,
        );
        Ok(())
    }

    async fn session_begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> Result<Result<Row, SessionError>, SessionError> {
        // A savepoint is named after the depth, as diesel-async names it.
        if self.session_transaction_state() != TransactionState::none() {
            self.session_begin().await?;
            return Ok(self.session_query(statement).await);
        }
        let (begun, row, ended) = begin_and_query(self, statement).await;
        // Without a transaction, a lock that was granted is gone with its statement.
        begun.map_err(session_error)?;
        change_depth(
            super::manager_status(self),
            TransactionDepthChange::IncreaseDepth,
        );
        Ok(row
            .and_then(|row| ended.map(|()| row))
            .map_err(session_error))
    }

    async fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        // `COMMIT` is for the outermost transaction, as with Diesel.
        if self.session_transaction_state() != TransactionState::open(1) {
            return commit_savepoint(self, check).await;
        }
        match self.batch_execute(&commit_text(None, check)).await {
            Ok(()) => {
                // tokio-postgres 0.7.18 does not show the transaction state, so the manager would
                // not notice the end of the transaction.
                *super::manager_status(self) = TransactionManagerStatus::default();
                Ok(())
            }
            Err(error) => {
                // The caller gets the error of the commit. tokio-postgres 0.7.18 shows the end of
                // the session only after the error that the server sent before.
                let rolled_back = self.session_rollback().await;
                let gone = rolled_back.is_err_and(|error| error.is_disconnected());
                let is_unknown = gone && !is_rejection(&error);
                Err(session_error(error).with_disconnected(is_unknown))
            }
        }
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        // diesel-async's own rollback panics as its begin does.
        if let Some(name) = open_savepoint(self) {
            let rolled_back = self.batch_execute(&rollback_text(Some(&name))).await;
            end_savepoint(self, rolled_back.is_ok());
            return rolled_back.map_err(session_error);
        }
        if self.session_transaction_state() != TransactionState::open(1) {
            return super::rollback(self).await;
        }
        let rolled_back = self.batch_execute("ROLLBACK").await;
        match rolled_back {
            Ok(()) => *super::manager_status(self) = TransactionManagerStatus::default(),
            // The transaction has ended even so, at the latest with its session.
            Err(_) => super::manager_status(self).set_in_error(),
        }
        rolled_back.map_err(session_error)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let row = with_prepared!(statement, prepared => prepared.get_result(self).await);
        row.map_err(session_error)
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.batch_execute(&script.sql())
            .await
            .map_err(session_error)
    }

    fn session_mark_broken(&mut self) {
        super::manager_status(self).set_in_error();
    }

    fn session_start_terminate(&mut self, pid: Option<i32>) {
        start_terminate(self, pid, false);
    }

    /// The terminate statements are behind the wait, which the cancel request ends. No other
    /// statement is cancelled: tokio-postgres closes the connection of a cancel request at once,
    /// and poolers have crashed at that.
    fn session_cancel_and_terminate(&mut self, pid: Option<i32>) {
        let in_transaction = self.session_transaction_state().is_open_on_server();
        start_terminate(self, pid, in_transaction);
        cancel(self.cancel_token());
    }

    fn session_enqueue(&mut self, script: &Script) -> bool {
        script
            .messages()
            .iter()
            // Stops at the first failure, so that no message runs without those before it.
            .all(|message| super::send_detached(self, message))
    }
}

/// Queues the statements that terminate the session, and marks the connection as broken.
fn start_terminate(conn: &mut AsyncPgConnection, pid: Option<i32>, in_transaction: bool) {
    // The caller is a destructor, in which a panic of the instrumentation could abort.
    conn.set_instrumentation(NO_INSTRUMENTATION);
    for text in TerminateStep::queued(pid, in_transaction) {
        // A failure shows that the connection is closed, which ends the session as well.
        super::send_detached(conn, &text);
    }
    conn.session_mark_broken();
}

/// Sends the begin, a statement and the end of its snapshot without a pause for the replies.
///
/// The futures are polled in this order, so the messages are sent in this order. If the connection
/// has not prepared the statement before, its execution follows the third message.
async fn begin_and_query(
    conn: &AsyncPgConnection,
    statement: &Statement,
) -> (QueryResult<()>, QueryResult<Row>, QueryResult<()>) {
    let (mut first, mut second, mut third) = (conn, conn, conn);
    // Boxed, because each arm of `with_prepared!` has a future of its own type.
    let query: Pin<Box<dyn Future<Output = QueryResult<Row>> + Send + '_>> =
        with_prepared!(statement, prepared => Box::pin(prepared.get_result(&mut second)));
    let (begin, end) = (begin(), Script::EndSnapshot.sql());
    join3(
        first.batch_execute(&begin),
        query,
        third.batch_execute(&end),
    )
    .await
}

/// Returns whether the kind of an error shows that the server has rejected the statement.
///
/// The end of a session has one of the other kinds, as has an error whose SQLSTATE is hidden.
const fn is_rejection(error: &Error) -> bool {
    use DatabaseErrorKind::{ClosedConnection, UnableToSendCommand, Unknown};
    match error {
        Error::DatabaseError(kind, _) => {
            !matches!(kind, Unknown | UnableToSendCommand | ClosedConnection)
        }
        _ => false,
    }
}

/// Releases a savepoint after the check. If that fails, diesel-async would leave the transaction
/// aborted, so this rolls back to the savepoint.
async fn commit_savepoint(
    conn: &mut AsyncPgConnection,
    check: Option<&Script>,
) -> Result<(), SessionError> {
    let Some(name) = open_savepoint(conn) else {
        // There is no savepoint, and diesel-async's own commit reports the reason.
        return super::commit(conn).await;
    };
    let released = conn.batch_execute(&commit_text(Some(&name), check)).await;
    let rollback = rollback_text(Some(&name));
    let has_ended = released.is_ok() || conn.batch_execute(&rollback).await.is_ok();
    end_savepoint(conn, has_ended);
    released.map_err(session_error)
}

/// Returns diesel-async's name of the innermost savepoint. `None`: there is none.
fn open_savepoint(conn: &mut AsyncPgConnection) -> Option<String> {
    let depth = super::manager_status(conn).transaction_depth();
    let depth = depth.ok().flatten().filter(|depth| depth.get() > 1);
    depth.map(savepoint_name)
}

/// Counts a savepoint less. If it may still be open, no pool may hand the connection out.
fn end_savepoint(conn: &mut AsyncPgConnection, has_ended: bool) {
    let status = super::manager_status(conn);
    if has_ended {
        change_depth(status, TransactionDepthChange::DecreaseDepth);
    } else {
        status.set_in_error();
    }
}
