//! The port of async clients.

use std::time::{Duration, Instant};

use futures_timer::Delay;

use crate::error::LockErrorKind;
use crate::session::{
    Backend, QueuedRelease, Row, Script, SessionError, Statement, TransactionState,
};

/// Database connection of an async client; the async form of
/// [`LockSession`](crate::session::LockSession).
///
/// # Contract
///
/// The contract of [`LockSession`](crate::session::LockSession), and for dropped futures:
///
/// * [`session_start_terminate`](Self::session_start_terminate) ensures that the session ends as
///   soon as the statement in flight has ended, and that no pool hands the connection out. It
///   neither blocks nor panics, and it may be called outside a runtime. Its callers:
///   * the driver, if a future is dropped with a statement in flight or in a transaction of the
///     crate, and in the pooler check;
///   * the transaction scope of an async body that panics or is dropped;
///   * a guard that is dropped in a transaction, or whose messages cannot be queued;
///   * a session of a lock manager that is dropped before its end.
/// * Only [`session_cancel_and_terminate`](Self::session_cancel_and_terminate) cancels a wait. The
///   driver calls it instead if the future of a wait is dropped in flight. The wait has to end
///   soon, because the server would still grant the lock to it.
/// * A dropped guard calls [`session_enqueue_release`](Self::session_enqueue_release), which queues
///   the messages behind the statement in flight.
/// * After [`session_mark_broken`](Self::session_mark_broken) and
///   [`session_start_terminate`](Self::session_start_terminate) the
///   [transaction state](Self::session_transaction_state) is [broken](TransactionState::broken). A
///   pool whose own check is not reliable uses that to discard the connection.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no async advisory locks here",
    label = "no async lock session"
)]
#[cfg_attr(
    not(feature = "diesel-async-postgres"),
    diagnostic::on_unimplemented(
        note = "`AsyncPgConnection` needs the feature `diesel-async-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "deadpool-postgres"),
    diagnostic::on_unimplemented(
        note = "a client of deadpool-postgres needs the feature `deadpool-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "tokio-postgres"),
    diagnostic::on_unimplemented(
        note = "tokio-postgres's `Client` needs the feature `tokio-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "diesel-async-sqlite"),
    diagnostic::on_unimplemented(
        note = "`SyncConnectionWrapper` needs the feature `diesel-async-sqlite`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "sqlx-postgres"),
    diagnostic::on_unimplemented(
        note = "sqlx's `PgConnection` needs the feature `sqlx-postgres`, which is off"
    )
)]
#[cfg_attr(
    not(feature = "sqlx-sqlite"),
    diagnostic::on_unimplemented(
        note = "sqlx's `SqliteConnection` needs the feature `sqlx-sqlite`, which is off"
    )
)]
pub trait AsyncLockSession: Send {
    /// Returns the database.
    fn session_backend(&mut self) -> Backend;

    /// Returns the client's view of the session's transaction.
    fn session_transaction_state(&mut self) -> TransactionState;

    /// Returns whether the client knows, without I/O, that the session has ended.
    ///
    /// The guard's [`is_lost`](crate::AsyncAdvisoryLockGuard::is_lost) returns it. A lock manager
    /// calls it on idle sessions that hold locks, so that holders learn of the loss before the next
    /// statement. `false` is no proof that the session lives. The default returns whether the
    /// [transaction state](Self::session_transaction_state) is
    /// [broken](TransactionState::broken).
    fn session_has_ended(&mut self) -> bool {
        self.session_transaction_state().is_broken()
    }

    /// Waits for the rollbacks of dropped transactions, so that the
    /// [transaction state](Self::session_transaction_state) is exact. The default does nothing.
    ///
    /// For a client that performs them on another thread. It is called before a request, and after
    /// a body.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point, and the session stays as it is.
    fn session_await_rollbacks(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Begins a transaction, or a savepoint inside one.
    ///
    /// # Errors
    ///
    /// As the client reports them.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point; the driver then terminates the session. The same
    /// holds for the other futures of this trait, except
    /// [`session_await_rollbacks`](Self::session_await_rollbacks) and
    /// [`session_sleep`](Self::session_sleep).
    ///
    /// A query of a [`Statement::Report`] or [`Statement::Identity`] is an exception, too: the
    /// session stays in use, so the next statement must not receive the reply of the dropped one.
    fn session_begin(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Begins a transaction and runs a prepared statement in it.
    ///
    /// The default sends one after the other.
    ///
    /// # Errors
    ///
    /// As [`LockSession::session_begin_and_query`][blocking].
    ///
    /// [blocking]: crate::session::LockSession::session_begin_and_query
    fn session_begin_and_query(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<Result<Row, SessionError>, SessionError>> + Send {
        async move {
            self.session_begin().await?;
            Ok(self.session_query(statement).await)
        }
    }

    /// Commits the innermost transaction or savepoint that
    /// [`session_begin`](Self::session_begin) began, after a check in the same message.
    ///
    /// # Errors
    ///
    /// As [`LockSession::session_commit`](crate::session::LockSession::session_commit).
    fn session_commit(
        &mut self,
        check: Option<&Script>,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Rolls back the innermost transaction or savepoint that
    /// [`session_begin`](Self::session_begin) began.
    ///
    /// # Errors
    ///
    /// As the client reports them.
    fn session_rollback(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Runs a prepared statement and returns its row.
    ///
    /// # Errors
    ///
    /// As the client reports them, with the SQLSTATE if the client shows it.
    fn session_query(
        &mut self,
        statement: &Statement,
    ) -> impl Future<Output = Result<Row, SessionError>> + Send {
        std::future::ready(Err(SessionError::unsupported(statement)))
    }

    /// Runs statements that return nothing, as one message.
    ///
    /// # Errors
    ///
    /// As [`LockSession::session_execute`](crate::session::LockSession::session_execute).
    fn session_execute(
        &mut self,
        script: &Script,
    ) -> impl Future<Output = Result<(), SessionError>> + Send {
        std::future::ready(Err(SessionError::unsupported(script)))
    }

    /// Marks the connection as broken, after the crate has sent the scripts that
    /// [terminate](crate::session::Script::Terminate) the session.
    fn session_mark_broken(&mut self);

    /// Starts the rollback of the transactions and savepoints above `depth`, also with a statement
    /// in flight. Returns before they have ended.
    ///
    /// `depth` is the number of transactions that the caller itself has begun. Returns `true` if a
    /// rollback is queued, which is the whole clean-up then: it releases a transaction-level lock.
    /// After `false`, the default, the driver calls
    /// [`session_start_terminate`](Self::session_start_terminate).
    ///
    /// It is not called if the end of a transaction was dropped in flight, or a begin without a
    /// query. The driver then terminates the session. It is called if a
    /// [`session_begin_and_query`](Self::session_begin_and_query) was dropped. An implementation
    /// returns `false` if the begin has not succeeded.
    fn session_start_rollback_to(&mut self, _depth: u32) -> bool {
        false
    }

    /// Starts the termination of the session, also with a statement in flight, and marks the
    /// connection as broken. Returns before the session has ended.
    ///
    /// `pid` is the process id of the session, if a reply has shown it. Another session, to which a
    /// pooler may route the statements, is not terminated then.
    fn session_start_terminate(&mut self, pid: Option<i32>);

    /// Terminates the session as [`session_start_terminate`](Self::session_start_terminate) does,
    /// and cancels the [wait](crate::session::Script::Wait) in flight.
    ///
    /// The server would continue the wait without its client. The default does not cancel.
    fn session_cancel_and_terminate(&mut self, pid: Option<i32>) {
        self.session_start_terminate(pid);
    }

    /// Queues a script without waiting for it. Returns `false` if that failed.
    fn session_enqueue(&mut self, _script: &Script) -> bool {
        false
    }

    /// Queues the script of a dropped guard as [`session_enqueue`](Self::session_enqueue) does, and
    /// logs the result.
    ///
    /// The default does not know the reply. An adapter that reads it passes it to `release`.
    fn session_enqueue_release(&mut self, script: &Script, release: QueuedRelease) -> bool {
        let queued = self.session_enqueue(script);
        if queued {
            release.unread();
        } else {
            release.failed(LockErrorKind::Lost);
        }
        queued
    }

    /// Returns the longest time that one wait may stay on the server. `None`, the default: no
    /// bound.
    ///
    /// For a session that cannot
    /// [cancel](Self::session_cancel_and_terminate) a wait whose future was dropped. A longer wait
    /// is repeated, each time at the end of the server's queue.
    fn session_max_server_wait(&self) -> Option<Duration> {
        None
    }

    /// Returns the current time, by the clock of [`session_sleep`](Self::session_sleep). It
    /// measures the limits of waits. Only tests replace the clock of the operating system.
    fn session_now(&mut self) -> Instant {
        Instant::now()
    }

    /// Pauses the task.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point, and the session stays as it is.
    fn session_sleep(&mut self, pause: Duration) -> impl Future<Output = ()> + Send {
        // Unlike tokio's timer, this one also works on a thread without a runtime.
        Delay::new(pause)
    }
}

/// Lets other tasks run once.
#[cfg(any(feature = "lock-manager", feature = "testing"))]
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
