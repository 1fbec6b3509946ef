//! Detection of a transaction pooler.
//!
//! # Implementation details
//!
//! The check compares process ids and locks, never settings: some poolers set a client's settings
//! in every session that the client gets. It sends the prepared statements that lock. So it finds
//! what a lock will find, with a pooler that reads statements, too.
//!
//! In the first part each connection reads its process id in many transactions. A transaction
//! pooler assigns another session to one of them, or one session to both. The order of the reads
//! has no period of two. Otherwise a pooler that alternates between two idle sessions would always
//! give each connection the same one. A session that has no longer the statements that were
//! prepared in it is another session, too.
//!
//! A pooler with several threads may return a session after its reply. Until then the other
//! connection is given another one. So each part pauses once before it changes the connection.
//!
//! In the second part the first connection acquires a test lock. In each of its transactions the
//! session must hold the lock, and that of the second connection must not. This tells one session
//! from two with equal process ids, on two servers. It also shows a pooler that keeps the session
//! of a client while the client holds a lock. Consequence for users: a check takes about forty
//! round trips and 20 ms.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::{Action, Event, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::{LockMode, LockScope};
use crate::pooling_mode::PoolingMode;
use crate::session::{
    Backend, LockReply, Script, ServerSigns, SessionError, Statement, StatementKind,
};

/// One of the two connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    First,
    Second,
}

/// Machine that detects a transaction pooler between two connections.
#[derive(Debug)]
pub(crate) struct PoolerCheck {
    key: LockKey,
    side: Side,
    /// Process ids of the first and of the second connection.
    pids: [Option<i32>; 2],
    /// `true` if a process id changed in the first part.
    pid_changed: bool,
    /// `true` if a process id in the second part is not that of the first part.
    pid_changed_under_lock: bool,
    /// `true` if an error without SQLSTATE was followed by a success.
    error_was_revealed: bool,
    /// Grants of the test lock that are not released.
    grants: u32,
    /// Process id and transaction start of the last grant.
    grant: Option<(i32, i64)>,
    state: State,
}

#[derive(Debug)]
enum State {
    Decided(Result<PoolingMode, LockError>),
    Start,
    /// Number of process ids read.
    ReadingPids(usize),
    PausingReads,
    /// Runs a script on the connection whose statement failed.
    RevealingError(usize, SessionError),
    /// Number of lock steps done.
    Locking(usize),
    PausingLockSteps,
    /// Releases the test lock in sessions that may have changed; the number is that of attempts.
    CleaningUp(PoolingMode, usize),
    /// Terminates both sessions; the side is the next one.
    Terminating(Result<PoolingMode, LockError>, Side),
    Finished,
}

type NextAction = Action<Result<PoolingMode, LockError>>;

/// Connections that read their process ids, in order; repeated four times.
const READ_ORDER: [Side; 6] = [
    Side::First,
    Side::Second,
    Side::Second,
    Side::First,
    Side::First,
    Side::Second,
];
const READS: usize = 4 * READ_ORDER.len();

/// Time in which a pooler returns a session after its reply. A thread is preempted for a few
/// milliseconds.
const PAUSE: Duration = Duration::from_millis(10);

/// Number of reads before the pause. The next one is of the other connection.
const READS_BEFORE_PAUSE: usize = 1;

/// Attempts to release a test lock whose session is unknown.
const MAX_CLEANUPS: usize = 256;

/// A step of the second part, with the reply that it must receive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LockStep {
    Acquire,
    ExpectHeld,
    ExpectNotHeld,
    ExpectContention,
    Release,
}

/// Number of lock steps before the pause. The next one is of the other connection.
const LOCK_STEPS_BEFORE_PAUSE: usize = 2;

const LOCK_STEPS: [(Side, LockStep); 15] = [
    (Side::First, LockStep::Acquire),
    (Side::First, LockStep::ExpectHeld),
    (Side::Second, LockStep::ExpectNotHeld),
    (Side::Second, LockStep::ExpectContention),
    (Side::First, LockStep::ExpectHeld),
    (Side::First, LockStep::ExpectHeld),
    (Side::Second, LockStep::ExpectContention),
    (Side::First, LockStep::ExpectHeld),
    (Side::Second, LockStep::ExpectNotHeld),
    (Side::Second, LockStep::ExpectContention),
    (Side::First, LockStep::ExpectHeld),
    (Side::Second, LockStep::ExpectContention),
    (Side::First, LockStep::Release),
    (Side::Second, LockStep::Acquire),
    (Side::Second, LockStep::Release),
];

impl PoolerCheck {
    pub(crate) fn new(first: &SessionSnapshot, second: &SessionSnapshot) -> Self {
        let state = match Self::decide(first, second) {
            Some(outcome) => State::Decided(outcome),
            None => State::Start,
        };
        Self {
            // A random key, so that other clients do not request it.
            key: LockKey::from(fastrand::i64(..)),
            side: Side::First,
            pids: [None; 2],
            pid_changed: false,
            pid_changed_under_lock: false,
            error_was_revealed: false,
            grants: 0,
            grant: None,
            state,
        }
    }

    /// Returns the connection of the last action.
    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    /// Returns the outcome if it is known without the server.
    fn decide(
        first: &SessionSnapshot,
        second: &SessionSnapshot,
    ) -> Option<Result<PoolingMode, LockError>> {
        let error = |kind, why| Some(Err(LockError::new(kind).with_context(why)));
        if first.transaction.is_broken() || second.transaction.is_broken() {
            return error(
                LockErrorKind::Database,
                "the client marked a connection as broken",
            );
        }
        if first.transaction.is_open_on_server() || second.transaction.is_open_on_server() {
            // A pooler reassigns a session only between transactions.
            return error(
                LockErrorKind::InTransaction,
                "the pooler check needs connections without an open transaction",
            );
        }
        // After the checks, so that tests on SQLite find the mistake.
        if first.backend == Backend::Sqlite || second.backend == Backend::Sqlite {
            return Some(Ok(PoolingMode::NoLocks));
        }
        None
    }

    fn query(&mut self, state: State, side: Side, kind: StatementKind) -> NextAction {
        (self.state, self.side) = (state, side);
        Action::Query(Statement::new(kind, &self.key, LockMode::Exclusive))
    }

    /// Waits until a pooler has returned the session of the last request.
    fn pause(&mut self, state: State) -> NextAction {
        self.state = state;
        Action::Sleep(PAUSE)
    }

    fn read_pid(&mut self, done: usize) -> NextAction {
        match READ_ORDER.iter().cycle().nth(done) {
            Some(side) if done < READS => {
                // It is prepared like the others, does nothing without the lock, and returns the
                // process id.
                self.query(
                    State::ReadingPids(done),
                    *side,
                    StatementKind::ReleaseIfHeld { pid: None },
                )
            }
            _ => self.lock_step(0),
        }
    }

    fn on_pid(&mut self, reply: Result<LockReply, SessionError>, done: usize) -> NextAction {
        match reply {
            Ok(row) => {
                let [first, second] = &mut self.pids;
                let pid = match self.side {
                    Side::First => first,
                    Side::Second => second,
                };
                self.pid_changed |= pid.is_some_and(|pid| pid != row.pid);
                *pid = Some(row.pid);
                let done = done + 1;
                if done == READS_BEFORE_PAUSE {
                    self.pause(State::PausingReads)
                } else {
                    self.read_pid(done)
                }
            }
            Err(error) if is_lost_statement(&error) => Action::Done(Ok(PoolingMode::Multiplexed)),
            // Some clients hide the SQLSTATE. The same error twice, in a session that can lock,
            // concerns the preparation of the statement.
            Err(error) if error.code().is_none() && !error.is_disconnected() => {
                if self.error_was_revealed {
                    return Action::Done(Ok(PoolingMode::Multiplexed));
                }
                self.state = State::RevealingError(done, error);
                Action::Script(Script::RevealSqlState {
                    key: self.key.raw(),
                    mode: LockMode::Exclusive,
                })
            }
            // No lock is held yet, so an error needs no clean-up.
            Err(error) => Action::Done(Err(Self::failed(error))),
        }
    }

    fn on_revealed(
        &mut self,
        ran: Result<(), SessionError>,
        done: usize,
        error: SessionError,
    ) -> NextAction {
        match ran {
            Ok(()) => {
                self.error_was_revealed = true;
                self.read_pid(done)
            }
            Err(revealed) if revealed.code().is_some() => Action::Done(Err(Self::failed(revealed))),
            Err(_) => Action::Done(Err(Self::failed(error))),
        }
    }

    fn lock_step(&mut self, done: usize) -> NextAction {
        let Some((side, step)) = LOCK_STEPS.get(done) else {
            let pooled = self.pid_changed || self.pid_changed_under_lock || self.has_equal_pids();
            return Action::Done(Ok(if pooled {
                PoolingMode::Pinned
            } else {
                PoolingMode::Dedicated
            }));
        };
        let kind = match step {
            LockStep::Acquire | LockStep::ExpectContention => StatementKind::TryAcquire {
                scope: LockScope::Session,
                refuses: ServerSigns::STUBS,
            },
            LockStep::ExpectHeld | LockStep::ExpectNotHeld => StatementKind::IsHeld,
            LockStep::Release => {
                // Without a grant, the process id 0 matches no session, so nothing is released.
                let (pid, began) = self.grant.unwrap_or_default();
                StatementKind::Release {
                    pid,
                    transaction_began: Some(began),
                }
            }
        };
        self.query(State::Locking(done), *side, kind)
    }

    fn on_lock_step(&mut self, reply: Result<LockReply, SessionError>, done: usize) -> NextAction {
        let Some((_, step)) = LOCK_STEPS.get(done).copied() else {
            return self.lock_step(done);
        };
        let row = match reply {
            Ok(row) => row,
            // A pooler of which the first part has found a sign may lose the statement.
            Err(error)
                if is_lost_statement(&error)
                    || (self.is_suspected() && !error.is_disconnected()) =>
            {
                return self.clean_up(PoolingMode::Multiplexed, 0);
            }
            Err(error) => return self.terminate(Err(Self::failed(error))),
        };
        let [first, second] = self.pids;
        let pid = match self.side {
            Side::First => first,
            Side::Second => second,
        };
        self.pid_changed_under_lock |= pid != Some(row.pid);
        if let Some((kind, reason)) = row.server_signs.intersection(ServerSigns::STUBS).error() {
            return self.terminate(Err(LockError::new(kind).with_context(reason)));
        }
        let expected = match step {
            LockStep::Acquire | LockStep::ExpectHeld | LockStep::Release => true,
            LockStep::ExpectNotHeld | LockStep::ExpectContention => false,
        };
        match (step, row.answer) {
            (LockStep::Acquire | LockStep::ExpectContention, Some(true)) => {
                self.grants += 1;
                self.grant = Some((row.pid, row.transaction_began));
            }
            (LockStep::Release, Some(true)) => self.grants = self.grants.saturating_sub(1),
            _ => {}
        }
        if row.answer == Some(expected) {
            let done = done + 1;
            return if done == LOCK_STEPS_BEFORE_PAUSE {
                self.pause(State::PausingLockSteps)
            } else {
                self.lock_step(done)
            };
        }
        // Two sessions that are granted one lock, and neither holds that of the other.
        let is_granted_twice = step == LockStep::ExpectContention && row.answer == Some(true);
        if is_granted_twice && !self.pid_changed && !self.pid_changed_under_lock {
            self.clean_up(PoolingMode::DifferentServers, 0)
        } else {
            self.clean_up(PoolingMode::Multiplexed, 0)
        }
    }

    /// Releases the test lock, on both sides in turn, because its session may have changed.
    ///
    /// After the last attempt a session of the pooler keeps the lock. It may serve another client
    /// by now, so it is not terminated.
    fn clean_up(&mut self, outcome: PoolingMode, attempts: usize) -> NextAction {
        if self.grants == 0 || attempts == MAX_CLEANUPS {
            return Action::Done(Ok(outcome));
        }
        let side = if attempts % 2 == 0 {
            Side::First
        } else {
            Side::Second
        };
        self.query(
            State::CleaningUp(outcome, attempts),
            side,
            StatementKind::ReleaseIfHeld { pid: None },
        )
    }

    fn on_cleaned_up(
        &mut self,
        reply: Result<LockReply, SessionError>,
        outcome: PoolingMode,
        attempts: usize,
    ) -> NextAction {
        match reply {
            Ok(row) => {
                let released = u32::from(row.answer == Some(true));
                self.grants = self.grants.saturating_sub(released);
                self.clean_up(outcome, attempts + 1)
            }
            Err(error) if is_lost_statement(&error) => self.clean_up(outcome, attempts + 1),
            Err(_) => self.terminate(Ok(outcome)),
        }
    }

    fn has_equal_pids(&self) -> bool {
        let [first, second] = self.pids;
        first == second
    }

    /// Returns `true` if the first part has found a sign of a pooler.
    fn is_suspected(&self) -> bool {
        self.pid_changed || self.error_was_revealed || self.has_equal_pids()
    }

    /// Terminates both sessions: either may hold the test lock.
    fn terminate(&mut self, outcome: Result<PoolingMode, LockError>) -> NextAction {
        self.state = State::Terminating(outcome, Side::Second);
        self.side = Side::First;
        Action::Terminate
    }

    fn failed(error: SessionError) -> LockError {
        LockError::new(crate::backends::postgres::classify_attempt(error.code()))
            .with_context("the pooler check failed")
            .with_source(error.into_source())
    }
}

/// Returns `true` if the session has not the statement that the client prepared, or has one of that
/// name already. Only another session of a pooler can have that.
fn is_lost_statement(error: &SessionError) -> bool {
    error
        .code()
        .is_some_and(|code| matches!(code.as_str(), "26000" | "42P05"))
}

impl Machine for PoolerCheck {
    type Output = Result<PoolingMode, LockError>;

    fn handle(&mut self, event: Event, _now: Instant) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Decided(outcome) => Action::Done(outcome),
            State::Start => self.read_pid(0),
            State::ReadingPids(done) => self.on_pid(event.row(), done),
            State::PausingReads => self.read_pid(READS_BEFORE_PAUSE),
            State::RevealingError(done, error) => self.on_revealed(event.ran(), done, error),
            State::Locking(done) => self.on_lock_step(event.row(), done),
            State::PausingLockSteps => self.lock_step(LOCK_STEPS_BEFORE_PAUSE),
            State::CleaningUp(outcome, attempts) => {
                self.on_cleaned_up(event.row(), outcome, attempts)
            }
            State::Terminating(outcome, Side::Second) => {
                self.state = State::Terminating(outcome, Side::First);
                self.side = Side::Second;
                Action::Terminate
            }
            State::Terminating(outcome, Side::First) => Action::Done(outcome),
            State::Finished => Action::Done(Err(LockError::new(LockErrorKind::Database))),
        }
    }
}
