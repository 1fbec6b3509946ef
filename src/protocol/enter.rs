//! Beginning a transaction and taking its lock.

use std::time::Instant;

use super::{Acquire, Acquired, Input, Level, Machine, Situation, Step};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::session::{Backend, SessionError};
use crate::stand_in::{Attempt, StandIn};

/// Begins a transaction (or a savepoint in one) and takes a transaction-level lock in it. If the lock is not granted, what was
/// begun is rolled back.
#[derive(Debug)]
pub(crate) struct Enter {
    key: LockKey,
    options: LockOptions,
    backend: Backend,
    stand_in: Option<StandIn>,
    state: State,
}

#[derive(Debug)]
enum State {
    Refused(LockError),
    Ready,
    Beginning,
    Looking,
    Locking(Box<Acquire>),
    RollingBack(Result<Acquired, LockError>),
    Condemning(Result<Acquired, LockError>),
    Finished,
}

type Next = Step<Result<Acquired, LockError>>;

impl Enter {
    pub(crate) fn new(key: LockKey, options: &LockOptions, situation: Situation) -> Self {
        // Nothing is begun for a call that is refused anyway.
        let inside = situation.transaction.deeper();
        let state = match Acquire::check(&key, options, Level::Transaction, inside) {
            Ok(()) => State::Ready,
            Err(error) => State::Refused(error),
        };
        Self {
            key,
            options: *options,
            backend: situation.backend,
            // The lock of a transaction inside another one goes with the other one, whose end is the caller's.
            stand_in: situation.stand_in.map(|stand_in| {
                if inside.depth() == 1 {
                    stand_in.sees_the_end()
                } else {
                    stand_in
                }
            }),
            state,
        }
    }

    /// What the server made of it is unknown. SQLite has no session to end; there, what is open is the caller's own.
    fn did_not_begin(&mut self, error: SessionError) -> Next {
        let error = LockError::new(LockErrorKind::Database)
            .with_key(&self.key)
            .because("the transaction for the lock did not begin")
            .with_source(error.into_source());
        match self.backend {
            Backend::Postgres => {
                self.state = State::Condemning(Err(error));
                Step::Condemn
            }
            Backend::Sqlite => Step::Done(Err(error)),
        }
    }

    fn lock(&mut self, mut acquire: Box<Acquire>, input: Input, now: Instant) -> Next {
        match acquire.step(input, now) {
            Step::Done(Ok(Acquired::Granted(grant))) => Step::Done(Ok(Acquired::Granted(grant))),
            Step::Done(outcome) => {
                self.state = State::RollingBack(outcome);
                Step::Rollback
            }
            step => {
                self.state = State::Locking(acquire);
                step
            }
        }
    }
}

impl Machine for Enter {
    type Output = Result<Acquired, LockError>;

    /// From the begin to the end there is an open transaction, in the pauses too.
    fn owes_clean_up(&self) -> bool {
        matches!(
            self.state,
            State::Looking | State::Locking(_) | State::RollingBack(_)
        )
    }

    fn attempt(&self) -> Option<&Attempt> {
        match &self.state {
            State::Locking(acquire) => acquire.attempt(),
            _ => None,
        }
    }

    fn step(&mut self, input: Input, now: Instant) -> Next {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Refused(error) => Step::Done(Err(error)),
            State::Ready => {
                self.state = State::Beginning;
                Step::Begin
            }
            State::Beginning => match input.ran() {
                Ok(()) => {
                    self.state = State::Looking;
                    Step::Look
                }
                Err(error) => self.did_not_begin(error),
            },
            State::Looking => match input {
                Input::Situation(situation) => {
                    let situation = Situation {
                        stand_in: self.stand_in.take(),
                        ..situation
                    };
                    let acquire = Acquire::new(
                        self.key.clone(),
                        &self.options,
                        Level::Transaction,
                        situation,
                    );
                    self.lock(Box::new(acquire), Input::Ready, now)
                }
                Input::Ready | Input::Row(_) | Input::Ran(_) => {
                    self.state = State::RollingBack(Err(LockError::new(LockErrorKind::Database)
                        .with_key(&self.key)
                        .because("the driver did not look where it was asked to")));
                    Step::Rollback
                }
            },
            State::Locking(acquire) => self.lock(acquire, input, now),
            State::RollingBack(outcome) => match input.ran() {
                Ok(()) => Step::Done(outcome),
                Err(_) => {
                    self.state = State::Condemning(outcome);
                    Step::Condemn
                }
            },
            State::Condemning(outcome) => Step::Done(outcome),
            State::Finished => Step::Done(Err(
                LockError::new(LockErrorKind::Database).with_key(&self.key)
            )),
        }
    }
}
