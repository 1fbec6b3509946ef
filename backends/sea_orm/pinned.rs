//! Pinned connection, which the body's handle, its transactions and its streams share.
//!
//! # Implementation details
//!
//! A pinned connection is a connection of the pool with a transaction log and a clean-up queue.
//!
//! * [`PinnedState`] is the connection itself, with its statement in flight. It is behind an async
//!   mutex, whose waiters are served in order. A stream locks it until its last row is read. A
//!   waiter reads the remaining rows into memory, see [`OpenStream`].
//! * [`TransactionLog`] names the open transactions and the pending clean-up. It is behind a
//!   blocking mutex of its own, because a drop must write to it while another task uses the
//!   connection.
//!
//! Every user locks the state, which first runs the recovery of a dropped statement and the pending
//! clean-up. The drop of a guard or of a transaction adds to the clean-up. It spawns a task that
//! locks the state, so that the clean-up runs soon even if no user follows. The drop of a statement
//! in flight spawns no task. The connection returns to its pool with the last clone, if nothing is
//! in flight, open or pending; else it is closed.
//!
//! No user waits for a reply that never arrives: if the session [stalls](stalled), the connection
//! is closed.

use std::ops::DerefMut;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use super::error::{closed_error, session_error, stalled_error};
use super::open_stream::{OpenStream, StreamReader};
use super::session::postgres_pool;
use super::state::{ClientConnection, InFlight, PinnedState};
use super::statements::{RowResult, rows};
use super::transaction_log::{Cleanup, TransactionId, TransactionLog};
use crate::backends::sqlx::stall::stalled;
use crate::backends::sqlx::terminate::until;
use crate::session::{Backend, QueuedRelease, TransactionState};

/// Longest time to read the remaining rows of a stream that was leaked.
const LEAKED_STREAM_LIMIT: Duration = Duration::from_secs(5);

/// Lock on the connection, for one user at a time.
pub(super) type LockedState<'c> = MutexGuard<'c, PinnedState>;

/// Pinned connection. Clones share the connection.
#[derive(Clone, Debug)]
pub(super) struct SharedConnection {
    state: Arc<AsyncMutex<PinnedState>>,
    log: Arc<TransactionLog>,
    /// Stream that locks the state, if there is one.
    stream: Arc<OpenStream<RowResult>>,
    /// Pool of the connection.
    pub(super) db: DatabaseConnection,
    /// Runtime of the checkout, where the clean-up runs: a drop may happen outside any runtime.
    runtime: Option<Handle>,
}

impl SharedConnection {
    pub(super) fn new(connection: ClientConnection, db: &DatabaseConnection) -> Self {
        let log = Arc::<TransactionLog>::default();
        let state = PinnedState {
            connection: Some(connection),
            in_flight: InFlight::Nothing,
            log: Arc::clone(&log),
        };
        Self {
            state: Arc::new(AsyncMutex::new(state)),
            log,
            stream: Arc::new(OpenStream::new()),
            db: db.clone(),
            runtime: Handle::try_current().ok(),
        }
    }

    /// Returns the backend as the locks see it.
    pub(super) fn lock_backend(&self) -> Backend {
        match postgres_pool(&self.db) {
            Some(_) => Backend::Postgres,
            None => Backend::Sqlite,
        }
    }

    /// Locks the connection and runs its clean-up. Fails if the transaction is not open.
    pub(super) async fn lock(
        &self,
        transaction: Option<TransactionId>,
    ) -> Result<LockedState<'_>, DbErr> {
        self.check_not_closed()?;
        self.lock_and_clean_up(self.state.lock(), transaction).await
    }

    fn check_not_closed(&self) -> Result<(), DbErr> {
        if self.log.lock().closed {
            return Err(closed_error());
        }
        Ok(())
    }

    /// Locks the connection and runs its clean-up, which discards it if it is closed. Fails if the
    /// transaction is not open.
    ///
    /// Closes the connection if its session stalls, or at the limit of a leaked stream.
    async fn lock_and_clean_up<L>(
        &self,
        locking: impl Future<Output = L>,
        transaction: Option<TransactionId>,
    ) -> Result<L, DbErr>
    where
        L: DerefMut<Target = PinnedState>,
    {
        let locked = async {
            let mut state = self.stream.buffer_until(locking).await;
            let cleaned = state.clean_up(|log| {
                log.has_leaked_stream = false;
                transaction.map_or(Ok(0), |id| log.level_of(id))
            });
            cleaned.await??;
            Ok(state)
        };
        let stalled = async {
            match postgres_pool(&self.db) {
                _ if self.log.lock().has_leaked_stream => {
                    futures_timer::Delay::new(LEAKED_STREAM_LIMIT).await;
                }
                Some(pool) => stalled(pool, self.runtime.clone(), || self.log.lock().pid).await,
                // A database without locks does not wait for its client.
                None => future::pending().await,
            }
        };
        let locked = until(stalled, locked).await;
        locked.unwrap_or_else(|| {
            self.close();
            Err(stalled_error())
        })
    }

    /// Runs a statement and returns its rows as they arrive.
    pub(super) async fn stream(
        &self,
        transaction: Option<TransactionId>,
        statement: sea_orm::Statement,
    ) -> Result<StreamReader<RowResult>, DbErr> {
        self.check_not_closed()?;
        // A stream must own its lock, which other users can end. All others borrow the connection:
        // if one is leaked, the last clone still closes the connection.
        let locking = Arc::clone(&self.state).lock_owned();
        let state = self.lock_and_clean_up(locking, transaction).await?;
        Ok(self.stream.start(rows(state, statement)))
    }

    pub(super) fn transaction_state(&self) -> TransactionState {
        let log = self.log.lock();
        if log.closed {
            TransactionState::broken()
        } else {
            TransactionState::open(u32::try_from(log.open.len()).unwrap_or(u32::MAX))
        }
    }

    /// Returns whether a transaction is open.
    pub(super) fn is_open(&self, id: TransactionId) -> bool {
        self.log.lock().level_of(id).is_ok()
    }

    /// Rolls a transaction back in the clean-up, unless it has ended.
    pub(super) fn drop_transaction(&self, id: TransactionId) {
        // `false` after a commit or a rollback, which has removed the id from the log.
        if self.log.lock().drop_transaction(id) {
            self.spawn_cleanup();
        }
    }

    /// Ends the stream of the connection. Returns whether it had unread rows.
    pub(super) fn end_stream(&self) -> bool {
        self.stream.end_with(Err(closed_error()))
    }

    /// Ends the stream that the body has leaked with [`std::mem::forget`], if there is one. The
    /// rest of its rows may take [`LEAKED_STREAM_LIMIT`].
    ///
    /// Called while the body does not run.
    pub(super) fn end_leaked_stream(&self) {
        // A stream of an open transaction may belong to another task. The body's other streams
        // borrow its handle, so they were dropped or leaked.
        if !self.transaction_state().is_open() && self.end_stream() {
            self.log.lock().has_leaked_stream = true;
        }
    }

    /// Enqueues messages before any other statement, and runs them in a task. `release` gets the
    /// reply to the first message.
    ///
    /// Returns `false` if the connection is closed.
    pub(super) fn enqueue(&self, messages: Vec<String>, release: QueuedRelease) -> bool {
        let mut log = self.log.lock();
        if log.closed {
            // Logged outside the mutex, because a subscriber may run any code.
            drop(log);
            release.replied(Err(session_error(closed_error())));
            return false;
        }
        let mut release = Some(release);
        let cleanup = |message| Cleanup::Message(message, release.take());
        log.pending_cleanup
            .extend(messages.into_iter().map(cleanup));
        // The task locks the log, too.
        drop(log);
        self.spawn_cleanup();
        true
    }

    /// Runs the clean-up in a task.
    ///
    /// A runtime that shuts down drops the task. If that drops the last clone of the connection,
    /// the pending clean-up makes the connection close.
    fn spawn_cleanup(&self) {
        // A mock records the end of a transaction at once, without a task.
        if self.db.is_mock_connection()
            && let Ok(mut state) = self.state.try_lock()
            && state.clean_up(|_| ()).now_or_never().is_some()
        {
            return;
        }
        // Without a runtime, the next user of the connection runs the clean-up, or its last clone
        // closes it.
        if let Some(runtime) = &self.runtime {
            let connection = self.clone();
            runtime.spawn(async move {
                // On failure, the connection is closed.
                let _ = connection
                    .lock_and_clean_up(connection.state.lock(), None)
                    .await;
            });
        }
    }

    /// Terminates the session without waiting for it, whatever statement it runs.
    pub(super) fn start_terminate(&self) {
        if !self.close() {
            // A spawned task of the body uses the connection; the clean-up follows it.
            self.spawn_cleanup();
        }
    }

    /// Closes the connection for further statements, ends its stream, and discards it.
    ///
    /// Returns `false` if another task uses the connection. It is discarded then after that task,
    /// with the last clone at the latest.
    fn close(&self) -> bool {
        // Closed first, so that a user who holds the state sends no further statement.
        self.log.lock().closed = true;
        self.end_stream();
        let state = self.state.try_lock();
        state.map(|mut state| state.discard()).is_ok()
    }

    /// Terminates the session if a lock statement was dropped in flight.
    ///
    /// If another task uses the connection, either that task finds the statement in flight, or none
    /// was sent.
    pub(super) fn start_terminate_if_in_flight(&self) {
        if let Ok(mut state) = self.state.try_lock()
            && matches!(state.in_flight, InFlight::LockStatement(_))
        {
            state.discard();
        }
    }
}
