//! Detection of a transaction pooler.
//!
//! # Implementation details
//!
//! The check has two parts. In the first, each connection sets a marker in its session and reads it
//! again in many transactions. A transaction pooler assigns one session to both connections or
//! another session to one of them, so a marker is overwritten or missing. The order of the reads
//! has no period of two. Otherwise a pooler that alternates between two idle sessions would always
//! give each connection the same one.
//!
//! In the second part, one connection acquires a test lock and the other expects contention, which
//! shows that both reach the same database. Nothing is prepared, because some poolers do not
//! support prepared statements.

#[cfg(test)]
mod tests;

use std::time::Instant;

use super::{Action, Event, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::pooling_mode::PoolingMode;
use crate::session::{Backend, PoolerCheckStep, Script, ScriptKind, SessionError};

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
    /// Marker of the first connection. The marker of the second is one more.
    marker: u64,
    side: Side,
    state: State,
}

#[derive(Debug)]
enum State {
    Decided(Result<PoolingMode, LockError>),
    SettingMarkers,
    /// Number of markers found.
    CheckingMarkers(usize),
    AcquiringTestLock,
    ExpectingContention,
    ReleasingTestLock(PoolingMode),
    /// Terminates both sessions; the side is the next one.
    Terminating(Result<PoolingMode, LockError>, Side),
    Finished,
}

type NextAction = Action<Result<PoolingMode, LockError>>;

/// Connections that read their markers, in order; repeated four times.
const CHECK_ORDER: [Side; 6] = [
    Side::First,
    Side::Second,
    Side::Second,
    Side::First,
    Side::First,
    Side::Second,
];
const CHECKS: usize = 4 * CHECK_ORDER.len();

impl PoolerCheck {
    pub(crate) fn new(first: &SessionSnapshot, second: &SessionSnapshot) -> Self {
        let marker = fastrand::u64(..u64::MAX);
        let state = match Self::decide(first, second) {
            Some(outcome) => State::Decided(outcome),
            None => State::SettingMarkers,
        };
        Self {
            // A random key, so that other clients do not request it.
            key: LockKey::from(fastrand::i64(..)),
            marker,
            side: Side::First,
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
        if first.backend == Backend::Sqlite || second.backend == Backend::Sqlite {
            return Some(Ok(PoolingMode::NoLocks));
        }
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
        None
    }

    fn send(&mut self, state: State, side: Side, step: PoolerCheckStep) -> NextAction {
        self.state = state;
        self.side = side;
        let kind = ScriptKind::PoolerCheck(step);
        Action::Script(Script::new(kind, &self.key, LockMode::Exclusive))
    }

    const fn marker_of(&self, side: Side) -> u64 {
        match side {
            Side::First => self.marker,
            Side::Second => self.marker.wrapping_add(1),
        }
    }

    fn check_marker(&mut self, found: usize) -> NextAction {
        match CHECK_ORDER.iter().cycle().nth(found) {
            Some(side) if found < CHECKS => {
                let mark = self.marker_of(*side);
                self.send(
                    State::CheckingMarkers(found),
                    *side,
                    PoolerCheckStep::CheckMarker { mark },
                )
            }
            _ => self.send(
                State::AcquiringTestLock,
                Side::First,
                PoolerCheckStep::AcquireTestLock,
            ),
        }
    }

    fn release_test_lock(&mut self, outcome: PoolingMode) -> NextAction {
        self.send(
            State::ReleasingTestLock(outcome),
            Side::First,
            PoolerCheckStep::ReleaseTestLock,
        )
    }

    /// Terminates both sessions: either may hold the test lock.
    fn terminate(&mut self, outcome: Result<PoolingMode, LockError>) -> NextAction {
        self.state = State::Terminating(outcome, Side::Second);
        self.side = Side::First;
        Action::Terminate
    }

    fn failed(error: SessionError) -> LockError {
        LockError::new(LockErrorKind::Database)
            .with_context("the pooler check failed")
            .with_source(error.into_source())
    }
}

/// Returns `true` if a step of the check found an unexpected state.
fn is_check_failure(error: &SessionError) -> bool {
    error
        .code()
        .is_some_and(|code| code.as_str() == PoolerCheckStep::CHECK_FAILED_SQLSTATE)
}

impl Machine for PoolerCheck {
    type Output = Result<PoolingMode, LockError>;

    fn handle(&mut self, event: Event, _now: Instant) -> NextAction {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Decided(outcome) => Action::Done(outcome),
            State::SettingMarkers => match (event, self.side) {
                // No lock is held yet, so an error needs no clean-up.
                (Event::Ran(Err(error)), _) => Action::Done(Err(Self::failed(error))),
                (Event::Ready, _) => {
                    let mark = self.marker_of(Side::First);
                    self.send(
                        State::SettingMarkers,
                        Side::First,
                        PoolerCheckStep::SetMarker { mark },
                    )
                }
                (_, Side::First) => {
                    let mark = self.marker_of(Side::Second);
                    self.send(
                        State::SettingMarkers,
                        Side::Second,
                        PoolerCheckStep::SetMarker { mark },
                    )
                }
                (_, Side::Second) => self.check_marker(0),
            },
            State::CheckingMarkers(found) => match event.ran() {
                Ok(()) => self.check_marker(found + 1),
                // One overwritten marker suffices, because a session that is not shared keeps it.
                Err(error) if is_check_failure(&error) => {
                    Action::Done(Ok(PoolingMode::Multiplexed))
                }
                Err(error) => Action::Done(Err(Self::failed(error))),
            },
            State::AcquiringTestLock => match event.ran() {
                Ok(()) => self.send(
                    State::ExpectingContention,
                    Side::Second,
                    PoolerCheckStep::ExpectContention,
                ),
                Err(error) => self.terminate(Err(Self::failed(error))),
            },
            State::ExpectingContention => match event.ran() {
                Ok(()) => self.release_test_lock(PoolingMode::Dedicated),
                Err(error) if is_check_failure(&error) => {
                    self.release_test_lock(PoolingMode::DifferentServers)
                }
                Err(error) => self.terminate(Err(Self::failed(error))),
            },
            State::ReleasingTestLock(outcome) => match event.ran() {
                Ok(()) => Action::Done(Ok(outcome)),
                // The lock was released early, or another session holds it.
                Err(error) if is_check_failure(&error) => {
                    self.terminate(Ok(PoolingMode::Multiplexed))
                }
                Err(error) => self.terminate(Err(Self::failed(error))),
            },
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
