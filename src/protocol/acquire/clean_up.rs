//! Clean-up after a failed acquire.
//!
//! # Implementation details
//!
//! Each path ends in [`fail`](Acquire::fail), or in another wait if the limit of the call has not
//! passed. One of these comes before:
//!
//! * The server replied that the session does not hold the lock.
//! * One level was released.
//! * The session was terminated.
//! * A rollback to the savepoint released the transaction-level lock.
//! * An attempt for a transaction-level lock failed. The end of the caller's aborted transaction
//!   releases it.
//! * The caller's transaction was aborted before the attempt, so the server did not run it.
//! * Another session replied. A session that this connection cannot reach may hold the lock then.

use std::time::Duration;

use super::{Acquire, NextAction, State};
use crate::backends::postgres;
use crate::error::{LockError, LockErrorKind};
use crate::options::LockScope;
use crate::protocol::Action;
use crate::session::{LockReply, Script, SessionError, StatementKind};

impl Acquire {
    /// Handles the error of a statement that does not wait for the lock.
    pub(super) fn on_try_failed(&mut self, source: SessionError) -> NextAction {
        let (has_ended, hides_sqlstate) = (source.is_disconnected(), source.code().is_none());
        let kind = postgres::classify_attempt(source.code());
        let error = self.error_of(kind, source);
        // The end of the session released the lock. Termination marks the connection as broken, so
        // that the pool discards it.
        if has_ended {
            return self.terminate(error);
        }
        match (self.scope, self.in_transaction) {
            // The server did not run the statement, and the caller rolls its transaction back. The
            // session may hold other locks.
            (LockScope::Session, true) if kind == LockErrorKind::TransactionAborted => {
                self.fail(error)
            }
            // Diesel hides the SQLSTATE of an aborted transaction, so any such error may be that.
            (LockScope::Transaction, _) if kind == LockErrorKind::Database => {
                self.fail(error.with_kind(LockErrorKind::TransactionAborted))
            }
            (LockScope::Session, false) if hides_sqlstate => {
                self.state = State::RevealingError(error);
                Action::Script(Script::RevealSqlState {
                    key: self.key.raw(),
                    mode: self.options.mode,
                })
            }
            _ => self.clean_up_after_try(error),
        }
    }

    pub(super) fn clean_up_after_try(&mut self, error: LockError) -> NextAction {
        match (self.scope, self.in_transaction) {
            // The end of the transaction releases the lock.
            (LockScope::Transaction, _) => self.fail(error),
            // An aborted transaction accepts no query, and its rollback keeps session-level locks.
            (LockScope::Session, true) => self.terminate(error),
            (LockScope::Session, false) => self.check_for_leak(error),
        }
    }

    /// Handles the error of a wait on the server.
    pub(super) fn on_wait_failed(&mut self, source: SessionError) -> NextAction {
        let has_ended = source.is_disconnected();
        let error = self.error_of(postgres::classify(source.code()), source);
        if has_ended {
            return self.terminate(error);
        }
        if !self.in_transaction {
            return self.clean_up_after_wait(error);
        }
        // The error aborted the transaction, which accepts no other statement before the rollback
        // to the savepoint of the wait.
        self.state = State::RollingBackWait(error);
        Action::Script(Script::RollBackWait)
    }

    pub(super) fn clean_up_after_wait(&mut self, error: LockError) -> NextAction {
        match (self.scope, error.kind()) {
            // The rollback to the savepoint released the lock.
            (LockScope::Transaction, _) => self.on_wait_cleaned_up(error),
            // The server may grant the lock at the moment of the time-out, 55P03, or deadlock.
            (LockScope::Session, LockErrorKind::TimedOut | LockErrorKind::Deadlock) => {
                self.release_if_held(self.pid, error)
            }
            (LockScope::Session, _) => self.check_for_leak(error),
        }
    }

    /// Releases one level of the lock if the session `pid` holds it. A pooler may send the
    /// statement to another session, which may hold the lock for another client.
    pub(super) fn release_if_held(&mut self, pid: Option<i32>, error: LockError) -> NextAction {
        self.state = State::ReleasingIfHeld(error);
        self.query(StatementKind::ReleaseIfHeld { pid })
    }

    pub(super) fn on_released_if_held(
        &mut self,
        answer: Result<LockReply, SessionError>,
        error: LockError,
    ) -> NextAction {
        let context = "the clean-up after a wait failed, so the session was terminated";
        match answer {
            // The session that waited may hold the lock, and this one cannot release it. Or the
            // error is `SessionChanged`, and this is the session that was granted the lock.
            Ok(row) if self.is_other_session(row) => {
                self.fail(self.error(LockErrorKind::SessionChanged))
            }
            // Null: `pg_locks` does not show the lock, as after an ordinary timeout.
            Ok(LockReply {
                answer: Some(true) | None,
                ..
            }) => self.on_wait_cleaned_up(error),
            // `pg_locks` shows the lock, but the release finds none: the two contradict each other.
            Ok(LockReply {
                answer: Some(false),
                ..
            }) => self.terminate(self.error(LockErrorKind::Database).with_context(context)),
            Err(source) => self.terminate_after(source, context),
        }
    }

    /// Continues after a completed clean-up: waits again if time is left, otherwise fails.
    ///
    /// The server's limit may be shorter than the limit of the call.
    /// [`lock_timeout`](https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT)
    /// is at most `i32::MAX` ms (24.8 days), and the session may bound it further.
    pub(super) fn on_wait_cleaned_up(&mut self, error: LockError) -> NextAction {
        let remaining = self.remaining();
        let again = match remaining {
            Some(remaining) => remaining > Duration::ZERO,
            None => self.max_server_wait.is_some(),
        };
        if again && error.kind() == LockErrorKind::TimedOut {
            self.wait_on_server(remaining)
        } else {
            self.fail(error)
        }
    }

    pub(super) fn check_for_leak(&mut self, error: LockError) -> NextAction {
        self.state = State::CheckingForLeak(error);
        self.query(StatementKind::IsHeld)
    }

    pub(super) fn on_leak_check(
        &mut self,
        answer: Result<LockReply, SessionError>,
        error: LockError,
    ) -> NextAction {
        match answer {
            Ok(row) if self.is_other_session(row) => {
                self.fail(self.error(LockErrorKind::SessionChanged))
            }
            Ok(LockReply {
                answer: Some(false),
                ..
            }) => self.fail(error),
            // `pg_locks` shows the lock, or the check failed. The level may belong to the
            // application, so it cannot be released here.
            Ok(_) | Err(_) => self.terminate(error),
        }
    }

    /// Returns `true` if the reply came from another session, which knows nothing of this one.
    fn is_other_session(&self, row: LockReply) -> bool {
        self.pid.is_some_and(|pid| pid != row.pid)
    }

    pub(super) fn terminate(&mut self, error: LockError) -> NextAction {
        self.state = State::Terminating(error);
        Action::Terminate
    }

    /// Terminates the session because a statement of the clean-up failed.
    pub(super) fn terminate_after(
        &mut self,
        source: SessionError,
        context: &'static str,
    ) -> NextAction {
        let error = self.error_of(postgres::classify_attempt(source.code()), source);
        self.terminate(error.with_context(context))
    }

    /// Reports the error. The session holds no lock of this call, or is terminated, except:
    ///
    /// * A transaction-level lock may be held until the end of the aborted transaction.
    /// * After `SessionChanged`, another session of a pooler may hold the lock.
    pub(super) fn fail(&mut self, error: LockError) -> NextAction {
        self.state = State::Finished;
        Action::Done(Err(match error.kind() {
            LockErrorKind::TimedOut => self.timed_out(),
            _ => error,
        }))
    }
}
