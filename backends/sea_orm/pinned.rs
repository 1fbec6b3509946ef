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

use super::error::{code, exec_error, gone, is_aborted, is_gone, session_error};
use super::farewell;
use super::transactions::{Recovery, savepoint};
use crate::backends::postgres::Condemnation;
use crate::session::{BatchReply, LockBatch, Row, SingleOp, Statement, TransactionState};

/// A pinned connection. Clones are the same connection.
#[derive(Clone, Debug)]
pub(super) struct Pinned {
    wire: Arc<AsyncMutex<Wire>>,
    ledger: Arc<Ledger>,
}

/// What can be read and written while the connection is in use, and in a drop.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Mutex<Entries>,
    /// Where sqlx runs what follows a drop. Remembered, because a drop may happen where there is no runtime, and there sqlx panics.
    runtime: Option<Handle>,
}

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The transactions and savepoints that are open, the outermost first; or will be, once the debts are paid.
    pub(super) open: Vec<TransactionId>,
    /// Nothing more is to be run; the session ends when the connection goes.
    pub(super) given_up: bool,
    /// What must run before anything else does.
    owed: VecDeque<Debt>,
}

/// What a drop leaves to be done.
#[derive(Debug)]
enum Debt {
    /// A message whose answer nobody waits for.
    Message(String),
    /// The transaction at this level, which was neither committed nor rolled back.
    RollBack(usize),
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
pub(super) struct Wire {
    /// `None` only while it is dropped.
    connection: Option<PoolConnection<Postgres>>,
    pool: PgPool,
    pub(super) flight: Flight,
    /// The last answer was an error, after which sqlx leaves the rest of the answer unread.
    unread: bool,
    /// The session, as far as it has told.
    pub(super) pid: Option<i32>,
    pub(super) ledger: Arc<Ledger>,
}

/// What was sent and not yet answered, and so what a dropped future leaves behind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flight {
    /// Nothing.
    Landed,
    /// Something of the body's: it runs to its end, and sqlx reads its answer away.
    Body,
    /// The begin or the end of a transaction.
    Transaction(Recovery),
    /// Something of the protocol's, maybe a wait.
    Protocol,
}

impl Pinned {
    pub(super) async fn checkout(pool: &PgPool) -> Result<Self, DbErr> {
        let connection = pool.acquire().await.map_err(super::error::acquire_error)?;
        let ledger = Arc::new(Ledger {
            entries: Mutex::default(),
            runtime: Handle::try_current().ok(),
        });
        let wire = Wire {
            connection: Some(connection),
            pool: pool.clone(),
            flight: Flight::Landed,
            unread: false,
            pid: None,
            ledger: Arc::clone(&ledger),
        };
        Ok(Self {
            wire: Arc::new(AsyncMutex::new(wire)),
            ledger,
        })
    }

    /// The connection, with everything done that was owed.
    pub(super) async fn lock(&self) -> Result<AsyncMutexGuard<'_, Wire>, DbErr> {
        let mut wire = self.wire.lock().await;
        if let Err(error) = wire.settle().await {
            wire.ledger.entries().given_up = true;
            wire.end();
            return Err(error);
        }
        Ok(wire)
    }

    /// The same for a statement in a transaction, which must still be open.
    pub(super) async fn lock_in(
        &self,
        transaction: Option<TransactionId>,
    ) -> Result<AsyncMutexGuard<'_, Wire>, DbErr> {
        let wire = self.lock().await?;
        wire.check(transaction)?;
        Ok(wire)
    }

    pub(super) fn transaction_state(&self) -> TransactionState {
        let entries = self.ledger.entries();
        if entries.given_up {
            TransactionState::broken()
        } else {
            TransactionState::open(u32::try_from(entries.open.len()).unwrap_or(u32::MAX))
        }
    }

    /// Begins a transaction for the protocol.
    pub(super) async fn begin(&self) -> Result<(), DbErr> {
        let mut wire = self.lock().await?;
        wire.begin(&TransactionOptions::default()).await.map(drop)
    }

    /// Commits the innermost transaction.
    pub(super) async fn commit(&self) -> Result<(), DbErr> {
        let mut wire = self.lock().await?;
        let innermost = wire.innermost().ok_or_else(over)?;
        wire.commit(innermost).await
    }

    /// Rolls the innermost transaction back.
    pub(super) async fn roll_back(&self) -> Result<(), DbErr> {
        let mut wire = self.lock().await?;
        let innermost = wire.innermost().ok_or_else(over)?;
        wire.roll_back(innermost).await
    }

    /// Runs a statement of the protocol, in a transaction that must still be open if one is named.
    pub(super) async fn query(
        &self,
        transaction: Option<TransactionId>,
        statement: &Statement,
    ) -> Result<Row, DbErr> {
        let mut wire = self.lock_in(transaction).await?;
        wire.lock_query(statement).await
    }

    /// Runs a statement of the protocol about many locks.
    pub(super) async fn round(&self, round: &LockBatch) -> Result<BatchReply, DbErr> {
        let mut wire = self.lock().await?;
        wire.lock_round(round).await
    }

    /// Runs a statement of the protocol about one of many locks.
    pub(super) async fn single_step(&self, step: &SingleOp) -> Result<Option<bool>, DbErr> {
        let mut wire = self.lock().await?;
        wire.lock_single_step(step).await
    }

    /// Sends a message of the protocol, in a transaction that must still be open if one is named.
    pub(super) async fn batch(
        &self,
        transaction: Option<TransactionId>,
        sql: &str,
    ) -> Result<(), DbErr> {
        let mut wire = self.lock_in(transaction).await?;
        wire.lock_batch(sql).await
    }

    /// Ends the session.
    pub(super) async fn condemn(&self) {
        // If it cannot be had, it has been given up.
        if let Ok(mut wire) = self.lock().await {
            let (mut condemnation, mut last) = (Condemnation::default(), None);
            while let Some(sql) = condemnation.next(last) {
                last = Some(wire.lock_batch(sql).await.map_err(session_error));
            }
        }
        self.abandon();
    }

    /// Runs messages before anything else runs, and soon.
    pub(super) fn run_later(&self, messages: Vec<String>) -> bool {
        let mut entries = self.ledger.entries();
        if entries.given_up {
            return false;
        }
        entries.owed.extend(messages.into_iter().map(Debt::Message));
        drop(entries);
        self.pay_soon();
        true
    }

    /// Rolls a transaction back before anything else runs, and soon. Does nothing if it is over.
    pub(super) fn roll_back_later(&self, id: TransactionId) {
        let mut entries = self.ledger.entries();
        let Some(level) = entries.level_of(id) else {
            return;
        };
        entries.open.truncate(level);
        entries.owed.push_back(Debt::RollBack(level));
        drop(entries);
        self.pay_soon();
    }

    /// Pays what is owed in the background. If the runtime is shutting down, the task is dropped, and with it maybe the connection,
    /// whose drop sees the debts.
    fn pay_soon(&self) {
        if let Some(runtime) = &self.ledger.runtime {
            let pinned = self.clone();
            runtime.spawn(async move {
                // If it fails, it has said so on the connection itself.
                let _ = pinned.lock().await;
            });
        }
    }

    /// Ends the session, whatever it is doing, without waiting for that.
    pub(super) fn abandon(&self) {
        self.ledger.entries().given_up = true;
        match self.wire.try_lock() {
            Ok(mut wire) => wire.end(),
            // A stream or a task that the body left behind is using it: as soon as it does not.
            Err(_) => self.pay_soon(),
        }
    }

    /// Ends the session if a statement of the protocol was dropped in flight. If somebody else has the connection, that one's turn
    /// finds out, or nothing of ours was sent.
    pub(super) fn abandon_in_flight(&self) {
        if let Ok(mut wire) = self.wire.try_lock()
            && matches!(wire.flight, Flight::Protocol)
        {
            self.ledger.entries().given_up = true;
            wire.end();
        }
    }

    /// Whether a transaction is open.
    pub(super) fn is_open(&self, id: TransactionId) -> bool {
        self.ledger.entries().level_of(id).is_some()
    }
}

impl Entries {
    /// Whether a drop has left something to be done.
    pub(super) fn is_even(&self) -> bool {
        self.owed.is_empty()
    }

    /// Notes that a transaction has begun at this level; `false` if one around it was dropped meanwhile.
    pub(super) fn begun(&mut self, level: usize, id: TransactionId) -> bool {
        let still_inside = self.open.len() == level && !self.owes_rollback(|owed| owed <= level);
        if still_inside {
            self.open.push(id);
        }
        still_inside
    }

    /// Notes that what is open from this level on is over, whatever was owed of it.
    pub(super) fn forget(&mut self, level: usize) {
        self.open.truncate(level);
        self.owed
            .retain(|debt| !matches!(debt, Debt::RollBack(owed) if *owed >= level));
    }

    fn owes_rollback(&self, of: impl Fn(usize) -> bool) -> bool {
        let mut owed = self.owed.iter();
        owed.any(|debt| matches!(debt, Debt::RollBack(level) if of(*level)))
    }

    /// How many transactions are around this one, if it is open.
    pub(super) fn level_of(&self, id: TransactionId) -> Option<usize> {
        self.open.iter().position(|open| *open == id)
    }
}

impl Ledger {
    pub(super) fn entries(&self) -> MutexGuard<'_, Entries> {
        // Nothing in here can panic half-way, so a poisoned ledger is as good as any.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    /// The connection.
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection, DbErr> {
        if self.ledger.entries().given_up {
            return Err(gone());
        }
        self.connection.as_deref_mut().ok_or_else(gone)
    }

    /// Sends text as one message, unprepared.
    pub(super) async fn send(&mut self, sql: &str) -> Result<(), DbErr> {
        let connection = self.connection()?;
        let sent = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
        self.unread = sent.is_err();
        sent.map(drop).map_err(exec_error)
    }

    /// Pays what is owed: first what a dropped future left behind, then what drops asked for.
    pub(super) async fn settle(&mut self) -> Result<(), DbErr> {
        match self.flight {
            Flight::Landed => {}
            Flight::Protocol => return Err(gone()),
            Flight::Body => self.read_answers().await?,
            Flight::Transaction(recovery) => {
                self.read_answers().await?;
                self.recover(recovery).await?;
            }
        }
        loop {
            self.flight = Flight::Landed;
            if self.ledger.entries().owed.is_empty() {
                return self.connection().map(drop);
            }
            self.read_errors().await?;
            let debt = self.ledger.entries().owed.pop_front();
            match debt {
                None => {}
                Some(Debt::RollBack(level)) => self.undo(level).await?,
                Some(Debt::Message(message)) => {
                    // Dropped in here, nobody could tell whether it failed: the session is ended instead.
                    self.flight = Flight::Protocol;
                    // What makes up for its failure comes after it; only a session that ended needs no more.
                    if let Err(error) = self.send(&message).await
                        && is_gone(&error)
                    {
                        self.flight = Flight::Landed;
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Reads every answer that is still to come, so that what follows is surely sent when it is first polled.
    async fn read_answers(&mut self) -> Result<(), DbErr> {
        loop {
            let error = match self.connection()?.ping().await {
                Ok(()) => break,
                Err(error) => exec_error(error),
            };
            // An error of what was dropped is nobody's; each is read once.
            if code(&error).is_none() || is_gone(&error) {
                return Err(error);
            }
        }
        self.unread = false;
        Ok(())
    }

    /// The same before something whose drop in flight must be understood.
    pub(super) async fn read_errors(&mut self) -> Result<(), DbErr> {
        if self.unread {
            self.read_answers().await?;
        }
        Ok(())
    }

    /// Notes that something has been answered.
    pub(super) fn landed<T>(&mut self, answer: sqlx::Result<T>) -> sqlx::Result<T> {
        self.flight = Flight::Landed;
        self.unread = answer.is_err();
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
    pub(super) async fn undo_savepoint(&mut self, level: usize) -> Result<(), DbErr> {
        let name = savepoint(level);
        self.send(&format!(
            "ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"
        ))
        .await
    }

    /// Leaves the connection to its end.
    fn end(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let runtime = self.ledger.runtime.clone();
        match self.flight {
            Flight::Protocol => farewell::say(connection, self.pool.clone(), self.pid, runtime),
            Flight::Landed | Flight::Body | Flight::Transaction(_) => {
                farewell::close(connection, runtime.as_ref());
            }
        }
    }
}

/// Gives the connection back to its pool, if it is as it was.
impl Drop for Wire {
    fn drop(&mut self) {
        let entries = self.ledger.entries();
        let spoilt = entries.given_up || !entries.open.is_empty() || !entries.owed.is_empty();
        drop(entries);
        if spoilt || !matches!(self.flight, Flight::Landed | Flight::Body) {
            self.end();
        } else if let Some(connection) = self.connection.take() {
            let _entered = self.ledger.runtime.as_ref().map(Handle::enter);
            drop(connection);
        }
    }
}

/// A transaction that an outer one has ended.
pub(super) fn over() -> DbErr {
    DbErr::Exec(RuntimeErr::Internal(
        "this transaction is over: the one around it was ended".to_owned(),
    ))
}
