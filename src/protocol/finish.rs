//! End of a transaction with its lock.
//!
//! # Implementation details
//!
//! Compares the depth of the client's transactions with the depth at the grant:
//!
//! | depth | meaning | next |
//! |---|---|---|
//! | equal | the transaction of the lock is the innermost one | commit or rollback |
//! | greater | the body left a transaction open | terminate |
//! | smaller | the body ended the transaction itself | `NotHeld`; nothing is sent |
//!
//! Nothing is sent in the last case, because a commit could end a transaction of the caller.

use std::time::Instant;

use super::{Action, Event, Grant, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};

/// Outcome of the body of a transaction-level lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyOutcome {
    Succeeded,
    Failed,
}

/// Machine that ends the transaction of [`BeginAndAcquire`](super::BeginAndAcquire): commits it if
/// the body succeeded, otherwise rolls it back.
#[derive(Debug)]
pub(crate) struct FinishTransaction {
    grant: Grant,
    outcome: BodyOutcome,
    depth: u32,
    broken: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    Committing,
    RollingBack,
    Terminating(LockError),
    Finished,
}

type NextAction = Action<Result<(), LockError>>;

impl FinishTransaction {
    pub(crate) fn new(grant: Grant, outcome: BodyOutcome, snapshot: SessionSnapshot) -> Self {
        let transaction = snapshot.transaction;
        let (depth, broken) = (transaction.depth(), transaction.is_broken());
        Self {
            grant,
            outcome,
            depth,
            broken,
            state: State::Start,
        }
    }

    /// Returns `true` if the end of the transaction releases the lock. The commit of a savepoint
    /// does not: the outer transaction holds the lock then.
    pub(crate) fn releases(grant: &Grant, outcome: BodyOutcome) -> bool {
        outcome == BodyOutcome::Failed || grant.depth <= 1
    }

    fn error(&self, kind: LockErrorKind) -> LockError {
        LockError::new(kind).with_key(&self.grant.key)
    }

    fn terminate(&mut self, error: LockError) -> NextAction {
        self.state = State::Terminating(error);
        Action::Terminate
    }

    fn start(&mut self) -> NextAction {
        // Checked first: a broken connection reports depth 0, as if the body ended the transaction.
        if self.broken {
            return self.terminate(self.error(LockErrorKind::Lost));
        }
        if self.depth > self.grant.depth {
            return self.terminate(self.error(LockErrorKind::TransactionLeftOpen));
        }
        if self.depth < self.grant.depth {
            // The body ended the transaction. A commit here would end the caller's outer one.
            return Action::Done(Err(self.error(LockErrorKind::NotHeld)));
        }
        match self.outcome {
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

    fn session_pid(&self) -> Option<i32> {
        self.grant.pid
    }

    fn handle(&mut self, event: Event, _now: Instant) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Start => self.start(),
            // The port guarantees that a failed commit ended the transaction, which releases the
            // lock. So there is nothing to roll back or to terminate.
            State::Committing => Action::Done(event.ran().map_err(|error| {
                self.error(LockErrorKind::CommitFailed).with_source(error.into_source())
            })),
            State::RollingBack => match event.ran() {
                Ok(()) => Action::Done(Ok(())),
                Err(error) => self.terminate(
                    self.error(LockErrorKind::Database)
                        .with_context("the rollback of the transaction under the lock failed, so the session was terminated")
                        .with_source(error.into_source()),
                ),
            },
            State::Terminating(error) => Action::Done(Err(error)),
            State::Finished => Action::Done(Ok(())),
        }
    }
}
