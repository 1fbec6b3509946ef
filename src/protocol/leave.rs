//! Ending the transaction of a transaction-level lock.

use std::time::Instant;

use super::{Grant, Input, Machine, Situation, Step};
use crate::error::{LockError, LockErrorKind};
use crate::stand_in::{Attempt, Hold};

/// How the body of a transaction-level lock ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    Succeeded,
    Failed,
}

/// Ends the transaction that [`Enter`](super::Enter) began: commits it if the body succeeded, rolls it back if not.
#[derive(Debug)]
pub(crate) struct Leave {
    grant: Grant,
    ending: Ending,
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

type Next = Step<Result<(), LockError>>;

impl Leave {
    pub(crate) fn new(grant: Grant, ending: Ending, situation: Situation) -> Self {
        let transaction = situation.transaction;
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
        Step::Condemn
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
            return Step::Done(Err(self.error(LockErrorKind::NotHeld)));
        }
        match self.ending {
            Ending::Succeeded => {
                self.state = State::Committing;
                Step::Commit
            }
            Ending::Failed => {
                self.state = State::RollingBack;
                Step::Rollback
            }
        }
    }
}

impl Machine for Leave {
    type Output = Result<(), LockError>;

    fn attempt(&self) -> Option<&Attempt> {
        self.grant.hold.as_ref().map(Hold::attempt)
    }

    fn step(&mut self, input: Input, _now: Instant) -> Next {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Beginning => self.begin(),
            State::Committing => Step::Done(input.ran().map_err(|error| {
                self.error(LockErrorKind::CommitFailed).with_source(error.into_source())
            })),
            State::RollingBack => match input.ran() {
                Ok(()) => Step::Done(Ok(())),
                Err(error) => self.condemn(
                    self.error(LockErrorKind::Database)
                        .because("the transaction under the lock could not be rolled back, so the session was ended")
                        .with_source(error.into_source()),
                ),
            },
            State::Condemning(error) => Step::Done(Err(error)),
            State::Finished => Step::Done(Ok(())),
        }
    }
}
