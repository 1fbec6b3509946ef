//! Release of a session-level lock.
//!
//! # Implementation details
//!
//! One statement releases one level. It compares the process id and, outside a known transaction,
//! the transaction start with those of the grant. It does nothing on another session, because that
//! could release a lock of another client of the pooler. It does nothing in the transaction of the
//! grant if the client does not know of that transaction. A release before the commit would break
//! mutual exclusion. If the lock may still be held afterwards, the session is terminated.

use std::time::Instant;

use super::{Action, Event, Grant, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::session::{LockReply, SessionError, Statement, StatementKind, TransactionState};

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
    Releasing { pid: i32 },
    VerifyingSession(SessionError),
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
        // The clean-up of an inner lock may have terminated the session, or the client saw it end.
        if self.transaction.is_broken() {
            return self.terminate(self.error(LockErrorKind::Lost));
        }
        self.state = State::Releasing { pid };
        let kind = StatementKind::Release {
            pid,
            transaction_began: self.grant.transaction_began,
        };
        Action::Query(Statement::new(kind, &self.grant.key, self.grant.mode))
    }

    fn on_reply(&mut self, answer: Result<LockReply, SessionError>, holder_pid: i32) -> NextAction {
        match answer {
            Ok(LockReply {
                answer: Some(true), ..
            }) => Action::Done(Ok(())),
            // The session lives and does not hold the lock, so its connection stays usable.
            Ok(LockReply {
                answer: Some(false),
                ..
            }) => Action::Done(Err(self.error(LockErrorKind::NotHeld))),
            Ok(LockReply {
                answer: None, pid, ..
            }) if pid != holder_pid => self.terminate(self.error(LockErrorKind::SessionChanged)),
            Ok(LockReply { answer: None, .. }) => {
                self.terminate(self.error(LockErrorKind::TransactionLeftOpen).with_context(
                    "the lock was acquired inside a transaction that the client does not know of",
                ))
            }
            Err(error) if error.is_disconnected() => self.failed(LockErrorKind::Lost, error),
            // The client hides the SQLSTATE, and with it perhaps the end of the session. A second
            // statement shows it.
            Err(error) if error.code().is_none() => {
                self.state = State::VerifyingSession(error);
                Action::Query(Statement::new(
                    StatementKind::IsHeld,
                    &self.grant.key,
                    self.grant.mode,
                ))
            }
            Err(error) => self.failed(LockErrorKind::Database, error),
        }
    }

    fn on_session_verified(
        &mut self,
        answer: Result<LockReply, SessionError>,
        error: SessionError,
    ) -> NextAction {
        let ended = answer.is_err_and(|next| next.is_disconnected());
        self.failed(
            if ended {
                LockErrorKind::Lost
            } else {
                LockErrorKind::Database
            },
            error,
        )
    }

    fn failed(&mut self, kind: LockErrorKind, source: SessionError) -> NextAction {
        let mut error = self.error(kind).with_source(source.into_source());
        if kind == LockErrorKind::Database {
            error =
                error.with_context("the release statement failed, so the session was terminated");
        }
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

    fn handle(&mut self, event: Event, _now: Instant) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Start => self.start(),
            State::Releasing { pid } => self.on_reply(event.row(), pid),
            State::VerifyingSession(error) => self.on_session_verified(event.row(), error),
            State::Terminating(error) => Action::Done(Err(error)),
            State::Finished => Action::Done(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::LockKey;
    use crate::options::LockMode;
    use crate::session::SqlState;

    /// Drives a release with scripted replies, all of which are consumed. The session is
    /// terminated.
    fn error_of<const N: usize>(answers: [Result<LockReply, SessionError>; N]) -> LockError {
        let grant = Grant {
            key: LockKey::from("key"),
            mode: LockMode::Exclusive,
            pid: Some(1),
            transaction_began: Some(1),
            depth: 0,
            #[cfg(feature = "testing")]
            attachment: None,
        };
        let mut release = Release::new(grant, SessionSnapshot::idle());
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
                    terminated = true;
                    Event::Ready
                }
                Action::Query(_) => Event::Row(answers.next().unwrap()),
                other => unreachable!("{other:?}"),
            }
        }
    }

    /// Returns the kind of the error after a first statement that failed without SQLSTATE.
    fn kind_after(next: Result<LockReply, SessionError>) -> LockErrorKind {
        error_of([Err(SessionError::new("a code is hidden")), next]).kind()
    }

    #[test]
    fn error_with_a_code_is_final() {
        let refused = SessionError::new("refused").with_code(SqlState::new("42501"));
        let gone = SessionError::new("closed").with_disconnected(true);
        for (error, kind) in [
            (refused, LockErrorKind::Database),
            (gone, LockErrorKind::Lost),
        ] {
            let error = error_of([Err(error)]);
            assert_eq!(error.kind(), kind);
            // A lost session needs no further explanation.
            let explained = error.to_string().contains("so the session was terminated");
            assert_eq!(explained, kind == LockErrorKind::Database, "{error}");
        }
    }

    /// NULL means not released: another session replied, or an unknown transaction is open.
    #[test]
    fn null_answer_is_classified_by_pid() {
        for (pid, kind) in [
            (1, LockErrorKind::TransactionLeftOpen),
            (2, LockErrorKind::SessionChanged),
        ] {
            let row = LockReply {
                answer: None,
                pid,
                transaction_began: 1,
            };
            assert_eq!(error_of([Ok(row)]).kind(), kind);
        }
    }

    /// tokio-postgres may report 57P01 as an error of the statement, and Diesel hides that
    /// SQLSTATE.
    #[test]
    fn session_that_ended_unseen_is_lost() {
        let gone = SessionError::new("closed").with_disconnected(true);
        assert_eq!(kind_after(Err(gone)), LockErrorKind::Lost);
    }

    #[test]
    fn living_session_is_not_lost() {
        let row = LockReply {
            answer: Some(true),
            pid: 1,
            transaction_began: 2,
        };
        assert_eq!(kind_after(Ok(row)), LockErrorKind::Database);
        assert_eq!(
            kind_after(Err(SessionError::new("refused"))),
            LockErrorKind::Database
        );
    }
}
