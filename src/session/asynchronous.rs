//! The port of async clients.

use std::time::{Duration, Instant};

use crate::session::{
    Backend, BatchReply, LockBatch, LockReply, Script, SessionError, SingleOp, Statement,
    TransactionState,
};

/// One database connection of an async client: the twin of [`LockSession`](crate::session::LockSession).
///
/// # Contract
///
/// That of [`LockSession`](crate::session::LockSession), and for futures that are dropped:
///
/// * [`abandon`](Self::session_start_terminate) is called, without a runtime if need be, when a statement of the protocol is dropped half-way. It
///   makes sure that the session ends or frees the lock as soon as the statement in flight has ended, that a wait of ours is ended,
///   and that no pool hands the connection out. It must neither block nor panic.
/// * [`run_later`](Self::session_enqueue) is called when a guard is dropped. It queues the batch behind whatever runs.
/// * After [`condemn`](Self::session_terminate) and [`abandon`](Self::session_start_terminate), [`transaction_state`](Self::session_transaction_state) is
///   [broken](TransactionState::broken). Where a pool's own check cannot be trusted, that decides whether it gets the connection back.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no async advisory locks here",
    label = "no async lock session",
    note = "enable the feature for its client library in Cargo.toml: see feature-matrix.md"
)]
pub trait AsyncLockSession: Send {
    /// Which database this is.
    fn session_backend(&mut self) -> Backend;

    /// What the client knows of the transaction the session is in.
    fn session_transaction_state(&mut self) -> TransactionState;

    /// Begins a transaction, or a savepoint inside one.
    fn session_begin(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Commits what the last [`begin`](Self::session_begin) began; the transaction is over also if that fails.
    fn session_commit(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Rolls back what the last [`begin`](Self::session_begin) began.
    fn session_rollback(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Runs one prepared statement and returns its row.
    fn session_query(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<LockReply, SessionError>> + Send {
        std::future::ready(Err(SessionError::unsupported(statement)))
    }

    /// Runs several statements that return nothing, as one message.
    fn session_execute(
        &mut self,
        batch: &Script,
    ) -> impl Future<Output = Result<(), SessionError>> + Send {
        std::future::ready(Err(SessionError::unsupported(batch)))
    }

    /// Runs one prepared statement about many locks and returns its row; for a `BlockingLockManager`.
    fn session_execute_batch(
        &mut self,
        round: &LockBatch,
    ) -> impl Future<Output = Result<BatchReply, SessionError>> + Send {
        std::future::ready(Err(SessionError::unsupported(round)))
    }

    /// Runs one prepared statement about one lock and returns its only column; for a `BlockingLockManager`. By default, the [`round`](Self::session_execute_batch) that
    /// does the same.
    fn session_execute_single(
        &mut self,
        step: &SingleOp,
    ) -> impl Future<Output = Result<Option<bool>, SessionError>> + Send {
        async {
            self.session_execute_batch(&step.to_round())
                .await
                .map(SingleOp::answer_of)
        }
    }

    /// Ends the session and marks the connection as broken.
    fn session_terminate(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Ends the session without waiting for it, whatever it is doing.
    fn session_start_terminate(&mut self) {}

    /// The same while a [wait of ours](crate::session::ScriptKind::Wait) may be running on the server, which would go on without
    /// its client. By default, [`abandon`](Self::session_start_terminate).
    fn session_cancel_and_terminate(&mut self) {
        self.session_start_terminate();
    }

    /// Queues a batch without waiting for it. `false` if it could not be queued.
    fn session_enqueue(&mut self, _batch: &Script) -> bool {
        false
    }

    /// The longest that a wait may stay on the server at a time, for a session that cannot end one whose future was dropped
    /// ([`abandon_wait`](Self::session_cancel_and_terminate)). A longer wait is asked for again and again, each time at the end of the queue. `None`, the default:
    /// no such bound.
    fn session_max_server_wait(&self) -> Option<Duration> {
        None
    }

    /// The time by which limits are measured; the clock of [`sleep`](Self::session_sleep). Only a test has another than the machine's.
    fn session_now(&mut self) -> Instant {
        Instant::now()
    }

    /// Backoff the task.
    fn session_sleep(&mut self, pause: Duration) -> impl Future<Output = ()> + Send;
}
