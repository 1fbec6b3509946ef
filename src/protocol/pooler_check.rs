//! Finding out what stands between two connections and their database.

#[cfg(test)]
mod tests;

use std::time::Instant;

use super::{Action, Event, Machine, SessionSnapshot};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::pooling_mode::PoolingMode;
use crate::session::{Backend, PoolerCheckStep, Script, ScriptKind, SessionError};

/// Which of the two connections the last step is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    First,
    Second,
}

/// Asks two connections in turn, in two parts.
///
/// Each leaves a mark of its own in its session and looks for it again and again. Whoever pools transactions gives one session to
/// both, or another session to one of them: the mark is overwritten or missing. The order of the looks repeats with no period of two, or a pooler
/// with two idle sessions that deals them out in turn would give each connection always the same one. Then one takes a lock and the other
/// asks for it, to see whether they exclude each other at all.
///
/// Nothing is prepared, because prepared statements do not work through every pooler.
#[derive(Debug)]
pub(crate) struct PoolerCheck {
    key: LockKey,
    /// The mark of the first connection; the second's is one more.
    marker: u64,
    side: Side,
    state: State,
}

#[derive(Debug)]
enum State {
    Decided(Result<PoolingMode, LockError>),
    SettingMarkers,
    /// So many looks have found the mark.
    CheckingMarkers(usize),
    AcquiringTestLock,
    ExpectingContention,
    ReleasingTestLock(PoolingMode),
    /// The sessions that may be left with the lock.
    Terminating(Result<PoolingMode, LockError>, Side),
    Finished,
}

type NextAction = Action<Result<PoolingMode, LockError>>;

/// Who looks for its mark: four times this order.
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
            // Nobody else asks for this key, but by chance.
            key: LockKey::from(fastrand::i64(..)),
            marker,
            side: Side::First,
            state,
        }
    }

    /// The connection that the last step is for.
    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    /// What can be said without a server.
    fn decide(
        first: &SessionSnapshot,
        second: &SessionSnapshot,
    ) -> Option<Result<PoolingMode, LockError>> {
        let refuse = |kind, why| Some(Err(LockError::new(kind).with_context(why)));
        if first.backend == Backend::Sqlite || second.backend == Backend::Sqlite {
            return Some(Ok(PoolingMode::NoLocks));
        }
        if first.transaction.is_broken() || second.transaction.is_broken() {
            return refuse(
                LockErrorKind::Database,
                "the client has given a connection up",
            );
        }
        if first.transaction.is_open_on_server() || second.transaction.is_open_on_server() {
            // A pooler gives up a session only between transactions.
            return refuse(
                LockErrorKind::InTransaction,
                "a probe has to see what happens between transactions",
            );
        }
        None
    }

    fn send(&mut self, state: State, side: Side, probe: PoolerCheckStep) -> NextAction {
        self.state = state;
        self.side = side;
        let kind = ScriptKind::PoolerCheck(probe);
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

    /// The lock may be held by either session.
    fn terminate(&mut self, outcome: Result<PoolingMode, LockError>) -> NextAction {
        self.state = State::Terminating(outcome, Side::Second);
        self.side = Side::First;
        Action::Terminate
    }

    fn failed(error: SessionError) -> LockError {
        LockError::new(LockErrorKind::Database)
            .with_context("the probe could not be run")
            .with_source(error.into_source())
    }
}

/// Whether a step of the probe itself said that it did not find what it looked for.
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
                // The lock went by itself, or stayed with another session.
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
