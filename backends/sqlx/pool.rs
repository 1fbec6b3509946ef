//! `PgPool`, and the pooled connection that holds a lock: [`PooledPgConnection`].
//!
//! # Implementation details
//!
//! Unlike a [`PgConnection`], the pooled connection knows its pool. So a wait is terminated over a
//! connection with the pool's options, and a reply that never ends is noticed. The connection is
//! closed when the [`PooledPgConnection`] is dropped. Before, the body may still refer to it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use ::sqlx::pool::PoolConnection;
use ::sqlx::{Error, PgConnection, PgPool, Postgres};
use tokio::runtime::Handle;

use super::error::{postgres_error, stalled_error};
use super::stall::stalled;
use super::statements::{drain, fetch_unprepared};
use super::{connection, detached, terminate, transactions};
use crate::backends::RuntimeBound;
use crate::backends::postgres::BEGAN_WITH_THIS_MESSAGE;
use crate::key::RawLockKey;
use crate::session::{
    AsyncLockPool, AsyncLockSession, Backend, Cell, Row, Script, SessionError, Statement,
    TransactionState,
};

/// Pooled PostgreSQL connection of sqlx that holds a lock, as the body of a pool's method gets it.
///
/// It dereferences to [`PgConnection`], as sqlx's own [`PoolConnection`] does. Pass it to a
/// function that takes `&mut PgConnection`, or pass `&mut **conn` to a query.
///
/// # Examples
///
/// ```no_run
/// use advisory_locking::backends::sqlx::PooledPgConnection;
/// use advisory_locking::{AsyncPooledAdvisoryLocking, LockOptions};
/// use sqlx::{Connection, PgPool};
///
/// async fn sync(conn: &mut PooledPgConnection) -> sqlx::Result<()> {
///     let mut tx = conn.begin().await?;
///     sqlx::query("SELECT 1").execute(&mut *tx).await?;
///     tx.commit().await
/// }
///
/// # async fn run(pool: PgPool) -> sqlx::Result<()> {
/// pool.with_advisory_lock("sync-prices", LockOptions::no_wait(), sync).await
/// # }
/// ```
pub struct PooledPgConnection(RuntimeBound<Checkout>);

/// Connection that is checked out of a pool.
struct Checkout {
    connection: PoolConnection<Postgres>,
    pool: PgPool,
    /// Process id of the session, once a reply has shown it.
    pid: Option<i32>,
    /// Key of a wait without a reply yet.
    awaited: Option<RawLockKey>,
    /// The body, or a queued message, may have left a reply or a transaction behind.
    is_used: bool,
    /// The session is terminated, so its connection is closed.
    is_broken: bool,
}

impl Checkout {
    /// Ends the checkout, in the runtime of the pool if it has one.
    fn end(self) {
        match Handle::try_current() {
            Ok(runtime) if self.is_used && !self.is_broken => {
                runtime.spawn(self.return_after_replies());
            }
            Ok(_) if !self.is_broken => drop(self.connection),
            // The drop of a `PoolConnection` spawns a task, also to close it.
            Ok(_) | Err(_) => drop(self.connection.detach()),
        }
    }

    /// Returns the connection to its pool after the replies. Closes it if they do not come, or if
    /// it is not clean.
    async fn return_after_replies(mut self) {
        let drained = self.drain(Handle::try_current().ok()).await;
        if drained.is_ok() && is_clean(&mut self.connection).await {
            drop(self.connection);
        } else {
            drop(self.connection.detach());
        }
    }

    /// Reads all outstanding replies. Fails if the server waits for the client instead.
    async fn drain(&mut self, runtime: Option<Handle>) -> Result<(), Error> {
        let stalled = stalled(&self.pool, runtime, || self.pid);
        let drained = terminate::until(stalled, drain(&mut self.connection)).await;
        drained.unwrap_or_else(|| Err(stalled_error()))
    }
}

/// Returns whether no transaction is open, and the next reply is that to the next statement.
///
/// sqlx 0.9.0 does not count a `begin` that was dropped in flight, nor the reply to a `COPY … FROM
/// STDIN` whose `PgCopyIn` was dropped.
async fn is_clean(connection: &mut PgConnection) -> bool {
    // Not the reply to a statement of the body.
    let nonce = fastrand::i64(..);
    let sql = format!("SELECT '{nonce}'::pg_catalog.int8, {BEGAN_WITH_THIS_MESSAGE}");
    let row = fetch_unprepared(connection, sql).await;
    let [nonce, yes] = [nonce, 1].map(Cell::Number);
    row.is_ok_and(|row| row == Row::new([nonce, yes, Cell::Null, Cell::Null]))
}

impl PooledPgConnection {
    /// Returns the connection for a statement of this crate, after the outstanding replies. Closes
    /// a connection whose replies do not come.
    async fn drained(&mut self) -> Result<&mut PgConnection, SessionError> {
        let runtime = self.0.runtime().cloned();
        let checkout = self.0.get_mut();
        let drained = checkout.drain(runtime).await;
        checkout.is_broken |= drained.is_err();
        drained.map_err(postgres_error)?;
        Ok(&mut checkout.connection)
    }
}

impl Deref for PooledPgConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0.get_ref().connection
    }
}

// The adapter itself uses the connection of `self.0`.
impl DerefMut for PooledPgConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        let checkout = self.0.get_mut();
        checkout.is_used = true;
        &mut checkout.connection
    }
}

impl AsRef<PgConnection> for PooledPgConnection {
    fn as_ref(&self) -> &PgConnection {
        self
    }
}

// sqlx's own lock, `PgAdvisoryLock`, takes a connection by this trait.
impl AsMut<PgConnection> for PooledPgConnection {
    fn as_mut(&mut self) -> &mut PgConnection {
        self
    }
}

impl fmt::Debug for PooledPgConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PooledPgConnection")
            .finish_non_exhaustive()
    }
}

impl AsyncLockPool for PgPool {
    type Session = PooledPgConnection;
    // Boxed, because `Connection` must dereference to `Session`.
    type Connection = Box<PooledPgConnection>;

    async fn checkout(&self) -> Result<Self::Connection, SessionError> {
        let connection = self.acquire().await.map_err(SessionError::new)?;
        let checkout = Checkout {
            connection,
            pool: self.clone(),
            pid: None,
            awaited: None,
            is_used: false,
            is_broken: false,
        };
        let bound = RuntimeBound::current(checkout, Checkout::end);
        Ok(Box::new(PooledPgConnection(bound)))
    }

    async fn closed(&self) {
        self.close_event().await;
    }
}

impl AsyncLockSession for PooledPgConnection {
    fn session_backend(&mut self) -> Backend {
        Backend::Postgres
    }

    fn session_transaction_state(&mut self) -> TransactionState {
        if self.0.get_ref().is_broken {
            return TransactionState::broken();
        }
        transactions::transaction_state(self)
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        let conn = self.drained().await?;
        transactions::begin(conn).await.map_err(postgres_error)
    }

    async fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        let conn = self.drained().await.map_err(SessionError::before_commit)?;
        transactions::commit(conn, check).await
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        let conn = self.drained().await?;
        transactions::roll_back(conn).await.map_err(postgres_error)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        let row = connection::query(self.drained().await?, statement).await?;
        if let Some(column) = statement.pid_column() {
            self.0.get_mut().pid = row.pid_in(column);
        }
        Ok(row)
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.drained().await?;
        let checkout = self.0.get_mut();
        checkout.awaited = script.awaited_key();
        let executed = connection::execute(&mut checkout.connection, script).await;
        checkout.awaited = None;
        executed
    }

    fn session_mark_broken(&mut self) {
        self.0.get_mut().is_broken = true;
    }

    fn session_start_rollback_to(&mut self, depth: u32) -> bool {
        let checkout = self.0.get_mut();
        let queued = detached::start_rollback_to(&mut checkout.connection, depth);
        checkout.is_used |= queued;
        queued
    }

    fn session_start_terminate(&mut self, pid: Option<i32>) {
        detached::start_terminate(&mut self.0.get_mut().connection, pid);
        self.session_mark_broken();
    }

    fn session_cancel_and_terminate(&mut self, pid: Option<i32>) {
        self.session_start_terminate(pid);
        let checkout = self.0.get_ref();
        if let (Some(pid), Some(awaited)) = (pid, checkout.awaited) {
            let pool = checkout.pool.clone();
            terminate::spawn(pool, pid, awaited, self.0.runtime().cloned());
        }
    }

    fn session_enqueue(&mut self, script: &Script) -> bool {
        let checkout = self.0.get_mut();
        let queued = detached::queue_all(&mut checkout.connection, &script.messages());
        checkout.is_used |= queued;
        queued
    }
}
