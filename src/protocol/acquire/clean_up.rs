//! What follows a failure, so that nothing is held that the caller does not know of.

use std::time::{Duration, Instant};

use super::failure::Failure;
use super::{Acquire, Acquired, Next, State};
use crate::error::LockErrorKind;
use crate::options::LockScope;
use crate::protocol::Action;
use crate::session::{LockReply, ScriptKind, SessionError, StatementKind, TransactionContext};

impl Acquire {
    /// A statement that does not wait failed, or answered what it never should.
    pub(super) fn try_failed(&mut self, mut failure: Failure) -> Next {
        if failure.session_ended() {
            return self.condemn(failure);
        }
        match (self.level, self.place) {
            // The failed statement has aborted the transaction, whose end frees the lock.
            (LockScope::Transaction, _) => {
                if failure.kind == LockErrorKind::Database && failure.source.is_some() {
                    failure.kind = LockErrorKind::TransactionAborted;
                }
                self.fail(failure)
            }
            // In an aborted transaction nothing can be asked, and rolling it back would not free the lock.
            (LockScope::Session, TransactionContext::InTransaction) => self.condemn(failure),
            (LockScope::Session, TransactionContext::Autocommit) if failure.is_obscure() => {
                self.state = State::Diagnosing(failure);
                self.batch(ScriptKind::RevealSqlState)
            }
            (LockScope::Session, TransactionContext::Autocommit) => self.look_for_leak(failure),
        }
    }

    /// The server's wait ended with an error.
    pub(super) fn wait_failed(&mut self, error: SessionError, now: Instant) -> Next {
        let failure = Failure::from_session(error);
        if failure.session_ended() {
            return self.condemn(failure);
        }
        match self.place {
            TransactionContext::InTransaction => {
                self.state = State::RollingBackWait(failure);
                self.batch(ScriptKind::RollBackWait)
            }
            TransactionContext::Autocommit => self.clean_up_wait(failure, now),
        }
    }

    pub(super) fn clean_up_wait(&mut self, failure: Failure, now: Instant) -> Next {
        match (self.level, failure.kind) {
            // The savepoint took it along.
            (LockScope::Transaction, _) => self.ended_wait(failure, now),
            (LockScope::Session, LockErrorKind::TimedOut | LockErrorKind::Deadlock) => {
                self.give_back(failure)
            }
            (LockScope::Session, _) => self.look_for_leak(failure),
        }
    }

    pub(super) fn give_back(&mut self, failure: Failure) -> Next {
        self.state = State::GivingBack(failure);
        self.query(StatementKind::ReleaseIfHeld)
    }

    pub(super) fn gave_back(
        &mut self,
        answer: Result<LockReply, SessionError>,
        failure: Failure,
        now: Instant,
    ) -> Next {
        let because = "the clean-up after a wait failed, so the session was ended";
        match answer {
            // The wait may have taken the lock on the session that it ran on, and this one cannot give it back.
            Ok(row) if self.is_elsewhere(row) && failure.kind != LockErrorKind::SessionChanged => {
                self.fail(Failure::new(LockErrorKind::SessionChanged))
            }
            Ok(LockReply {
                answer: Some(true) | None,
                ..
            }) => self.ended_wait(failure, now),
            Ok(LockReply {
                answer: Some(false),
                ..
            }) => self.condemn(Failure::new(LockErrorKind::Database).with_context(because)),
            Err(error) => self.condemn(Failure::from_statement(error).with_context(because)),
        }
    }

    /// Nothing of the wait is left. The server's limit may have been shorter than ours: it knows none above 24.8 days, and a
    /// session may have a shorter one.
    pub(super) fn ended_wait(&mut self, failure: Failure, now: Instant) -> Next {
        let remaining = self.remaining(now);
        let again = match remaining {
            Some(remaining) => remaining > Duration::ZERO,
            None => self.longest_wait.is_some(),
        };
        if again && failure.kind == LockErrorKind::TimedOut {
            self.wait_on_server(remaining)
        } else {
            self.fail(failure)
        }
    }

    pub(super) fn look_for_leak(&mut self, failure: Failure) -> Next {
        self.state = State::LookingForLeak(failure);
        self.query(StatementKind::IsHeld)
    }

    pub(super) fn looked_for_leak(
        &mut self,
        answer: Result<LockReply, SessionError>,
        failure: Failure,
    ) -> Next {
        match answer {
            Ok(row) if self.is_elsewhere(row) => {
                self.fail(Failure::new(LockErrorKind::SessionChanged))
            }
            Ok(LockReply {
                answer: Some(false),
                ..
            }) => self.fail(failure),
            Ok(_) | Err(_) => self.condemn(failure),
        }
    }

    /// Whether another session answered than the one that was tried: what it shows says nothing of that one.
    fn is_elsewhere(&self, row: LockReply) -> bool {
        self.pid.is_some_and(|pid| pid != row.pid)
    }

    pub(super) fn condemn(&mut self, failure: Failure) -> Next {
        self.state = State::Condemning(failure);
        Action::Terminate
    }

    /// Nothing is held and the session is in order, or condemned.
    pub(super) fn fail(&mut self, failure: Failure) -> Next {
        self.state = State::Finished;
        Action::Done(match failure.kind {
            LockErrorKind::TimedOut => Ok(Acquired::TimedOut),
            _ => Err(failure.into_error(&self.key)),
        })
    }
}
