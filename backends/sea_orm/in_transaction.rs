//! Transaction-level locks in an open transaction, by shared reference.

use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, RuntimeErr,
    Statement as SeaStatement, Value,
};

use super::error::{query_error, session_error};
use super::handle::PinnedTransaction;
use super::pinned::LockedState;
use super::state::InFlight;
use crate::backends::sqlx::values::decode_row;
use crate::connection::AsyncAdvisoryLocking;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::session::AsyncLockSession;
use crate::session::{Backend, Bind, Row, Script, SessionError, Statement, TransactionState};

/// Longest time that a wait in SeaORM's own transaction stays on the server.
///
/// This crate cannot terminate the session of such a transaction, so the wait of a dropped future
/// lasts that long.
const MAX_SERVER_WAIT: Duration = Duration::from_millis(500);

/// Transaction-level locks inside an open transaction of SeaORM.
///
/// Implemented for [`DatabaseTransaction`] and [`PinnedTransaction`]. The methods take `&self`,
/// because SeaORM code has its transactions by shared reference. A lock is held until the
/// transaction ends. The rollback of a savepoint (a nested transaction) [releases] the locks that
/// were acquired in it.
///
/// For SeaORM only: with the other async clients, [`AsyncAdvisoryLocking`] is on their connections
/// in a transaction, and on their transaction types.
///
/// The server acquires a lock in the innermost transaction that is open on the connection. So do
/// not acquire one with the handle of an outer transaction while a nested one is open: the rollback
/// of the nested one would release it.
///
/// [releases]: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
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
    /// Acquires the transaction-level lock on `key` until the transaction ends.
    ///
    /// # `WaitStrategy::Block` on a `DatabaseTransaction`
    ///
    /// A dropped future cannot end a wait in a [`DatabaseTransaction`]. So with
    /// [`WaitStrategy::Block`](crate::WaitStrategy::Block), each wait on the server lasts half a
    /// second at most, and then starts again at the end of the wait queue:
    ///
    /// * The server does not detect a deadlock among such waits alone. Set a limit.
    /// * After each wait the transaction is aborted until its savepoint is rolled back. Run no
    ///   other statement in it until the call returns.
    ///
    /// # Errors
    ///
    /// The errors of [the method for blocking connections][blocking], and these:
    ///
    /// * [`Unsupported`](LockErrorKind::Unsupported) on a backend other than PostgreSQL and SQLite.
    /// * [`NotInTransaction`](LockErrorKind::NotInTransaction) if an outer transaction of a
    ///   [`PinnedTransaction`] has ended.
    ///
    /// After an error the lock is not held.
    ///
    /// [blocking]: crate::AdvisoryLocking::acquire_advisory_xact_lock
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped between two statements leaves nothing behind. If it is dropped
    /// while a statement is in flight, the transaction may hold the lock or be aborted. Roll it
    /// back then.
    ///
    /// The position in the wait queue is lost. A wait on the server ends within half a second. On a
    /// [`PinnedTransaction`] it ends sooner, because the session is terminated.
    fn acquire_advisory_xact_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<(), LockError>> + Send {
        let key = key.into();
        async move {
            let mut session = self.session(&key)?;
            session.acquire_advisory_xact_lock(key, options).await
        }
    }

    /// Acquires the transaction-level lock on `key`, or returns `false` if it is contended.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](LockErrorKind::Unsupported), and the errors of [the method for blocking
    /// connections][blocking]. After an error the lock is not held.
    ///
    /// [blocking]: crate::AdvisoryLocking::try_acquire_advisory_xact_lock
    ///
    /// # Cancel safety
    ///
    /// As [`acquire_advisory_xact_lock`](Self::acquire_advisory_xact_lock).
    fn try_acquire_advisory_xact_lock(
        &self,
        key: impl Into<LockKey>,
        options: LockOptions,
    ) -> impl Future<Output = Result<bool, LockError>> + Send {
        let key = key.into();
        async move {
            let mut session = self.session(&key)?;
            session.try_acquire_advisory_xact_lock(key, options).await
        }
    }
}

impl AsyncTransactionAdvisoryLocking for DatabaseTransaction {}
impl AsyncTransactionAdvisoryLocking for PinnedTransaction {}

mod sealed {
    use super::{InTransaction, LockError, LockKey};

    /// Seals the trait, so that a later release may add methods.
    #[expect(unnameable_types, reason = "a sealed trait")]
    pub trait Sealed {
        fn session(&self, key: &LockKey) -> Result<InTransaction<'_>, LockError>;
    }
}

impl sealed::Sealed for DatabaseTransaction {
    fn session(&self, key: &LockKey) -> Result<InTransaction<'_>, LockError> {
        // It may be that of a mock, which nothing shows.
        let backend = match self.get_database_backend() {
            DbBackend::Postgres => Backend::Postgres,
            DbBackend::Sqlite => Backend::Sqlite,
            backend => {
                return Err(LockError::new(LockErrorKind::Unsupported)
                    .with_key(key)
                    .with_context(format!("{backend:?} has no advisory locks")));
            }
        };
        Ok(InTransaction::new(OpenTransaction::Caller(self), backend))
    }
}

impl sealed::Sealed for PinnedTransaction {
    fn session(&self, _key: &LockKey) -> Result<InTransaction<'_>, LockError> {
        let backend = self.shared.lock_backend();
        Ok(InTransaction::new(OpenTransaction::Pinned(self), backend))
    }
}

/// Transaction in which the locks are acquired.
#[derive(Clone, Copy, Debug)]
enum OpenTransaction<'t> {
    /// Transaction of a body, on its pinned connection.
    Pinned(&'t PinnedTransaction),
    /// SeaORM's own transaction, on a connection that this crate does not know.
    Caller(&'t DatabaseTransaction),
}

/// Session of an open transaction, which this crate neither begins nor ends.
#[expect(unnameable_types, reason = "in the signature of a sealed trait")]
#[derive(Debug)]
pub struct InTransaction<'t> {
    transaction: OpenTransaction<'t>,
    backend: Backend,
    /// Lock on the connection, from a failed wait to its rollback. The transaction is aborted then,
    /// so no other statement may run.
    after_failed_wait: Option<LockedState<'t>>,
}

impl<'t> InTransaction<'t> {
    const fn new(transaction: OpenTransaction<'t>, backend: Backend) -> Self {
        Self {
            transaction,
            backend,
            after_failed_wait: None,
        }
    }
}

fn not_owner_of_transaction() -> SessionError {
    SessionError::new("only the owner of the transaction begins and ends it")
}

/// Runs a lock statement in a transaction of the caller.
async fn query(
    transaction: &DatabaseTransaction,
    statement: &Statement,
) -> Result<Row, SessionError> {
    let values = statement.binds().map(|bind| match bind {
        Bind::Int4(number) => Ok(Value::from(number)),
        Bind::Int8(number) => Ok(Value::from(number)),
        // A release or a batch of session-level locks, which are not acquired here.
        Bind::Timestamptz(_) | Bind::Int8Array(_) | Bind::Text(_) => {
            Err(SessionError::unsupported(statement))
        }
    });
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let statement = SeaStatement::from_sql_and_values(DbBackend::Postgres, statement.sql(), values);
    let row = transaction.query_one_raw(statement).await;
    let row = row.map_err(session_error)?;
    let Some(row) = row.as_ref().and_then(QueryResult::try_as_pg_row) else {
        let missing = "a lock statement returned no row of PostgreSQL".to_owned();
        return Err(session_error(DbErr::Query(RuntimeErr::Internal(missing))));
    };
    decode_row(row).map_err(|error| session_error(query_error(error)))
}

impl AsyncLockSession for InTransaction<'_> {
    fn session_backend(&mut self) -> Backend {
        self.backend
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        match self.transaction {
            OpenTransaction::Pinned(pinned) if !pinned.shared.is_open(pinned.id) => {
                TransactionState::none()
            }
            OpenTransaction::Pinned(_) | OpenTransaction::Caller(_) => TransactionState::open(1),
        }
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        Err(not_owner_of_transaction())
    }

    async fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
        Err(not_owner_of_transaction())
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        Err(not_owner_of_transaction())
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        match self.transaction {
            OpenTransaction::Pinned(pinned) => {
                let mut state = pinned.lock_in_body().await.map_err(session_error)?;
                state.run_statement(statement).await.map_err(session_error)
            }
            OpenTransaction::Caller(caller) => query(caller, statement).await,
        }
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        let sent = match self.transaction {
            OpenTransaction::Pinned(pinned) => {
                let mut state = match self.after_failed_wait.take() {
                    Some(state) => state,
                    None => pinned.lock_in_body().await.map_err(session_error)?,
                };
                let sent = state.run_script(script).await;
                // The next script rolls the failed wait back. Until then, a statement of another
                // task would fail in the aborted transaction.
                if sent.is_err() && matches!(script, Script::Wait { .. }) {
                    // If the rollback does not follow, the session is terminated.
                    state.in_flight = InFlight::LockStatement(None);
                    self.after_failed_wait = Some(state);
                }
                sent
            }
            OpenTransaction::Caller(caller) => {
                let sent = caller.execute_unprepared(&script.plain_sql()).await;
                sent.map(drop)
            }
        };
        sent.map_err(session_error)
    }

    fn session_mark_broken(&mut self) {
        self.after_failed_wait = None;
        // SeaORM's own transaction has no mark. Its connection fails with the next statement.
        if let OpenTransaction::Pinned(pinned) = self.transaction {
            pinned.shared.start_terminate();
        }
    }

    fn session_start_terminate(&mut self, _pid: Option<i32>) {
        self.after_failed_wait = None;
        // SeaORM's own transaction ends when its owner drops it.
        if let OpenTransaction::Pinned(pinned) = self.transaction {
            pinned.shared.start_terminate_if_in_flight();
        }
    }

    fn session_max_server_wait(&self) -> Option<Duration> {
        // The session of a pinned transaction can be terminated, so its wait needs no such limit.
        matches!(self.transaction, OpenTransaction::Caller(_)).then_some(MAX_SERVER_WAIT)
    }
}
