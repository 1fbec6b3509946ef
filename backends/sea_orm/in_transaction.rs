//! Transaction-level locks in the transactions that SeaORM code has, which it has by shared reference.

use std::time::Duration;

use sea_orm::{DatabaseTransaction, DbBackend, Statement as SeaStatement, Value};

use tokio::sync::MutexGuard;

use super::error::session_error;
use super::executor::Executor;
use super::handle::PinnedTransaction;
use super::pinned::PinnedState;
use crate::backends::postgres::TerminateSequence;
use crate::connection::AsyncAdvisoryLocking;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::session::AsyncLockSession;
use crate::session::{
    Backend, Bind, LockReply, Script, ScriptKind, SessionError, Statement, TransactionState,
};

/// SeaORM's transaction cannot be ended from outside while it waits, so it does not wait for longer than this at a time: that long may
/// a wait whose future was dropped go on.
const MAX_SERVER_WAIT: Duration = Duration::from_millis(500);

/// Transaction-level locks inside a transaction of SeaORM's, by shared reference, as SeaORM code has it.
///
/// For [`DatabaseTransaction`] and [`PinnedTransaction`]. The lock is held until the transaction ends; a savepoint that is rolled back
/// (a nested transaction) gives up the locks taken in it.
///
/// # Examples
///
/// A webhook that is delivered twice creates its order once:
///
/// ```
/// use advisory_locking::{AsyncTransactionAdvisoryLocking, LockOptions};
/// use sea_orm::{DatabaseConnection, DbErr, TransactionTrait};
///
/// async fn create_once(db: &DatabaseConnection, order: &str) -> Result<(), DbErr> {
///     let tx = db.begin().await?;
///     tx.acquire_advisory_xact_lock(("order", order), LockOptions::wait_forever()).await?;
///     // look whether the order is there, and insert it if not
///     tx.commit().await
/// }
/// # #[tokio::main]
/// # async fn main() -> Result<(), DbErr> {
/// #     let db = sea_orm::Database::connect("sqlite::memory:").await?;
/// #     create_once(&db, "17").await
/// # }
/// ```
pub trait AsyncTransactionAdvisoryLocking: Sync + sealed::Sealed {
    /// Takes the transaction-level lock on `key` until the transaction ends.
    ///
    /// With [`WaitStrategy::Block`](crate::WaitStrategy::Block) on a [`DatabaseTransaction`], the wait is asked for again every half
    /// second, each time at the end of the queue, because nothing could end it if this future were dropped. So the server does not
    /// find a deadlock among waits of this kind alone: give them a limit. And in between the transaction is aborted for a moment: run
    /// nothing else in it meanwhile.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::acquire_advisory_xact_lock`](crate::AdvisoryLocking::acquire_advisory_xact_lock); the lock is not held
    /// then. [`Unsupported`](LockErrorKind::Unsupported) on a backend that has neither locks nor the no-op.
    /// [`NotInTransaction`](LockErrorKind::NotInTransaction) if a [`PinnedTransaction`] is over because the one around it ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped between two statements, it leaves nothing behind. Dropped while one is in flight, the transaction may have the lock or
    /// may be aborted, and should be rolled back; a wait on the server ends within half a second (on a [`PinnedTransaction`] at once,
    /// with its connection). The place in the queue is lost.
    fn acquire_advisory_xact_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Takes the transaction-level lock on `key` if it can be had; `false` if not.
    ///
    /// # Errors
    ///
    /// As [`AdvisoryLocking::try_acquire_advisory_xact_lock`](crate::AdvisoryLocking::try_acquire_advisory_xact_lock), and
    /// [`Unsupported`](LockErrorKind::Unsupported); the lock is not held then.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock).
    fn try_acquire_advisory_xact_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<bool, LockError>> + Send;
}

mod sealed {
    /// Methods may be added to the trait.
    #[expect(unnameable_types, reason = "so that nobody else implements it")]
    pub trait Sealed {}
}

macro_rules! in_transaction {
    ($($transaction:ty: $executor:expr;)*) => {$(
        impl sealed::Sealed for $transaction {}

        impl AsyncTransactionAdvisoryLocking for $transaction {
            fn acquire_advisory_xact_lock(
                &self,
                key: impl Into<LockKey>,
                options: LockOptions,
            ) -> impl Future<Output = Result<(), LockError>> + Send {
                let key = key.into();
                async move {
                    let mut session = InTransaction::new(($executor)(self), &key)?;
                    session.acquire_advisory_xact_lock(key, options).await
                }
            }

            fn try_acquire_advisory_xact_lock(
                &self,
                key: impl Into<LockKey>,
                options: LockOptions,
            ) -> impl Future<Output = Result<bool, LockError>> + Send {
                let key = key.into();
                async move {
                    let mut session = InTransaction::new(($executor)(self), &key)?;
                    session.try_acquire_advisory_xact_lock(key, options).await
                }
            }
        }
    )*};
}
in_transaction! {
    DatabaseTransaction: |transaction| Executor::Transaction(transaction, None);
    PinnedTransaction: PinnedTransaction::executor;
}

/// The session of an open transaction, in which nothing is begun or ended.
#[derive(Debug)]
struct InTransaction<'t> {
    executor: Executor<'t>,
    backend: Backend,
    /// Kept between a wait that failed and its rollback: in between, the transaction is aborted.
    state: Option<MutexGuard<'t, PinnedState>>,
}

impl<'t> InTransaction<'t> {
    fn new(executor: Executor<'t>, key: &LockKey) -> Result<Self, LockError> {
        let backend = match executor.backend() {
            DbBackend::Postgres => Backend::Postgres,
            DbBackend::Sqlite => Backend::Sqlite,
            backend => {
                return Err(LockError::new(LockErrorKind::Unsupported)
                    .with_key(key)
                    .with_context(format!("{backend:?} has no such locks")));
            }
        };
        Ok(Self {
            executor,
            backend,
            state: None,
        })
    }
}

fn not_owner_of_transaction() -> SessionError {
    SessionError::new("the transaction is its owner's to begin and to end")
}

impl AsyncLockSession for InTransaction<'_> {
    fn session_backend(&mut self) -> Backend {
        self.backend
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        match self.executor {
            Executor::Postgres(pinned, Some(id)) if !pinned.is_open(id) => TransactionState::none(),
            Executor::Ended => TransactionState::none(),
            _ => TransactionState::open(1),
        }
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        Err(not_owner_of_transaction())
    }

    async fn session_commit(&mut self) -> Result<(), SessionError> {
        Err(not_owner_of_transaction())
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        Err(not_owner_of_transaction())
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<LockReply, SessionError> {
        match self.executor {
            Executor::Postgres(pinned, id) => pinned.query(id, statement).await,
            executor => {
                let values = statement.binds().map(|bind| match bind {
                    Bind::Int4(number) => Ok(Value::from(number)),
                    Bind::Int8(number) => Ok(Value::from(number)),
                    // Only the release of a session-level lock has one, and there is none here.
                    Bind::Timestamptz(_) => Err(SessionError::unsupported(statement)),
                });
                let values = values.collect::<Result<Vec<_>, _>>()?;
                let statement =
                    SeaStatement::from_sql_and_values(executor.backend(), statement.sql(), values);
                executor.query_row(statement).await
            }
        }
        .map_err(session_error)
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        let sql = script.sql();
        match self.executor {
            Executor::Postgres(pinned, id) => {
                let kept = self.state.take();
                let mut state = match kept {
                    Some(state) => state,
                    None => pinned.lock_in(id).await.map_err(session_error)?,
                };
                let sent = state.run_script(&sql).await;
                if sent.is_err() && matches!(script.kind(), ScriptKind::Wait { .. }) {
                    self.state = Some(state);
                }
                sent
            }
            executor => executor.execute_unprepared(&sql).await.map(drop),
        }
        .map_err(session_error)
    }

    async fn session_terminate(&mut self) {
        match self.executor {
            Executor::Postgres(pinned, _) => {
                self.state = None;
                pinned.terminate().await;
            }
            executor => {
                let (mut sequence, mut last) = (TerminateSequence::default(), None);
                while let Some(sql) = sequence.next(last) {
                    let sent = executor.execute_unprepared(sql).await;
                    last = Some(sent.map(drop).map_err(session_error));
                }
            }
        }
    }

    fn session_start_terminate(&mut self) {
        let kept = self.state.take().is_some();
        match self.executor {
            // In an aborted transaction that nobody will lead out of it.
            Executor::Postgres(pinned, _) if kept => pinned.start_terminate(),
            Executor::Postgres(pinned, _) => pinned.start_terminate_if_in_flight(),
            // SeaORM's own transaction ends when its owner drops it.
            Executor::Connection(..) | Executor::Transaction(..) | Executor::Ended => {}
        }
    }

    fn session_max_server_wait(&self) -> Option<Duration> {
        match self.executor {
            Executor::Postgres(..) => None,
            Executor::Connection(..) | Executor::Transaction(..) | Executor::Ended => {
                Some(MAX_SERVER_WAIT)
            }
        }
    }

    async fn session_sleep(&mut self, pause: Duration) {
        futures_timer::Delay::new(pause).await;
    }
}
