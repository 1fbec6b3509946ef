//! Finding out what stands between two connections and their database.

#[cfg(test)]
mod tests;

use std::time::Instant;

use super::{Input, Machine, Situation, Step};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockMode;
use crate::probe::Sessions;
use crate::session::{Backend, Batch, BatchKind, ProbeStep, SessionError};

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
pub(crate) struct Probe {
    key: LockKey,
    /// The mark of the first connection; the second's is one more.
    mark: u64,
    side: Side,
    state: State,
}

#[derive(Debug)]
enum State {
    Decided(Result<Sessions, LockError>),
    Marking,
    /// So many looks have found the mark.
    Looking(usize),
    Holding,
    Asking,
    LettingGo(Sessions),
    /// The sessions that may be left with the lock.
    Condemning(Result<Sessions, LockError>, Side),
    Finished,
}

type Next = Step<Result<Sessions, LockError>>;

/// Who looks for its mark: four times this order.
const ORDER: [Side; 6] = [
    Side::First,
    Side::Second,
    Side::Second,
    Side::First,
    Side::First,
    Side::Second,
];
const LOOKS: usize = 4 * ORDER.len();

impl Probe {
    pub(crate) fn new(first: &Situation, second: &Situation) -> Self {
        let mark = fastrand::u64(..u64::MAX);
        let state = match Self::decide(first, second) {
            Some(outcome) => State::Decided(outcome),
            None => State::Marking,
        };
        Self {
            // Nobody else asks for this key, but by chance.
            key: LockKey::from(fastrand::i64(..)),
            mark,
            side: Side::First,
            state,
        }
    }

    /// The connection that the last step is for.
    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    /// What can be said without a server.
    fn decide(first: &Situation, second: &Situation) -> Option<Result<Sessions, LockError>> {
        let refuse = |kind, why| Some(Err(LockError::new(kind).because(why)));
        if first.backend == Backend::Sqlite || second.backend == Backend::Sqlite {
            return Some(Ok(Sessions::WithoutLocks));
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

    fn send(&mut self, state: State, side: Side, probe: ProbeStep) -> Next {
        self.state = state;
        self.side = side;
        let kind = BatchKind::Probe(probe);
        Step::Batch(Batch::new(kind, &self.key, LockMode::Exclusive))
    }

    const fn mark_of(&self, side: Side) -> u64 {
        match side {
            Side::First => self.mark,
            Side::Second => self.mark.wrapping_add(1),
        }
    }

    fn look(&mut self, found: usize) -> Next {
        match ORDER.iter().cycle().nth(found) {
            Some(side) if found < LOOKS => {
                let mark = self.mark_of(*side);
                self.send(State::Looking(found), *side, ProbeStep::Look { mark })
            }
            _ => self.send(State::Holding, Side::First, ProbeStep::Hold),
        }
    }

    fn let_go(&mut self, outcome: Sessions) -> Next {
        self.send(State::LettingGo(outcome), Side::First, ProbeStep::LetGo)
    }

    /// The lock may be held by either session.
    fn condemn(&mut self, outcome: Result<Sessions, LockError>) -> Next {
        self.state = State::Condemning(outcome, Side::Second);
        self.side = Side::First;
        Step::Condemn
    }

    fn failed(error: SessionError) -> LockError {
        LockError::new(LockErrorKind::Database)
            .because("the probe could not be run")
            .with_source(error.into_source())
    }
}

/// Whether a step of the probe itself said that it did not find what it looked for.
fn is_contradiction(error: &SessionError) -> bool {
    error
        .code()
        .is_some_and(|code| code.as_str() == ProbeStep::CONTRADICTION)
}

impl Machine for Probe {
    type Output = Result<Sessions, LockError>;

    fn step(&mut self, input: Input, _now: Instant) -> Next {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Decided(outcome) => Step::Done(outcome),
            State::Marking => match (input, self.side) {
                (Input::Ran(Err(error)), _) => Step::Done(Err(Self::failed(error))),
                (Input::Ready, _) => {
                    let mark = self.mark_of(Side::First);
                    self.send(State::Marking, Side::First, ProbeStep::Mark { mark })
                }
                (_, Side::First) => {
                    let mark = self.mark_of(Side::Second);
                    self.send(State::Marking, Side::Second, ProbeStep::Mark { mark })
                }
                (_, Side::Second) => self.look(0),
            },
            State::Looking(found) => match input.ran() {
                Ok(()) => self.look(found + 1),
                Err(error) if is_contradiction(&error) => Step::Done(Ok(Sessions::Shared)),
                Err(error) => Step::Done(Err(Self::failed(error))),
            },
            State::Holding => match input.ran() {
                Ok(()) => self.send(State::Asking, Side::Second, ProbeStep::BeRefused),
                Err(error) => self.condemn(Err(Self::failed(error))),
            },
            State::Asking => match input.ran() {
                Ok(()) => self.let_go(Sessions::Kept),
                Err(error) if is_contradiction(&error) => self.let_go(Sessions::Apart),
                Err(error) => self.condemn(Err(Self::failed(error))),
            },
            State::LettingGo(outcome) => match input.ran() {
                Ok(()) => Step::Done(Ok(outcome)),
                // The lock went by itself, or stayed with another session.
                Err(error) if is_contradiction(&error) => self.condemn(Ok(Sessions::Shared)),
                Err(error) => self.condemn(Err(Self::failed(error))),
            },
            State::Condemning(outcome, Side::Second) => {
                self.state = State::Condemning(outcome, Side::First);
                self.side = Side::Second;
                Step::Condemn
            }
            State::Condemning(outcome, Side::First) => Step::Done(outcome),
            State::Finished => Step::Done(Err(LockError::new(LockErrorKind::Database))),
        }
    }
}
