//! The loop of one session: [`run_session`].
//!
//! # Implementation details
//!
//! A session carries out one [`SessionCommand`] after the other on a connection of the pool, and
//! reports each result to the core. The core sends the next batch or connection check only after
//! the reply. So a command that arrives during a statement can only end the session, and the loop
//! drops the statement.
//!
//! A connection on which locks may be held never returns to its pool: [`TerminateIfArmed`]
//! terminates its session unless the core has confirmed that nothing is held. [`SessionReporter`]
//! reports the end of the loop to the core, also if it is dropped at any point, with its runtime or
//! by a panic. So no caller waits for a session that has ended.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};

use super::core::{SessionCommand, SessionId};
use super::shared::{SessionCommands, Shared};
use crate::backends::postgres::classify;
use crate::driver::asynchronous::{TerminateIfArmed, drive, snapshot};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::pool::{checkout_within, pool_error};
use crate::protocol::Acquire;
use crate::session::{AsyncLockPool, AsyncLockSession, yield_now};
use crate::session::{
    Backend, BatchMode, BatchReply, LockBatch, LockOpKind, Script, ServerSigns, SessionError,
    Statement, TokenSource,
};

/// Runs a session until a command returns its connection to the pool or terminates it.
pub(super) fn run_session<P>(
    shared: Arc<Shared>,
    pool: Arc<P>,
    accepted: ServerSigns,
    id: SessionId,
    commands: SessionCommands,
) -> impl Future<Output = ()> + Send
where
    P: AsyncLockPool + Send,
{
    // Created here, not in the future: that may be dropped before its first poll, if its runtime
    // has ended or no thread could be started.
    let reporter = SessionReporter { shared, id };
    async move {
        let shared = Arc::clone(&reporter.shared);
        // The core then commands the session to close, so the loop goes on.
        let close_with_pool = async {
            pool.closed().await;
            shared.with_core(|core, _| core.on_pool_closed());
            #[cfg(feature = "testing")]
            shared.closed.fire();
            std::future::pending::<()>().await;
        };
        select(
            pin!(session_loop(reporter, &*pool, accepted, commands)),
            pin!(close_with_pool),
        )
        .await;
    }
}

async fn session_loop<P: AsyncLockPool>(
    reporter: SessionReporter,
    pool: &P,
    accepted: ServerSigns,
    mut commands: SessionCommands,
) {
    let shared = &reporter.shared;
    let id = reporter.id;
    let mut conn: Option<TerminateIfArmed<P::Connection>> = None;
    while let Some(command) = next_command(&mut commands).await {
        match command {
            SessionCommand::Open => {
                let opening = open(&reporter, pool, accepted);
                match or_command(opening, &mut commands).await {
                    Some(Ok((opened, backend, pid))) => {
                        conn = opened;
                        shared.with_core(|core, now| core.on_opened(id, Ok((backend, pid)), now));
                    }
                    Some(Err(error)) => {
                        shared.with_core(|core, now| core.on_opened(id, Err(error), now));
                        return;
                    }
                    None => break,
                }
            }
            SessionCommand::RunBatch(batch) => {
                let Some(session) = conn.as_mut() else { break };
                match or_command(run(&mut **session, &batch), &mut commands).await {
                    Some(reply) => {
                        shared.with_core(|core, now| core.on_batch_result(id, reply, now))
                    }
                    None => break,
                }
            }
            SessionCommand::WaitOnServer { key, mut options } => {
                let Some(session) = conn.as_mut() else { break };
                options.accepted_signs = accepted;
                // A command that arrives meanwhile drops this future, which cancels the wait.
                match or_command(wait(&mut **session, key, &options), &mut commands).await {
                    Some(granted) => {
                        shared.with_core(|core, now| core.on_wait_ended(id, granted, now));
                    }
                    None => break,
                }
            }
            SessionCommand::CheckConnection => {
                let Some(session) = conn.as_mut() else { break };
                // The core then sends the command to terminate, so the loop goes on.
                if session.session_has_ended() {
                    shared.with_core(|core, now| core.on_connection_closed(id, now));
                }
            }
            SessionCommand::Close => {
                if let Some(conn) = conn.take() {
                    conn.disarm();
                }
                break;
            }
            SessionCommand::Terminate => break,
        }
    }
    // Terminates the session, which releases every lock that it may still hold. The drop of the
    // reporter follows.
    drop(conn);
}

/// Reports the end of the session to the core when it is dropped.
struct SessionReporter {
    shared: Arc<Shared>,
    id: SessionId,
}

impl Drop for SessionReporter {
    fn drop(&mut self) {
        self.shared
            .with_core(|core, now| core.on_session_closed(self.id, now));
        // After the report: a command to a session that was removed would start it again.
        self.shared.remove_session(self.id);
    }
}

/// Returns the next command. If one is already queued, yields first, so that a caller that polls
/// this session can return before the command runs.
async fn next_command(commands: &mut SessionCommands) -> Option<SessionCommand> {
    match commands.try_recv() {
        Ok(command) => {
            yield_now().await;
            Some(command)
        }
        Err(_) => commands.next().await,
    }
}

/// Runs `work` unless a command arrives first. Such a command can only end the session.
async fn or_command<T>(work: impl Future<Output = T>, commands: &mut SessionCommands) -> Option<T> {
    match select(pin!(work), commands.next()).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// Checks a connection out and determines its backend and its process id.
///
/// A session is refused here, once: it stays on its server, and a standby that is promoted keeps
/// its sessions.
async fn open<P: AsyncLockPool>(
    reporter: &SessionReporter,
    pool: &P,
    accepted: ServerSigns,
) -> Result<(Option<TerminateIfArmed<P::Connection>>, Backend, i32), LockError> {
    let mut conn = checkout(pool).await.map_err(pool_error)?;
    let backend = conn.session_backend();
    if backend != Backend::Postgres {
        conn.disarm();
        return Ok((None, backend, 0));
    }
    reporter
        .shared
        .with_core(|core, now| core.on_checked_out(reporter.id, now));
    // An empty batch returns the process id, and shows that the server supports the statements.
    let ping = LockBatch::new(
        BatchMode::Execute,
        0,
        Vec::new(),
        TokenSource::TransactionId,
    );
    match query(&mut *conn, &ping).await {
        Ok(reply) => {
            conn.pid = Some(reply.pid);
            match reply.server_signs.without(accepted).error() {
                // The server is refused, and its session is in a known state.
                Some((kind, reason)) => {
                    conn.disarm();
                    Err(LockError::new(kind).with_source(reason))
                }
                None => Ok((Some(conn), backend, reply.pid)),
            }
        }
        Err(error) => {
            let kind = match classify(error.code()) {
                LockErrorKind::Unsupported => LockErrorKind::Unsupported,
                // No request was sent, as if the pool had returned no connection.
                _ => LockErrorKind::Pool,
            };
            Err(LockError::new(kind).with_source(error.into_source()))
        }
    }
}

/// Longest checkout of an async pool, as most pools wait by default. deadpool checks an idle
/// connection by a statement without a limit. Behind a silent network its reply never arrives.
const CHECKOUT: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 30 });

async fn checkout<P: AsyncLockPool>(
    pool: &P,
) -> Result<TerminateIfArmed<P::Connection>, SessionError> {
    let mut conn = TerminateIfArmed::new(checkout_within(pool, Some(CHECKOUT)).await?, None);
    let transaction = conn.session_transaction_state();
    // In an aborted transaction a release would fail. The drop of `conn` terminates the session, so
    // that the pool does not hand it out again.
    if transaction.is_broken() || transaction.is_open() {
        return Err(SessionError::new(
            "the pool returned a connection that is broken or in a transaction",
        ));
    }
    Ok(conn)
}

/// Sends a batch and reads the reply.
async fn query<S: AsyncLockSession>(
    session: &mut S,
    batch: &LockBatch,
) -> Result<BatchReply, SessionError> {
    let statement = Statement::Batch(batch.clone());
    let row = session.session_query(&statement).await?;
    BatchReply::from_row(row, batch.pid())
}

/// Runs a compensation in a transaction without `statement_timeout`.
///
/// That setting may be the reason why a long batch failed, and a compensation that fails ends the
/// session with all of its locks. The release of a session-level lock does not depend on the
/// transaction.
async fn compensate<S: AsyncLockSession>(
    session: &mut S,
    batch: &LockBatch,
) -> Result<BatchReply, SessionError> {
    session.session_begin().await?;
    let script = Script::DisableStatementTimeout;
    // Inside the transaction, with which the setting ends.
    session.session_execute(&script).await?;
    let reply = query(session, batch).await?;
    session.session_commit(None).await?;
    Ok(reply)
}

async fn run<S: AsyncLockSession>(
    session: &mut S,
    batch: &LockBatch,
) -> Result<BatchReply, SessionError> {
    let reply = match batch.mode() {
        BatchMode::Execute => query(session, batch).await,
        BatchMode::Compensate => compensate(session, batch).await,
    };
    match reply {
        Err(error) if error.code().is_none() && !error.is_disconnected() => {
            Err(with_revealed_sqlstate(session, batch, error).await)
        }
        reply => reply,
    }
}

/// Repeats a failed acquire in a form that shows the SQLSTATE, and returns that error if it has
/// one.
///
/// Some clients hide the SQLSTATE of an error. Only a batch of one acquire is repeated: after the
/// failure of a longer batch the core retries each operation alone.
async fn with_revealed_sqlstate<S: AsyncLockSession>(
    session: &mut S,
    batch: &LockBatch,
    error: SessionError,
) -> SessionError {
    let (BatchMode::Execute, [operation]) = (batch.mode(), batch.ops()) else {
        return error;
    };
    if !matches!(operation.kind(), LockOpKind::Acquire { .. }) {
        return error;
    }
    let script = Script::RevealSqlState {
        key: operation.key(),
        mode: operation.mode(),
    };
    match session.session_execute(&script).await {
        Err(revealed) if revealed.code().is_some() || revealed.is_disconnected() => revealed,
        Err(_) | Ok(()) => error,
    }
}

/// Waits for the lock in the server's queue. Returns the process id of the session that was granted
/// it, or `None` if the limit has passed.
async fn wait<S: AsyncLockSession>(
    session: &mut S,
    key: LockKey,
    options: &LockOptions,
) -> Result<Option<i32>, LockError> {
    let snapshot = snapshot(session);
    let acquire = Acquire::new(key, options, LockScope::Session, snapshot);
    match drive(session, acquire, None).await {
        Ok(grant) => match grant.pid {
            Some(pid) => Ok(Some(pid)),
            None => Err(LockError::new(LockErrorKind::Unsupported)),
        },
        Err(error) if error.kind() == LockErrorKind::TimedOut => Ok(None),
        // The session is internal to the lock manager: waiters retry on a new one instead of
        // getting its error.
        Err(error) if session.session_transaction_state().is_broken() => {
            Err(LockError::new(LockErrorKind::Lost).with_source(error))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
