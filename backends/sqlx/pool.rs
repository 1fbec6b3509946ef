//! `PgPool`, and the pooled connection that holds a lock: [`PooledPgConnection`].
//!
//! # Implementation details
//!
//! Unlike a [`PgConnection`], the pooled connection knows its pool. So a wait is terminated over a
//! connection with the pool's options, and a reply that never ends is noticed. The connection is
//! closed when the [`PooledPgConnection`] is dropped. Before, the body may still refer to it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

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
    runtime: Option<Handle>,
    /// Process id of the session, once a reply has shown it.
    pid: Option<i32>,
    /// Key of a wait without a reply yet.
    awaited: Option<RawLockKey>,
    /// The body may have sent statements.
    used_by_body: bool,
    end: End,
}

/// End of a checkout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The connection returns to its pool.
    Return,
    /// It returns after the replies to queued messages.
    ReturnAfterReplies,
    /// The session is terminated: the connection is closed.
    Close,
}

impl Checkout {
    /// Ends the checkout, in the runtime of the pool if it has one.
    fn end(self) {
        match (self.end, Handle::try_current()) {
            (End::Return, Ok(_)) if !self.used_by_body => drop(self.connection),
            (End::Return | End::ReturnAfterReplies, Ok(runtime)) => {
                runtime.spawn(self.return_after_replies());
            }
            // The drop of a `PoolConnection` spawns a task, also to close it.
            (End::Close, _) | (_, Err(_)) => drop(self.connection.detach()),
        }
    }

    /// Returns the connection to its pool after the replies. Closes it if they do not come, or if
    /// it is not clean.
    async fn return_after_replies(mut self) {
        if self.drain().await.is_ok() && is_clean(&mut self.connection).await {
            drop(self.connection);
        } else {
            drop(self.connection.detach());
        }
    }

    /// Reads all outstanding replies. Fails if the server waits for the client instead.
    async fn drain(&mut self) -> Result<(), Error> {
        let stalled = stalled(&self.pool, self.runtime.clone(), || self.pid);
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

impl Deref for Checkout {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Checkout {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl PooledPgConnection {
    /// Reads the outstanding replies before a statement of this crate. Closes a connection whose
    /// replies do not come.
    async fn drain(&mut self) -> Result<(), SessionError> {
        let checkout = self.0.get_mut();
        let drained = checkout.drain().await;
        if drained.is_err() {
            checkout.end = End::Close;
        }
        drained.map_err(postgres_error)
    }
}

impl PooledPgConnection {
    /// Lets the connection return to its pool after the replies to the messages that are queued.
    fn expect_replies(&mut self, queued: bool) -> bool {
        let checkout = self.0.get_mut();
        if queued && checkout.end == End::Return {
            checkout.end = End::ReturnAfterReplies;
        }
        queued
    }
}

impl Deref for PooledPgConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

// The adapter itself uses `self.0`.
impl DerefMut for PooledPgConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.get_mut().used_by_body = true;
        &mut self.0
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
        let runtime = Handle::try_current().ok();
        let checkout = Checkout {
            connection,
            pool: self.clone(),
            runtime: runtime.clone(),
            pid: None,
            awaited: None,
            used_by_body: false,
            end: End::Return,
        };
        let bound = RuntimeBound::new(checkout, runtime, Checkout::end);
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
        if self.0.get_ref().end == End::Close {
            return TransactionState::broken();
        }
        transactions::transaction_state(self)
    }

    async fn session_begin(&mut self) -> Result<(), SessionError> {
        self.drain().await?;
        transactions::begin(&mut self.0)
            .await
            .map_err(postgres_error)
    }

    async fn session_commit(&mut self, check: Option<&Script>) -> Result<(), SessionError> {
        self.drain().await?;
        let committed = transactions::commit(&mut self.0, check).await;
        committed.map_err(postgres_error)
    }

    async fn session_rollback(&mut self) -> Result<(), SessionError> {
        self.drain().await?;
        transactions::roll_back(&mut self.0)
            .await
            .map_err(postgres_error)
    }

    async fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
        self.drain().await?;
        let row = connection::query(&mut self.0, statement).await?;
        if let Some(column) = statement.pid_column() {
            self.0.get_mut().pid = row.pid_in(column);
        }
        Ok(row)
    }

    async fn session_execute(&mut self, script: &Script) -> Result<(), SessionError> {
        self.drain().await?;
        self.0.get_mut().awaited = script.awaited_key();
        let executed = connection::execute(&mut self.0, script).await;
        self.0.get_mut().awaited = None;
        executed
    }

    fn session_mark_broken(&mut self) {
        self.0.get_mut().end = End::Close;
    }

    fn session_start_rollback_to(&mut self, depth: u32) -> bool {
        let rolled_back = detached::start_rollback_to(&mut self.0, depth);
        self.expect_replies(rolled_back)
    }

    fn session_start_terminate(&mut self, pid: Option<i32>) {
        detached::start_terminate(&mut self.0, pid);
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
        let queued = detached::queue_all(&mut self.0, &script.messages());
        self.expect_replies(queued)
    }

    async fn session_sleep(&mut self, pause: Duration) {
        futures_timer::Delay::new(pause).await;
    }
}
