//! One connection of a PostgreSQL pool, pinned while a lock is on it, and shared by the body's handle, transactions and streams.
//!
//! sqlx queues a rollback when a transaction is dropped, but knows one session-wide depth only, and loses it when a `begin` is
//! dropped in flight. Here the pinned connection itself remembers which transactions are open, what is in flight, and what is owed
//! before the next statement.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, AssertSqlSafe, Connection, PgConnection, PgPool, Postgres};
use sea_orm::{DbErr, RuntimeErr, TransactionOptions};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use super::error::{closed_error, code, exec_error, is_aborted, is_disconnected, session_error};
use super::terminate;
use super::transactions::{Recovery, savepoint};
use crate::backends::RuntimeBound;
use crate::backends::postgres::TerminateSequence;
use crate::session::{BatchReply, LockBatch, LockReply, SingleOp, Statement, TransactionState};

/// A pinned connection. Clones are the same connection.
#[derive(Clone, Debug)]
pub(super) struct PostgresConnection {
    state: Arc<AsyncMutex<PinnedState>>,
    log: Arc<TransactionLog>,
}

/// What can be read and written while the connection is in use, and in a drop.
#[derive(Debug)]
pub(super) struct TransactionLog {
    inner: Mutex<TransactionLogInner>,
    /// Where sqlx runs what follows a drop. Remembered, because a drop may happen where there is no runtime, and there sqlx panics.
    runtime: Option<Handle>,
}

#[derive(Debug, Default)]
pub(super) struct TransactionLogInner {
    /// The transactions and savepoints that are open, the outermost first; or will be, once the debts are paid.
    pub(super) open: Vec<TransactionId>,
    /// Nothing more is to be run; the session ends when the connection goes.
    pub(super) closed: bool,
    /// What must run before anything else does.
    pending_cleanup: VecDeque<Cleanup>,
}

/// What a drop leaves to be done.
#[derive(Debug)]
enum Cleanup {
    /// A message whose answer nobody waits for.
    Message(String),
    /// The transaction at this level, which was neither committed nor rolled back.
    Rollback(usize),
}

/// Tells the transactions of one connection apart: a depth alone may come again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TransactionId(u64);

impl TransactionId {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// The connection itself, for one user at a time.
#[derive(Debug)]
pub(super) struct PinnedState {
    /// `None` only while it is dropped.
    connection: Option<RuntimeBound<PoolConnection<Postgres>>>,
    pool: PgPool,
    pub(super) in_flight: InFlight,
    /// The last reply was an error, after which sqlx leaves the rest of the reply unread.
    reply_pending: bool,
    /// The session, as far as it has told.
    pub(super) pid: Option<i32>,
    pub(super) log: Arc<TransactionLog>,
}

/// What was sent and not yet answered, and so what a dropped future leaves behind.
#[derive(Clone, Copy, Debug)]
pub(super) enum InFlight {
    /// Nothing.
    Nothing,
    /// Something of the body's: it runs to its end, and sqlx reads its answer away.
    UserStatement,
    /// The begin or the end of a transaction.
    TransactionControl(Recovery),
    /// Something of the protocol's, maybe a wait.
    LockStatement,
}

impl PostgresConnection {
    pub(super) async fn checkout(pool: &PgPool) -> Result<Self, DbErr> {
        let connection = pool.acquire().await.map_err(super::error::acquire_error)?;
        let runtime = Handle::try_current().ok();
        let log = Arc::new(TransactionLog {
            inner: Mutex::default(),
            runtime: runtime.clone(),
        });
        let state = PinnedState {
            connection: Some(RuntimeBound::new(connection, runtime, drop)),
            pool: pool.clone(),
            in_flight: InFlight::Nothing,
            reply_pending: false,
            pid: None,
            log: Arc::clone(&log),
        };
        Ok(Self {
            state: Arc::new(AsyncMutex::new(state)),
            log,
        })
    }

    /// The connection, with everything done that was owed.
    pub(super) async fn lock(&self) -> Result<AsyncMutexGuard<'_, PinnedState>, DbErr> {
        let mut state = self.state.lock().await;
        if let Err(error) = state.run_cleanup().await {
            state.log.inner().closed = true;
            state.discard();
            return Err(error);
        }
        Ok(state)
    }

    /// The same for a statement in a transaction, which must still be open.
    pub(super) async fn lock_in(
        &self,
        transaction: Option<TransactionId>,
    ) -> Result<AsyncMutexGuard<'_, PinnedState>, DbErr> {
        let state = self.lock().await?;
        state.check(transaction)?;
        Ok(state)
    }

    pub(super) fn transaction_state(&self) -> TransactionState {
        let log = self.log.inner();
        if log.closed {
            TransactionState::broken()
        } else {
            TransactionState::open(u32::try_from(log.open.len()).unwrap_or(u32::MAX))
        }
    }

    /// Begins a transaction for the protocol.
    pub(super) async fn begin(&self) -> Result<(), DbErr> {
        let mut state = self.lock().await?;
        state.begin(&TransactionOptions::default()).await.map(drop)
    }

    /// Commits the innermost transaction.
    pub(super) async fn commit(&self) -> Result<(), DbErr> {
        let mut state = self.lock().await?;
        let innermost = state.innermost().ok_or_else(transaction_ended_error)?;
        state.commit(innermost).await
    }

    /// Rolls the innermost transaction back.
    pub(super) async fn roll_back(&self) -> Result<(), DbErr> {
        let mut state = self.lock().await?;
        let innermost = state.innermost().ok_or_else(transaction_ended_error)?;
        state.roll_back(innermost).await
    }

    /// Runs a statement of the protocol, in a transaction that must still be open if one is named.
    pub(super) async fn query(
        &self,
        transaction: Option<TransactionId>,
        statement: &Statement,
    ) -> Result<LockReply, DbErr> {
        let mut state = self.lock_in(transaction).await?;
        state.run_statement(statement).await
    }

    /// Runs a statement of the protocol about many locks.
    pub(super) async fn execute_batch(&self, batch: &LockBatch) -> Result<BatchReply, DbErr> {
        let mut state = self.lock().await?;
        state.run_batch(batch).await
    }

    /// Runs a statement of the protocol about one of many locks.
    pub(super) async fn execute_single(&self, op: &SingleOp) -> Result<Option<bool>, DbErr> {
        let mut state = self.lock().await?;
        state.run_single(op).await
    }

    /// Sends a message of the protocol, in a transaction that must still be open if one is named.
    pub(super) async fn execute_script(
        &self,
        transaction: Option<TransactionId>,
        sql: &str,
    ) -> Result<(), DbErr> {
        let mut state = self.lock_in(transaction).await?;
        state.run_script(sql).await
    }

    /// Ends the session.
    pub(super) async fn terminate(&self) {
        // If it cannot be had, it has been given up.
        if let Ok(mut state) = self.lock().await {
            let (mut sequence, mut last) = (TerminateSequence::default(), None);
            while let Some(sql) = sequence.next(last) {
                last = Some(state.run_script(sql).await.map_err(session_error));
            }
        }
        self.start_terminate();
    }

    /// Runs messages before anything else runs, and soon.
    pub(super) fn enqueue(&self, messages: Vec<String>) -> bool {
        let mut log = self.log.inner();
        if log.closed {
            return false;
        }
        log.pending_cleanup
            .extend(messages.into_iter().map(Cleanup::Message));
        drop(log);
        self.spawn_cleanup();
        true
    }

    /// Rolls a transaction back before anything else runs, and soon. Does nothing if it is over.
    pub(super) fn enqueue_rollback(&self, id: TransactionId) {
        let mut log = self.log.inner();
        let Some(level) = log.level_of(id) else {
            return;
        };
        log.open.truncate(level);
        log.pending_cleanup.push_back(Cleanup::Rollback(level));
        drop(log);
        self.spawn_cleanup();
    }

    /// Pays what is owed in the background. If the runtime is shutting down, the task is dropped, and with it maybe the connection,
    /// whose drop sees the debts.
    fn spawn_cleanup(&self) {
        if let Some(runtime) = &self.log.runtime {
            let pinned = self.clone();
            runtime.spawn(async move {
                // If it fails, it has said so on the connection itself.
                let _ = pinned.lock().await;
            });
        }
    }

    /// Ends the session, whatever it is doing, without waiting for that.
    pub(super) fn start_terminate(&self) {
        self.log.inner().closed = true;
        match self.state.try_lock() {
            Ok(mut state) => state.discard(),
            // A stream or a task that the body left behind is using it: as soon as it does not.
            Err(_) => self.spawn_cleanup(),
        }
    }

    /// Ends the session if a statement of the protocol was dropped in flight. If somebody else has the connection, that one's turn
    /// finds out, or nothing of ours was sent.
    pub(super) fn start_terminate_if_in_flight(&self) {
        if let Ok(mut state) = self.state.try_lock()
            && matches!(state.in_flight, InFlight::LockStatement)
        {
            self.log.inner().closed = true;
            state.discard();
        }
    }

    /// Whether a transaction is open.
    pub(super) fn is_open(&self, id: TransactionId) -> bool {
        self.log.inner().level_of(id).is_some()
    }
}

impl TransactionLogInner {
    /// Whether a drop has left something to be done.
    pub(super) fn is_clean(&self) -> bool {
        self.pending_cleanup.is_empty()
    }

    /// Notes that a transaction has begun at this level; `false` if one around it was dropped meanwhile.
    pub(super) fn push(&mut self, level: usize, id: TransactionId) -> bool {
        let still_inside =
            self.open.len() == level && !self.has_pending_rollback(|owed| owed <= level);
        if still_inside {
            self.open.push(id);
        }
        still_inside
    }

    /// Notes that what is open from this level on is over, whatever was owed of it.
    pub(super) fn truncate(&mut self, level: usize) {
        self.open.truncate(level);
        self.pending_cleanup
            .retain(|cleanup| !matches!(cleanup, Cleanup::Rollback(owed) if *owed >= level));
    }

    fn has_pending_rollback(&self, of: impl Fn(usize) -> bool) -> bool {
        let mut owed = self.pending_cleanup.iter();
        owed.any(|cleanup| matches!(cleanup, Cleanup::Rollback(level) if of(*level)))
    }

    /// How many transactions are around this one, if it is open.
    pub(super) fn level_of(&self, id: TransactionId) -> Option<usize> {
        self.open.iter().position(|open| *open == id)
    }
}

impl TransactionLog {
    pub(super) fn inner(&self) -> MutexGuard<'_, TransactionLogInner> {
        // Nothing in here can panic half-way, so a poisoned log is as good as any.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PinnedState {
    /// The connection.
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, DbErr> {
        if self.log.inner().closed {
            return Err(closed_error());
        }
        self.connection.as_deref_mut().ok_or_else(closed_error)
    }

    /// Sends text as one message, unprepared.
    pub(super) async fn send(&mut self, sql: &str) -> Result<(), DbErr> {
        let connection = self.connection()?;
        let sent = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
        self.reply_pending = sent.is_err();
        sent.map(drop).map_err(exec_error)
    }

    /// Pays what is owed: first what a dropped future left behind, then what drops asked for.
    pub(super) async fn run_cleanup(&mut self) -> Result<(), DbErr> {
        match self.in_flight {
            InFlight::Nothing => {}
            InFlight::LockStatement => return Err(closed_error()),
            InFlight::UserStatement => self.drain_replies().await?,
            InFlight::TransactionControl(recovery) => {
                self.drain_replies().await?;
                self.recover(recovery).await?;
            }
        }
        loop {
            self.in_flight = InFlight::Nothing;
            if self.log.inner().pending_cleanup.is_empty() {
                return self.connection().map(drop);
            }
            self.drain_after_error().await?;
            let cleanup = self.log.inner().pending_cleanup.pop_front();
            match cleanup {
                None => {}
                Some(Cleanup::Rollback(level)) => self.roll_back_level(level).await?,
                Some(Cleanup::Message(message)) => {
                    // Dropped in here, nobody could tell whether it failed: the session is ended instead.
                    self.in_flight = InFlight::LockStatement;
                    // What makes up for its failure comes after it; only a session that ended needs no more.
                    if let Err(error) = self.send(&message).await
                        && is_disconnected(&error)
                    {
                        self.in_flight = InFlight::Nothing;
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Reads every answer that is still to come, so that what follows is surely sent when it is first polled.
    async fn drain_replies(&mut self) -> Result<(), DbErr> {
        loop {
            let error = match self.connection()?.ping().await {
                Ok(()) => break,
                Err(error) => exec_error(error),
            };
            // An error of what was dropped is nobody's; each is read once.
            if code(&error).is_none() || is_disconnected(&error) {
                return Err(error);
            }
        }
        self.reply_pending = false;
        Ok(())
    }

    /// The same before something whose drop in flight must be understood.
    pub(super) async fn drain_after_error(&mut self) -> Result<(), DbErr> {
        if self.reply_pending {
            self.drain_replies().await?;
        }
        Ok(())
    }

    /// Notes that something has been answered.
    pub(super) fn finish<T>(&mut self, answer: sqlx::Result<T>) -> sqlx::Result<T> {
        self.in_flight = InFlight::Nothing;
        self.reply_pending = answer.is_err();
        answer
    }

    /// Whether the session is in an aborted transaction.
    pub(super) async fn is_aborted(&mut self) -> Result<bool, DbErr> {
        match self.send("SELECT").await {
            Ok(()) => Ok(false),
            Err(error) if is_aborted(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Rolls back to before a savepoint, which may have failed to come about.
    pub(super) async fn roll_back_to_savepoint(&mut self, level: usize) -> Result<(), DbErr> {
        let name = savepoint(level);
        self.send(&format!(
            "ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"
        ))
        .await
    }

    /// Leaves the connection to its end.
    fn discard(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        match self.in_flight {
            InFlight::LockStatement => terminate::spawn(connection, self.pool.clone(), self.pid),
            InFlight::Nothing | InFlight::UserStatement | InFlight::TransactionControl(_) => {
                terminate::close(connection);
            }
        }
    }
}

/// Gives the connection back to its pool, if it is as it was.
impl Drop for PinnedState {
    fn drop(&mut self) {
        let log = self.log.inner();
        let dirty = log.closed || !log.open.is_empty() || !log.pending_cleanup.is_empty();
        drop(log);
        if dirty || !matches!(self.in_flight, InFlight::Nothing | InFlight::UserStatement) {
            self.discard();
        }
    }
}

/// A transaction that an outer one has ended.
pub(super) fn transaction_ended_error() -> DbErr {
    DbErr::Exec(RuntimeErr::Internal(
        "this transaction is over: the one around it was ended".to_owned(),
    ))
}
