//! Begin of a transaction with its lock.
//!
//! # Implementation details
//!
//! Begins a transaction, or a savepoint inside one, and runs an [`Acquire`] in it. If the lock is
//! not granted, the transaction is rolled back. If the result of `BEGIN` or of the rollback is
//! unknown, the session is terminated.

use std::time::Instant;

use super::{Acquire, Acquired, Action, Event, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::options::LockScope;
use crate::session::{Backend, SessionError};

/// Machine that begins a transaction and acquires a transaction-level lock in it.
#[derive(Debug)]
pub(crate) struct BeginAndAcquire {
    key: LockKey,
    options: LockOptions,
    backend: Backend,
    provides_exclusion: bool,
    /// Process id of the session, once the acquire has ended.
    pid: Option<i32>,
    state: State,
}

#[derive(Debug)]
enum State {
    Rejected(LockError),
    Ready,
    Beginning,
    ReadingSnapshot,
    Acquiring(Box<Acquire>),
    RollingBack(Result<Acquired, LockError>),
    Terminating(Result<Acquired, LockError>),
    Finished,
}

type NextAction = Action<Result<Acquired, LockError>>;

impl BeginAndAcquire {
    pub(crate) fn new(key: LockKey, options: &LockOptions, snapshot: SessionSnapshot) -> Self {
        // Checked before the begin, and not only by the machine that acquires: a call that is
        // rejected anyway begins no transaction.
        let inside = snapshot.transaction.nested();
        let state = match Acquire::check(&key, options, LockScope::Transaction, inside) {
            Ok(()) => State::Ready,
            Err(error) => State::Rejected(error),
        };
        Self {
            key,
            options: *options,
            backend: snapshot.backend,
            provides_exclusion: snapshot.provides_exclusion,
            pid: None,
            state,
        }
    }

    /// Handles a failed begin, whose effect is unknown. SQLite has no session to terminate.
    fn on_begin_failed(&mut self, error: SessionError) -> NextAction {
        let error = LockError::new(LockErrorKind::Database)
            .with_key(&self.key)
            .with_context("the transaction for the lock did not begin")
            .with_source(error.into_source());
        match self.backend {
            Backend::Postgres => {
                self.state = State::Terminating(Err(error));
                Action::Terminate
            }
            Backend::Sqlite => Action::Done(Err(error)),
        }
    }

    fn acquire(&mut self, mut acquire: Box<Acquire>, event: Event, now: Instant) -> NextAction {
        match acquire.handle(event, now) {
            Action::Done(Ok(Acquired::Granted(grant))) => {
                Action::Done(Ok(Acquired::Granted(grant)))
            }
            // The caller gets no guard to end the transaction with, so the machine ends it.
            Action::Done(outcome) => {
                self.pid = acquire.session_pid();
                self.state = State::RollingBack(outcome);
                Action::Rollback
            }
            action => {
                self.state = State::Acquiring(acquire);
                action
            }
        }
    }
}

impl Machine for BeginAndAcquire {
    type Output = Result<Acquired, LockError>;

    fn session_pid(&self) -> Option<i32> {
        match &self.state {
            State::Acquiring(acquire) => acquire.session_pid(),
            _ => self.pid,
        }
    }

    // A transaction is open from `BEGIN` on, also during pauses.
    fn needs_cleanup_if_dropped(&self) -> bool {
        matches!(
            self.state,
            State::ReadingSnapshot | State::Acquiring(_) | State::RollingBack(_)
        )
    }

    fn handle(&mut self, event: Event, now: Instant) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Rejected(error) => Action::Done(Err(error)),
            State::Ready => {
                self.state = State::Beginning;
                Action::Begin
            }
            State::Beginning => match event.ran() {
                // The begin changed the transaction, and the acquire decides by its depth.
                Ok(()) => {
                    self.state = State::ReadingSnapshot;
                    Action::ReadSessionState
                }
                Err(error) => self.on_begin_failed(error),
            },
            State::ReadingSnapshot => match event {
                Event::SessionState(snapshot) => {
                    let snapshot = SessionSnapshot {
                        provides_exclusion: self.provides_exclusion,
                        ..snapshot
                    };
                    let acquire = Acquire::new(
                        self.key.clone(),
                        &self.options,
                        LockScope::Transaction,
                        snapshot,
                    );
                    self.acquire(Box::new(acquire), Event::Ready, now)
                }
                Event::Ready | Event::Row(_) | Event::Ran(_) => {
                    self.state = State::RollingBack(Err(LockError::new(LockErrorKind::Database)
                        .with_key(&self.key)
                        .with_context("the driver returned no session state")));
                    Action::Rollback
                }
            },
            State::Acquiring(acquire) => self.acquire(acquire, event, now),
            State::RollingBack(outcome) => match event.ran() {
                Ok(()) => Action::Done(outcome),
                // The outcome of the acquire stays the error: it is the cause of the rollback.
                Err(_) => {
                    self.state = State::Terminating(outcome);
                    Action::Terminate
                }
            },
            State::Terminating(outcome) => Action::Done(outcome),
            State::Finished => Action::Done(Err(
                LockError::new(LockErrorKind::Database).with_key(&self.key)
            )),
        }
    }
}
