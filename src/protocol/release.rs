//! Giving back a session-level lock.

use std::time::Instant;

use super::{Grant, Input, Machine, Situation, Step};
use crate::error::{LockError, LockErrorKind};
use crate::session::{Row, SessionError, Statement, StatementKind, TransactionState};

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
    Asked { pid: i32 },
    Condemning(LockError),
    Finished,
}

type Next = Step<Result<(), LockError>>;

impl Release {
    pub(crate) fn new(grant: Grant, situation: Situation) -> Self {
        Self {
            grant,
            transaction: situation.transaction,
            state: State::Beginning,
        }
    }

    fn begin(&mut self) -> Next {
        // Also where there are no locks, so that the mistake shows in a test on SQLite.
        if self.transaction.depth() > self.grant.depth {
            return self.condemn(self.error(LockErrorKind::TransactionLeftOpen));
        }
        let Some(pid) = self.grant.pid else {
            return Step::Done(Ok(()));
        };
        // An inner lock's clean-up may have ended the session, or the client has seen it end.
        if self.transaction.is_broken() {
            return self.condemn(self.error(LockErrorKind::Lost));
        }
        self.state = State::Asked { pid };
        let kind = StatementKind::Release { pid };
        Step::Query(Statement::new(kind, &self.grant.key, self.grant.mode))
    }

    fn answered(&mut self, answer: Result<Row, SessionError>, granted_to: i32) -> Next {
        match answer {
            Ok(Row {
                answer: Some(true), ..
            }) => Step::Done(Ok(())),
            Ok(Row {
                answer: Some(false),
                ..
            }) => Step::Done(Err(self.error(LockErrorKind::NotHeld))),
            Ok(Row { answer: None, pid }) if pid != granted_to => {
                self.condemn(self.error(LockErrorKind::PoolerInBetween))
            }
            Ok(Row { answer: None, .. }) => {
                self.condemn(self.error(LockErrorKind::TransactionLeftOpen).because(
                    "the lock was taken inside a transaction that the client does not know of",
                ))
            }
            Err(error) if error.is_disconnected() => self.condemn(
                self.error(LockErrorKind::Lost)
                    .with_source(error.into_source()),
            ),
            Err(error) => self.condemn(
                self.error(LockErrorKind::Database)
                    .because("the lock could not be released, so the session was ended")
                    .with_source(error.into_source()),
            ),
        }
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_key(&self.grant.key)
    }

    fn condemn(&mut self, error: LockError) -> Next {
        self.state = State::Condemning(error);
        Step::Condemn
    }
}

impl Machine for Release {
    type Output = Result<(), LockError>;

    fn step(&mut self, input: Input, _now: Instant) -> Next {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Beginning => self.begin(),
            State::Asked { pid } => self.answered(input.row(), pid),
            State::Condemning(error) => Step::Done(Err(error)),
            State::Finished => Step::Done(Ok(())),
        }
    }
}
