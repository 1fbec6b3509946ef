//! The port of async clients.

use std::time::{Duration, Instant};

use crate::session::{
    Backend, Batch, Round, RoundRow, Row, SessionError, SingleStep, Statement, TransactionState,
};

/// One database connection of an async client: the twin of [`LockSession`](crate::session::LockSession).
///
/// # Contract
///
/// That of [`LockSession`](crate::session::LockSession), and for futures that are dropped:
///
/// * [`abandon`](Self::abandon) is called, without a runtime if need be, when a statement of the protocol is dropped half-way. It
///   makes sure that the session ends or frees the lock as soon as the statement in flight has ended, that a wait of ours is ended,
///   and that no pool hands the connection out. It must neither block nor panic.
/// * [`run_later`](Self::run_later) is called when a guard is dropped. It queues the batch behind whatever runs.
/// * After [`condemn`](Self::condemn) and [`abandon`](Self::abandon), [`transaction_state`](Self::transaction_state) is
///   [broken](TransactionState::broken). Where a pool's own check cannot be trusted, that decides whether it gets the connection back.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no async advisory locks here",
    label = "no async lock session",
    note = "enable the feature for its client library in Cargo.toml: see feature-matrix.md"
)]
pub trait AsyncLockSession: Send {
    /// Which database this is.
    fn backend(&mut self) -> Backend;

    /// What the client knows of the transaction the session is in.
    fn transaction_state(&mut self) -> TransactionState;

    /// Begins a transaction, or a savepoint inside one.
    fn begin(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Commits what the last [`begin`](Self::begin) began; the transaction is over also if that fails.
    fn commit(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Rolls back what the last [`begin`](Self::begin) began.
    fn rollback(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Runs one prepared statement and returns its row.
    fn query(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<Row, SessionError>> + Send {
        std::future::ready(Err(SessionError::unsupported(statement)))
    }

    /// Runs several statements that return nothing, as one message.
    fn batch(&mut self, batch: &Batch) -> impl Future<Output = Result<(), SessionError>> + Send {
        std::future::ready(Err(SessionError::unsupported(batch)))
    }

    /// Runs one prepared statement about many locks and returns its row; for a `Locker`.
    fn round(
        &mut self,
        round: &Round,
    ) -> impl Future<Output = Result<RoundRow, SessionError>> + Send {
        std::future::ready(Err(SessionError::unsupported(round)))
    }

    /// Runs one prepared statement about one lock and returns its only column; for a `Locker`. By default, the [`round`](Self::round) that
    /// does the same.
    fn single_step(
        &mut self,
        step: &SingleStep,
    ) -> impl Future<Output = Result<Option<bool>, SessionError>> + Send {
        async {
            self.round(&step.to_round())
                .await
                .map(SingleStep::answer_of)
        }
    }

    /// Ends the session and marks the connection as broken.
    fn condemn(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Ends the session without waiting for it, whatever it is doing.
    fn abandon(&mut self) {}

    /// The same while a [wait of ours](crate::session::BatchKind::Wait) may be running on the server, which would go on without
    /// its client. By default, [`abandon`](Self::abandon).
    fn abandon_wait(&mut self) {
        self.abandon();
    }

    /// Queues a batch without waiting for it. `false` if it could not be queued.
    fn run_later(&mut self, _batch: &Batch) -> bool {
        false
    }

    /// The longest that a wait may stay on the server at a time, for a session that cannot end one whose future was dropped
    /// ([`abandon_wait`](Self::abandon_wait)). A longer wait is asked for again and again, each time at the end of the queue. `None`, the default:
    /// no such bound.
    fn longest_wait(&self) -> Option<Duration> {
        None
    }

    /// The time by which limits are measured; the clock of [`sleep`](Self::sleep). Only a test has another than the machine's.
    fn now(&mut self) -> Instant {
        Instant::now()
    }

    /// Pauses the task.
    fn sleep(&mut self, pause: Duration) -> impl Future<Output = ()> + Send;
}
