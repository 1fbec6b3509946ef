//! BodyOutcome the transaction of a transaction-level lock.

use std::time::Instant;

use super::{Action, Event, Grant, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::stand_in::{Attempt, Hold};

/// How the body of a transaction-level lock ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyOutcome {
    Succeeded,
    Failed,
}

/// Ends the transaction that [`BeginAndAcquire`](super::BeginAndAcquire) began: commits it if the body succeeded, rolls it back if not.
#[derive(Debug)]
pub(crate) struct FinishTransaction {
    grant: Grant,
    ending: BodyOutcome,
    depth: u32,
    broken: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Beginning,
    Committing,
    RollingBack,
    Condemning(LockError),
    Finished,
}

type Next = Action<Result<(), LockError>>;

impl FinishTransaction {
    pub(crate) fn new(grant: Grant, ending: BodyOutcome, snapshot: SessionSnapshot) -> Self {
        let transaction = snapshot.transaction;
        let (depth, broken) = (transaction.depth(), transaction.is_broken());
        Self {
            grant,
            ending,
            depth,
            broken,
            state: State::Beginning,
        }
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_key(&self.grant.key)
    }

    fn condemn(&mut self, error: LockError) -> Next {
        self.state = State::Condemning(error);
        Action::Terminate
    }

    fn begin(&mut self) -> Next {
        if self.broken {
            return self.condemn(self.error(LockErrorKind::Lost));
        }
        if self.depth > self.grant.depth {
            return self.condemn(self.error(LockErrorKind::TransactionLeftOpen));
        }
        if self.depth < self.grant.depth {
            // The body ended the transaction itself, and the lock with it.
            return Action::Done(Err(self.error(LockErrorKind::NotHeld)));
        }
        match self.ending {
            BodyOutcome::Succeeded => {
                self.state = State::Committing;
                Action::Commit
            }
            BodyOutcome::Failed => {
                self.state = State::RollingBack;
                Action::Rollback
            }
        }
    }
}

impl Machine for FinishTransaction {
    type Output = Result<(), LockError>;

    fn attempt(&self) -> Option<&Attempt> {
        self.grant.hold.as_ref().map(Hold::attempt)
    }

    fn step(&mut self, input: Event, _now: Instant) -> Next {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Beginning => self.begin(),
            State::Committing => Action::Done(input.ran().map_err(|error| {
                self.error(LockErrorKind::CommitFailed).with_source(error.into_source())
            })),
            State::RollingBack => match input.ran() {
                Ok(()) => Action::Done(Ok(())),
                Err(error) => self.condemn(
                    self.error(LockErrorKind::Database)
                        .with_context("the transaction under the lock could not be rolled back, so the session was ended")
                        .with_source(error.into_source()),
                ),
            },
            State::Condemning(error) => Action::Done(Err(error)),
            State::Finished => Action::Done(Ok(())),
        }
    }
}
