//! `Client` and `Transaction` as sessions.
//!
//! # Implementation details
//!
//! Both send their statements through a `&Client`. The functions of this module serve every
//! connection that contains one, and [`lock_session`] implements the port with them.
//!
//! A transaction begins with one simple query that also makes the first attempt. It costs one round
//! trip, and leaves no portal open, and so no snapshot. Its last column says whether the
//! transaction began with this message. It did not if the application has sent a `BEGIN` before,
//! because the server only warns of a second one.

use std::pin::pin;

use futures_util::{FutureExt, TryStreamExt};
use tokio_postgres::{Client, GenericClient, SimpleQueryMessage, SimpleQueryRow, Transaction};

use super::error::session_error;
use super::values;
use crate::backends::open_transactions;
use crate::backends::postgres::{
    BEGAN_WITH_THIS_MESSAGE, TerminateStep, begin_text, commit_text, rollback_text,
};
use crate::session::{Row, Script, SessionError, Statement, TransactionState};

/// Implements the port for a connection that contains a `Client`.
///
/// `outer` is the number of transactions that the connection itself stands for. `close` closes the
/// `Client`, if the connection owns it. `query` runs a statement.
macro_rules! lock_session {
    ($connection:ty, outer: $outer:literal, client: $client:expr, close: $close:expr, query: $query:expr) => {
        const _: () = {
            use $crate::backends::open_transactions;
            use $crate::backends::tokio_postgres::{cancel, client};
            use $crate::session::{
                AsyncLockSession, Backend, Row, Script, SessionError, Statement, TransactionState,
            };

            impl AsyncLockSession for $connection {
                fn session_backend(&mut self) -> Backend {
                    Backend::Postgres
                }

                fn session_transaction_state(&mut self) -> TransactionState {
                    client::transaction_state($client(self), $outer)
                }

                async fn session_begin(&mut self) -> Result<(), SessionError> {
                    client::begin($client(self), $outer).await
                }

                async fn session_begin_and_query(
                    &mut self,
                    statement: &Statement,
                ) -> Result<Result<Row, SessionError>, SessionError> {
                    client::begin_and_query($client(self), $outer, statement).await
                }

                async fn session_commit(
                    &mut self,
                    check: Option<&Script>,
                ) -> Result<(), SessionError> {
                    client::commit($client(self), $outer, check).await
                }

                async fn session_rollback(&mut self) -> Result<(), SessionError> {
                    client::roll_back($client(self), $outer).await
                }

                async fn session_query(
                    &mut self,
                    statement: &Statement,
                ) -> Result<Row, SessionError> {
                    $query(self, statement).await
                }

                async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
                    client::execute($client(self), script).await
                }

                fn session_mark_broken(&mut self) {
                    open_transactions::clear($client(self));
                    $close(self);
                }

                fn session_start_terminate(&mut self, pid: Option<i32>) {
                    client::enqueue_terminate($client(self), pid, false);
                    self.session_mark_broken();
                }

                /// The terminate statements are behind the wait, which the cancel request ends. No
                /// other statement is cancelled: tokio-postgres closes the connection of a cancel
                /// request at once, and poolers have crashed at that.
                fn session_cancel_and_terminate(&mut self, pid: Option<i32>) {
                    let token = $client(self).cancel_token();
                    let in_transaction = self.session_transaction_state().is_open_on_server();
                    client::enqueue_terminate($client(self), pid, in_transaction);
                    self.session_mark_broken();
                    cancel(token);
                }

                fn session_enqueue(&mut self, script: &Script) -> bool {
                    client::enqueue($client(self), script)
                }
            }
        };
    };
}
#[cfg(feature = "deadpool-postgres")]
pub(crate) use lock_session;

lock_session!(Client,
    outer: 0,
    client: GenericClient::client,
    close: close,
    query: query
);

lock_session!(Transaction<'_>,
    outer: 1,
    client: GenericClient::client,
    // The `Client` is borrowed. Its owner sees the end of the session.
    close: |transaction: &Self| reject_statements(transaction.client()),
    query: async |transaction: &Self, statement| query(transaction.client(), statement).await
);

/// Closes a client: its task sends what is queued, and then ends the connection.
///
/// The public interface of tokio-postgres 0.7 has no such method. The crate `postgres` 0.19 calls
/// this one, so every 0.7 has it.
pub(crate) fn close(client: &mut Client) {
    client.__private_api_close();
}

/// Returns the state of a connection that stands for `outer` transactions.
pub(crate) fn transaction_state(client: &Client, outer: u32) -> TransactionState {
    if client.is_closed() {
        return TransactionState::broken();
    }
    TransactionState::open(outer.saturating_add(open_transactions::depth(client)))
}

/// Begins a transaction, or a savepoint in one.
pub(crate) async fn begin(client: &Client, outer: u32) -> Result<(), SessionError> {
    let reply = send_begin(client, outer, "SELECT").await?;
    reply.map(drop)
}

/// Begins a transaction, or a savepoint in one, and makes an attempt in it.
pub(crate) async fn begin_and_query(
    client: &Client,
    outer: u32,
    statement: &Statement,
) -> Result<Result<Row, SessionError>, SessionError> {
    let reply = send_begin(client, outer, &format!("{},", statement.simple_sql())).await?;
    Ok(reply.and_then(|row| values::text_row(&row)))
}

/// Sends the begin, and a `SELECT` to whose columns this adds one more. The outer error is that of
/// the begin.
async fn send_begin(
    client: &Client,
    outer: u32,
    select: &str,
) -> Result<Result<SimpleQueryRow, SessionError>, SessionError> {
    let depth = transaction_state(client, outer).depth();
    let begin = begin_text(open_transactions::savepoint(depth).as_deref());
    let script = format!("{begin}; {select} {BEGAN_WITH_THIS_MESSAGE}");
    // Raw: `simple_query` returns one error for the script, and hides which statement failed.
    let replies = client.simple_query_raw(&script).await;
    let mut replies = pin!(replies.map_err(session_error)?);
    // The first reply is that of the begin. If it fails, the server skips the rest.
    replies.try_next().await.map_err(session_error)?;
    let mut found = Err(SessionError::new("the server returned no row"));
    let ended = loop {
        match replies.try_next().await {
            Ok(Some(SimpleQueryMessage::Row(row))) => found = Ok(row),
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(session_error(error)),
        }
    };
    let row = ended.and(found);
    if depth == 0 && row.as_ref().is_ok_and(|row| !values::last_is_true(row)) {
        return Err(open_transactions::unknown_transaction());
    }
    // The begin succeeded, so the transaction is open, also if the statement in it failed.
    open_transactions::push(client);
    Ok(row)
}

/// Commits the transaction or releases the savepoint that this crate began last, after a check.
pub(crate) async fn commit(
    client: &Client,
    outer: u32,
    check: Option<&Script>,
) -> Result<(), SessionError> {
    let savepoint = open_transactions::innermost_savepoint(client, outer);
    let commit = commit_text(savepoint.as_deref(), check);
    let result = match client.batch_execute(&commit).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // The caller gets the error of the commit. An error of the server shows that nothing is
            // committed, also if the session has ended since.
            let error = session_error(error);
            let rollback = rollback_text(savepoint.as_deref());
            let rolled_back = client.batch_execute(&rollback).await;
            let gone = rolled_back.is_err_and(|error| session_error(error).is_disconnected());
            let is_unknown = gone && error.code().is_none();
            Err(error.with_disconnected(is_unknown))
        }
    };
    open_transactions::pop(client);
    result
}

/// Rolls back the transaction or the savepoint that this crate began last.
pub(crate) async fn roll_back(client: &Client, outer: u32) -> Result<(), SessionError> {
    let savepoint = open_transactions::innermost_savepoint(client, outer);
    let rollback = rollback_text(savepoint.as_deref());
    let rolled_back = client.batch_execute(&rollback).await;
    open_transactions::pop(client);
    rolled_back.map_err(session_error)
}

/// Runs a statement unprepared, in one round trip.
pub(crate) async fn query(client: &Client, statement: &Statement) -> Result<Row, SessionError> {
    let binds: Vec<_> = statement.binds().collect();
    let values: Vec<_> = binds.iter().map(values::typed).collect();
    let row = client.query_typed_one(statement.sql(), &values).await;
    row.and_then(|row| values::binary_row(&row))
        .map_err(session_error)
}

/// Runs a script. The client shows the SQLSTATE of every error.
pub(crate) async fn execute(client: &Client, script: &Script) -> Result<(), SessionError> {
    let executed = client.batch_execute(&script.plain_sql()).await;
    executed.map_err(session_error)
}

/// Queues the messages of a script, without waiting for the replies.
pub(crate) fn enqueue(client: &Client, script: &Script) -> bool {
    // Stops at the first failure, so that no message runs without those before it.
    script
        .messages()
        .iter()
        .all(|message| queue(client, message))
}

/// Queues the statements that terminate the session.
pub(crate) fn enqueue_terminate(client: &Client, pid: Option<i32>, in_transaction: bool) {
    for text in TerminateStep::queued(pid, in_transaction) {
        // A failure shows that the connection is closed, which ends the session as well.
        queue(client, &text);
    }
}

/// Queues a transaction that is aborted at once, for a session that may not end itself.
///
/// The termination has rolled back the transaction of the application. Without another one, the
/// server would commit each further statement of the application by itself.
fn reject_statements(client: &Client) {
    // No server has this setting, so the statement fails.
    let missing = "SELECT pg_catalog.current_setting('advisory-locking: rolled back')";
    queue(client, &format!("BEGIN; {missing}"));
}

/// Queues a message. Returns `false` if the connection is closed.
fn queue(client: &Client, message: &str) -> bool {
    // The first poll hands the message to the task that talks to the server.
    let queued = client.batch_execute(message).now_or_never();
    !matches!(queued, Some(Err(_)))
}
