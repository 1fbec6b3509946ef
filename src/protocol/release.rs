//! Giving back a session-level lock.

use std::time::Instant;

use super::{Action, Event, Grant, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::session::{LockReply, SessionError, Statement, StatementKind, TransactionState};
use crate::stand_in::{Attempt, Hold};

/// Gives back one level of a session-level lock: one statement, which does nothing on another session than the one that was
/// granted the lock and nothing inside a transaction that the client does not know of.
///
/// Where the lock may still be held afterwards, the session is condemned.
#[derive(Debug)]
pub(crate) struct Release {
    grant: Grant,
    transaction: TransactionState,
    state: State,
}

#[derive(Debug)]
enum State {
    Beginning,
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
            state: State::Beginning,
        }
    }

    fn begin(&mut self) -> NextAction {
        // Also where there are no locks, so that the mistake shows in a test on SQLite.
        if self.transaction.depth() > self.grant.depth {
            return self.terminate(self.error(LockErrorKind::TransactionLeftOpen));
        }
        let Some(pid) = self.grant.pid else {
            return Action::Done(Ok(()));
        };
        // An inner lock's clean-up may have ended the session, or the client has seen it end.
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
            Ok(LockReply {
                answer: Some(false),
                ..
            }) => Action::Done(Err(self.error(LockErrorKind::NotHeld))),
            Ok(LockReply {
                answer: None, pid, ..
            }) if pid != holder_pid => self.terminate(self.error(LockErrorKind::SessionChanged)),
            Ok(LockReply { answer: None, .. }) => {
                self.terminate(self.error(LockErrorKind::TransactionLeftOpen).with_context(
                    "the lock was taken inside a transaction that the client does not know of",
                ))
            }
            Err(error) if error.is_disconnected() => self.failed(LockErrorKind::Lost, error),
            // A client that hides codes may have hidden that the server has ended the session: the next statement shows it.
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
            error = error.with_context("the lock could not be released, so the session was ended");
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

    fn transition(&mut self, event: Event) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Beginning => self.begin(),
            State::Releasing { pid } => self.on_reply(event.row(), pid),
            State::VerifyingSession(error) => self.on_session_verified(event.row(), error),
            State::Terminating(error) => Action::Done(Err(error)),
            State::Finished => Action::Done(Ok(())),
        }
    }
}

impl Machine for Release {
    type Output = Result<(), LockError>;

    fn attempt(&self) -> Option<&Attempt> {
        self.grant.hold.as_ref().map(Hold::attempt)
    }

    fn handle(&mut self, event: Event, _now: Instant) -> NextAction {
        let action = self.transition(event);
        if let (Action::Done(Err(error)), Some(attempt)) = (&action, self.attempt()) {
            attempt.not_released(error.kind());
        }
        action
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::LockKey;
    use crate::options::LockMode;
    use crate::session::SqlState;

    /// Drives a release whose statements are answered as given, all of which it asks for. The session is condemned.
    fn error_of<const N: usize>(answers: [Result<LockReply, SessionError>; N]) -> LockError {
        let grant = Grant {
            key: LockKey::from("key"),
            mode: LockMode::Exclusive,
            pid: Some(1),
            transaction_began: Some(1),
            depth: 0,
            hold: None,
        };
        let mut release = Release::new(grant, SessionSnapshot::idle());
        let mut answers = answers.into_iter();
        let (mut event, mut condemned) = (Event::Ready, false);
        loop {
            event = match release.handle(event, Instant::now()) {
                Action::Done(result) => {
                    assert!(condemned, "the session was kept");
                    assert_eq!(answers.count(), 0, "not all was asked");
                    return result.unwrap_err();
                }
                Action::Terminate => {
                    condemned = true;
                    Event::Ready
                }
                Action::Query(_) => Event::Row(answers.next().unwrap()),
                other => unreachable!("{other:?}"),
            }
        }
    }

    /// The same where the first statement failed without a code.
    fn kind_after(next: Result<LockReply, SessionError>) -> LockErrorKind {
        error_of([Err(SessionError::new("a code is hidden")), next]).kind()
    }

    /// The server has answered, and that is that.
    #[test]
    fn an_error_with_a_code_is_not_doubted() {
        let refused = SessionError::new("refused").with_code(SqlState::new("42501"));
        let gone = SessionError::new("closed").with_disconnected(true);
        for (error, kind) in [
            (refused, LockErrorKind::Database),
            (gone, LockErrorKind::Lost),
        ] {
            let error = error_of([Err(error)]);
            assert_eq!(error.kind(), kind);
            // Who has lost needs no other reason.
            let explained = error.to_string().contains("so the session was ended");
            assert_eq!(explained, kind == LockErrorKind::Database, "{error}");
        }
    }

    /// Nothing was given back: another session answered, or a transaction that the client does not know of is open.
    #[test]
    fn who_did_not_answer_tells_why() {
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

    /// tokio-postgres may show the server's 57P01 as an error of the statement, which Diesel reports without its code.
    #[test]
    fn a_session_that_ended_unseen_is_lost() {
        let gone = SessionError::new("closed").with_disconnected(true);
        assert_eq!(kind_after(Err(gone)), LockErrorKind::Lost);
    }

    #[test]
    fn a_session_that_lives_on_is_not() {
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
