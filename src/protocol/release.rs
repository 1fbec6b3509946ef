//! Release of a session-level lock.
//!
//! # Implementation details
//!
//! One statement releases one level. It compares the process id and, outside a known transaction,
//! the transaction start with those of the grant. It does nothing on another session, because that
//! could release a lock of another client of the pooler. It does nothing in the transaction of the
//! grant, or in one that has written, if the client does not know of that transaction. A release
//! before the commit would break mutual exclusion. If the lock may still be held afterwards, the
//! session is terminated.
//!
//! An error of that statement has two questions: does the session still hold the lock, and did the
//! statement run? A second release, for a process id that no session has, answers the latter.
//!
//! ```text
//! Releasing ── error ── Retrying ──┬── success: the first one was interrupted ── Database
//!                                  ├── cancelled: nothing learned ── Database
//!                                  └── error: it cannot run ── RollingBack ── CheckingIfHeld
//! CheckingIfHeld ──┬── held: until now ── Database
//!                  └── not held: another statement released it ── NotHeld
//! ```
//!
//! `DISCARD ALL` in a body is such a case: it deallocates the prepared release statement, and
//! releases the lock.

use std::time::Instant;

use super::{Action, Event, Grant, Machine, SessionSnapshot};
use crate::backends::postgres;
use crate::error::{LockError, LockErrorKind};
use crate::session::{LockReply, Script, SessionError, Statement, StatementKind, TransactionState};

/// Process id that no session has. A release for it does nothing.
const NO_PID: i32 = 0;

/// Machine that releases one level of a session-level lock.
#[derive(Debug)]
pub(crate) struct Release {
    grant: Grant,
    transaction: TransactionState,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    Releasing,
    Retrying(SessionError),
    RollingBack(SessionError),
    CheckingIfHeld(SessionError),
    Terminating(LockError),
    Finished,
}

type NextAction = Action<Result<(), LockError>>;

impl Release {
    pub(crate) fn new(grant: Grant, snapshot: SessionSnapshot) -> Self {
        Self {
            grant,
            transaction: snapshot.transaction,
            state: State::Start,
        }
    }

    fn start(&mut self) -> NextAction {
        // Also checked on backends without locks, so that tests on SQLite find the mistake.
        if self.transaction.depth() > self.grant.depth {
            return self.terminate(self.error(LockErrorKind::TransactionLeftOpen));
        }
        let Some(pid) = self.grant.pid else {
            return Action::Done(Ok(()));
        };
        // Also on a connection that the client marked as broken: only the session knows whether it
        // has ended.
        self.state = State::Releasing;
        self.query_release(pid)
    }

    fn query_release(&self, pid: i32) -> NextAction {
        self.query(StatementKind::Release {
            pid,
            transaction_began: self.grant.transaction_began,
        })
    }

    fn query(&self, kind: StatementKind) -> NextAction {
        Action::Query(Statement::new(kind, &self.grant.key, self.grant.mode))
    }

    /// Returns whether a reply came from another session than that of the grant.
    fn is_other_session(&self, row: LockReply) -> bool {
        self.grant.pid != Some(row.pid)
    }

    fn on_reply(&mut self, answer: Result<LockReply, SessionError>) -> NextAction {
        match answer {
            Ok(LockReply {
                answer: Some(true), ..
            }) => Action::Done(Ok(())),
            // The session lives and does not hold the lock, so its connection stays usable.
            Ok(LockReply {
                answer: Some(false),
                ..
            }) => Action::Done(Err(self.error(LockErrorKind::NotHeld))),
            Ok(row) if self.is_other_session(row) => {
                self.terminate(self.error(LockErrorKind::SessionChanged))
            }
            Ok(LockReply { answer: None, .. }) => {
                self.terminate(self.error(LockErrorKind::TransactionLeftOpen).with_context(
                    "the session is in a transaction that the client does not know of",
                ))
            }
            Err(error) if error.is_disconnected() => self.failed(LockErrorKind::Lost, error),
            Err(error) => {
                self.state = State::Retrying(error);
                self.query_release(NO_PID)
            }
        }
    }

    fn on_retried(
        &mut self,
        answer: Result<LockReply, SessionError>,
        error: SessionError,
    ) -> NextAction {
        match answer {
            Ok(row) if self.is_other_session(row) => {
                self.failed(LockErrorKind::SessionChanged, error)
            }
            // The statement can run here. So the first one was interrupted, perhaps after it had
            // released the lock.
            Ok(_) => self.failed(LockErrorKind::Database, error),
            Err(next) if next.is_disconnected() => self.failed(LockErrorKind::Lost, error),
            // Another cancel request hit this one too, and says nothing about the first one.
            Err(next) if postgres::classify(next.code()) == LockErrorKind::Canceled => {
                self.failed(LockErrorKind::Database, error)
            }
            // The statement cannot run here, so the first one released nothing.
            Err(_) => {
                self.state = State::RollingBack(error);
                // An aborted transaction accepts no query, and its rollback keeps the lock.
                Action::Script(Script::RollBackTransaction)
            }
        }
    }

    fn on_rolled_back(
        &mut self,
        result: Result<(), SessionError>,
        error: SessionError,
    ) -> NextAction {
        if result.is_err_and(|next| next.is_disconnected()) {
            return self.failed(LockErrorKind::Lost, error);
        }
        self.state = State::CheckingIfHeld(error);
        self.query(StatementKind::IsHeld)
    }

    fn on_checked(
        &mut self,
        answer: Result<LockReply, SessionError>,
        error: SessionError,
    ) -> NextAction {
        let kind = match answer {
            Ok(row) if self.is_other_session(row) => LockErrorKind::SessionChanged,
            Ok(LockReply {
                answer: Some(false),
                ..
            }) => LockErrorKind::NotHeld,
            Err(next) if next.is_disconnected() => LockErrorKind::Lost,
            Ok(_) | Err(_) => LockErrorKind::Database,
        };
        self.failed(kind, error)
    }

    fn failed(&mut self, kind: LockErrorKind, source: SessionError) -> NextAction {
        let mut error = self.error(kind);
        if kind == LockErrorKind::Database {
            error = error.with_context(
                postgres::hint(source.code())
                    .unwrap_or("the release statement failed, so the session was terminated"),
            );
        }
        let error = error.with_source(source.into_source());
        self.terminate(error)
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_key(&self.grant.key)
    }

    fn terminate(&mut self, error: LockError) -> NextAction {
        self.state = State::Terminating(error);
        Action::Terminate
    }
}

impl Machine for Release {
    type Output = Result<(), LockError>;

    fn session_pid(&self) -> Option<i32> {
        self.grant.pid
    }

    fn handle(&mut self, event: Event, _now: Instant) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Start => self.start(),
            State::Releasing => self.on_reply(event.row()),
            State::Retrying(error) => self.on_retried(event.row(), error),
            State::RollingBack(error) => self.on_rolled_back(event.ran(), error),
            State::CheckingIfHeld(error) => self.on_checked(event.row(), error),
            State::Terminating(error) => Action::Done(Err(error)),
            State::Finished => Action::Done(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{ServerSigns, SqlState};

    /// Drives a release with scripted replies, all of which are consumed. The session is
    /// terminated.
    fn error_of<const N: usize>(answers: [Result<LockReply, SessionError>; N]) -> LockError {
        let mut release = Release::new(Grant::of_session(Some(1), 0), SessionSnapshot::idle());
        let mut answers = answers.into_iter();
        let (mut event, mut terminated) = (Event::Ready, false);
        loop {
            event = match release.handle(event, Instant::now()) {
                Action::Done(result) => {
                    assert!(terminated, "the session was not terminated");
                    assert_eq!(answers.count(), 0, "replies were left over");
                    return result.unwrap_err();
                }
                Action::Terminate => {
                    // Any other process id is that of another session, or of none.
                    assert_eq!(release.session_pid(), Some(1));
                    terminated = true;
                    Event::Ready
                }
                Action::Query(_) => Event::Row(answers.next().unwrap()),
                Action::Script(_) => Event::Ran(answers.next().unwrap().map(drop)),
                other => unreachable!("{other:?}"),
            }
        }
    }

    fn refused() -> SessionError {
        SessionError::new("refused")
    }

    fn disconnected() -> SessionError {
        SessionError::new("closed").with_disconnected(true)
    }

    fn row(answer: Option<bool>, pid: i32) -> LockReply {
        LockReply {
            answer,
            pid,
            transaction_began: 2,
            server_signs: ServerSigns::NONE,
        }
    }

    #[test]
    fn release_on_an_ended_session_is_lost() {
        let error = error_of([Err(disconnected())]);
        assert_eq!(error.kind(), LockErrorKind::Lost);
        // A lost session needs no further explanation.
        assert!(!error.to_string().contains("the release statement"));
        // tokio-postgres may report 57P01 as an error of the statement, and Diesel hides that
        // SQLSTATE. A later statement shows it.
        for error in [
            error_of([Err(refused()), Err(disconnected())]),
            error_of([Err(refused()), Err(refused()), Err(disconnected())]),
            error_of([
                Err(refused()),
                Err(refused()),
                Ok(row(None, 1)),
                Err(disconnected()),
            ]),
        ] {
            assert_eq!(error.kind(), LockErrorKind::Lost);
        }
    }

    /// A statement that was interrupted may have released the lock, so the table of locks says
    /// nothing about the time before.
    #[test]
    fn interrupted_release_is_a_database_error() {
        let cancelled = || SessionError::new("cancelled").with_code(SqlState::new("57014"));
        for answers in [
            [Err(refused()), Ok(row(None, 1))],
            [Err(cancelled()), Ok(row(None, 1))],
            [Err(cancelled()), Err(cancelled())],
        ] {
            let error = error_of(answers);
            assert_eq!(error.kind(), LockErrorKind::Database);
            assert!(error.to_string().contains("the session was terminated"));
        }
    }

    #[test]
    fn lost_release_statement_is_explained() {
        let lost = SessionError::new("lost").with_code(SqlState::new("26000"));
        let message = error_of([Err(lost), Ok(row(None, 1))]).to_string();
        assert!(message.contains("prepared statement"), "{message}");
    }

    #[test]
    fn release_that_cannot_run_checks_if_held() {
        let cannot_run = |rolled_back, checked| {
            error_of([Err(refused()), Err(refused()), rolled_back, checked]).kind()
        };
        let rolled_back = || Ok(row(None, 1));
        for (checked, kind) in [
            (Ok(row(Some(false), 1)), LockErrorKind::NotHeld),
            (Ok(row(Some(true), 1)), LockErrorKind::Database),
            (Ok(row(Some(false), 2)), LockErrorKind::SessionChanged),
            (Err(refused()), LockErrorKind::Database),
        ] {
            assert_eq!(cannot_run(rolled_back(), checked), kind);
        }
        // A rollback that is refused ends nothing that matters here.
        let kind = cannot_run(Err(refused()), Ok(row(Some(false), 1)));
        assert_eq!(kind, LockErrorKind::NotHeld);
    }

    #[test]
    fn release_retried_by_another_session_is_reported() {
        let error = error_of([Err(refused()), Ok(row(None, 2))]);
        assert_eq!(error.kind(), LockErrorKind::SessionChanged);
    }

    /// NULL means not released: another session replied, or an unknown transaction is open.
    #[test]
    fn null_answer_is_classified_by_pid() {
        for (pid, kind) in [
            (1, LockErrorKind::TransactionLeftOpen),
            (2, LockErrorKind::SessionChanged),
        ] {
            assert_eq!(error_of([Ok(row(None, pid))]).kind(), kind);
        }
    }

    /// A `BEGIN` as plain text may precede the request of the lock.
    #[test]
    fn unknown_transaction_is_not_said_to_begin_under_the_lock() {
        let message = error_of([Ok(row(None, 1))]).to_string();
        assert!(message.contains("the client does not know of"), "{message}");
        assert!(!message.contains("under the lock"), "{message}");
    }
}
