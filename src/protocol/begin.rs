//! Begin of a transaction with its lock.
//!
//! # Implementation details
//!
//! Begins a transaction, or a savepoint inside one, and runs an [`Acquire`] in it. The begin and
//! the first attempt are one action, which some clients send in one round trip. If the lock is not
//! granted, the transaction is rolled back. If the result of `BEGIN` or of the rollback is unknown,
//! the session is terminated.
//!
//! ```text
//! Start ── Beginning ── Acquiring ──┬── ReadingDepth ── granted
//!              │            │       └── RollingBack ── not granted
//!              │            └ pause ── RollingBackForPause ── Pausing ── Beginning
//!              └ error ── Terminating
//! ```
//!
//! A poll pauses outside the transaction. So a waiter has no snapshot, no idle transaction that the
//! server ends, and no server session of a transaction pooler. The next attempt is in a transaction
//! again, so a grant is always kept. An attempt without a transaction would save one round trip.
//! But it would hold a free lock for the time of a statement, and a call that does not wait would
//! find it contended.
//!
//! A savepoint is kept during the pauses. The transaction around it is the caller's, and Diesel
//! would leave one more savepoint on the server with each rollback.

use std::time::{Duration, Instant};

use super::{Acquire, Action, Event, Grant, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::session::SessionError;

/// Machine that begins a transaction and acquires a transaction-level lock in it.
#[derive(Debug)]
pub(crate) struct BeginAndAcquire {
    key: LockKey,
    depth_of_caller: u32,
    /// Process id of the session, once a reply has shown it.
    pid: Option<i32>,
    state: State,
}

#[derive(Debug)]
enum State {
    Start(Box<Acquire>),
    Beginning(Box<Acquire>),
    /// The backend has no locks, so the grant was decided before the begin.
    BeginningWithoutLock(Grant),
    Acquiring(Box<Acquire>),
    ReadingDepth(Grant),
    RollingBackForPause(Box<Acquire>, Duration),
    /// No transaction is open.
    Pausing(Box<Acquire>),
    RollingBack(LockError),
    Terminating(LockError),
    Finished,
}

type NextAction = Action<Result<Grant, LockError>>;

impl BeginAndAcquire {
    pub(crate) fn new(key: LockKey, options: &LockOptions, snapshot: SessionSnapshot) -> Self {
        // The acquire is created before the begin, with the state after it. So a call that is
        // rejected anyway begins no transaction.
        let inside = SessionSnapshot {
            transaction: snapshot.transaction.nested(),
            ..snapshot
        };
        let mut acquire = Acquire::new(key.clone(), options, LockScope::Transaction, inside);
        acquire.pauses_outside_transaction = !snapshot.transaction.is_open_on_server();
        Self {
            key,
            depth_of_caller: snapshot.transaction.depth(),
            pid: None,
            state: State::Start(Box::new(acquire)),
        }
    }

    fn begin(&mut self, mut acquire: Box<Acquire>, now: Instant) -> NextAction {
        let action = acquire.handle(Event::Ready, now);
        self.pid = acquire.session_pid();
        match action {
            Action::Query(statement) => {
                self.state = State::Beginning(acquire);
                Action::BeginAndQuery(statement)
            }
            Action::Done(Ok(grant)) => {
                self.state = State::BeginningWithoutLock(grant);
                Action::Begin
            }
            Action::Done(Err(error)) => Action::Done(Err(error)),
            other => Action::Done(Err(
                self.error(format!("an acquire does not start with {other:?}"))
            )),
        }
    }

    fn begin_failed(&self, error: SessionError) -> LockError {
        let context = if error.is_other_transaction() {
            "the application has begun a transaction as plain text, which the client does not \
             know of; it was rolled back with its session: begin it with the client's own method"
        } else {
            "the transaction for the lock did not begin"
        };
        self.error(context).with_source(error.into_source())
    }

    fn acquire(&mut self, mut acquire: Box<Acquire>, event: Event, now: Instant) -> NextAction {
        let action = acquire.handle(event, now);
        self.pid = acquire.session_pid();
        match action {
            Action::Done(Ok(grant)) => self.read_depth(grant),
            // The caller gets no guard to end the transaction with, so the machine ends it.
            Action::Done(Err(error)) => {
                self.state = State::RollingBack(error);
                Action::Rollback
            }
            Action::Sleep(pause) if acquire.pauses_outside_transaction => {
                self.state = State::RollingBackForPause(acquire, pause);
                Action::Rollback
            }
            action => {
                self.state = State::Acquiring(acquire);
                action
            }
        }
    }

    /// Reads the depth at the grant, because some clients do not count savepoints.
    fn read_depth(&mut self, grant: Grant) -> NextAction {
        self.state = State::ReadingDepth(grant);
        Action::ReadSessionState
    }

    fn error(&self, context: impl Into<std::borrow::Cow<'static, str>>) -> LockError {
        LockError::new(LockErrorKind::Database)
            .with_key(&self.key)
            .with_context(context)
    }

    fn terminate(&mut self, error: LockError) -> NextAction {
        self.state = State::Terminating(error);
        Action::Terminate
    }
}

impl Machine for BeginAndAcquire {
    type Output = Result<Grant, LockError>;

    fn session_pid(&self) -> Option<i32> {
        self.pid
    }

    fn depth_of_caller(&self) -> Option<u32> {
        Some(self.depth_of_caller)
    }

    // A pause inside the transaction.
    fn needs_cleanup_if_dropped(&self) -> bool {
        matches!(self.state, State::Acquiring(_))
    }

    fn handle(&mut self, event: Event, now: Instant) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Start(acquire) | State::Pausing(acquire) => self.begin(acquire, now),
            State::Beginning(acquire) => match event.begun() {
                Ok(reply) => self.acquire(acquire, Event::Row(reply), now),
                // The effect of the begin is unknown.
                Err(error) => self.terminate(self.begin_failed(error)),
            },
            State::BeginningWithoutLock(grant) => match event.ran() {
                Ok(()) => self.read_depth(grant),
                // There is no session whose state could be unknown.
                Err(error) => Action::Done(Err(self.begin_failed(error))),
            },
            State::ReadingDepth(grant) => {
                let depth = match event {
                    Event::SessionState(snapshot) => snapshot.transaction.depth(),
                    _ => grant.depth,
                };
                Action::Done(Ok(Grant { depth, ..grant }))
            }
            State::Acquiring(acquire) => self.acquire(acquire, event, now),
            State::RollingBackForPause(acquire, pause) => {
                match event.ran() {
                    Ok(()) => {
                        self.state = State::Pausing(acquire);
                        Action::Sleep(pause)
                    }
                    Err(error) => {
                        let error = self
                        .error("the rollback after an attempt failed, so the session was terminated")
                        .with_source(error.into_source());
                        self.terminate(error)
                    }
                }
            }
            State::RollingBack(error) => match event.ran() {
                Ok(()) => Action::Done(Err(error)),
                // The error of the acquire stays: it is the cause of the rollback.
                Err(_) => self.terminate(error),
            },
            State::Terminating(error) => Action::Done(Err(error)),
            State::Finished => Action::Done(Err(self.error("the machine is already done"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{LockReply, ServerSigns};

    const PID: i32 = 7;

    /// Runs a contended attempt, up to the rollback before the pause.
    fn contended() -> BeginAndAcquire {
        let options = LockOptions::wait_forever();
        let key = LockKey::from("key");
        let mut machine = BeginAndAcquire::new(key, &options, SessionSnapshot::idle());
        let now = Instant::now();
        let action = machine.handle(Event::Ready, now);
        assert!(matches!(action, Action::BeginAndQuery(_)), "{action:?}");
        let contended = LockReply {
            answer: Some(false),
            pid: PID,
            transaction_began: 1,
            server_signs: ServerSigns::NONE,
        };
        let action = machine.handle(Event::Begun(Ok(Ok(contended))), now);
        assert!(matches!(action, Action::Rollback), "{action:?}");
        machine
    }

    /// A termination without the process id could hit another session of a pooler, and makes
    /// pgpool-II fail over.
    #[test]
    fn rollback_before_a_pause_keeps_the_process_id() {
        let mut machine = contended();
        assert_eq!(machine.session_pid(), Some(PID));
        let action = machine.handle(
            Event::Ran(Err(SessionError::new("refused"))),
            Instant::now(),
        );
        assert!(matches!(action, Action::Terminate), "{action:?}");
        assert_eq!(machine.session_pid(), Some(PID));
    }

    /// Behind a transaction pooler, the next transaction may run in another session.
    #[test]
    fn attempt_after_a_pause_accepts_another_session() {
        let (mut machine, now) = (contended(), Instant::now());
        let action = machine.handle(Event::Ran(Ok(())), now);
        assert!(matches!(action, Action::Sleep(_)), "{action:?}");
        let action = machine.handle(Event::Ready, now);
        assert!(matches!(action, Action::BeginAndQuery(_)), "{action:?}");
        assert_eq!(machine.session_pid(), None);
        let granted = LockReply {
            answer: Some(true),
            pid: PID + 1,
            transaction_began: 2,
            server_signs: ServerSigns::NONE,
        };
        machine.handle(Event::Begun(Ok(Ok(granted))), now);
        let state = Event::SessionState(SessionSnapshot::idle());
        match machine.handle(state, now) {
            Action::Done(Ok(grant)) => assert_eq!(grant.pid, Some(PID + 1)),
            other => unreachable!("{other:?}"),
        }
    }
}
