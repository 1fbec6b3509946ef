//! The driver for blocking sessions.

use std::thread;
use std::time::Instant;

use super::{Input, Machine, Situation, Step};
use crate::session::LockSession;
use crate::stand_in::{Attempt, StandIn};

/// Runs a machine to its end on a session.
pub(crate) fn drive<S, M>(session: &mut S, mut machine: M) -> M::Output
where
    S: LockSession + ?Sized,
    M: Machine,
{
    let mut input = Input::Ready;
    loop {
        input = match machine.step(input, Instant::now()) {
            Step::Query(statement) => Input::Row(match machine.attempt() {
                Some(attempt) => attempt.query(&statement),
                None => session.query(&statement),
            }),
            Step::Batch(batch) => Input::Ran(match machine.attempt() {
                Some(attempt) => attempt.batch(&batch),
                None => session.batch(&batch),
            }),
            Step::Begin => Input::Ran(session.begin()),
            Step::Commit => Input::Ran(
                match machine.attempt().map_or(Ok(()), Attempt::before_commit) {
                    Ok(()) => session.commit(),
                    Err(error) => session.rollback().and(Err(error)),
                },
            ),
            Step::Rollback => Input::Ran(session.rollback()),
            Step::Condemn => {
                session.condemn();
                Input::Ready
            }
            Step::Look => Input::Situation(situation(session)),
            Step::Sleep(pause) => {
                thread::sleep(pause);
                Input::Ready
            }
            Step::Done(output) => return output,
        };
    }
}

/// What the session is just now.
pub(crate) fn situation<S: LockSession + ?Sized>(session: &mut S) -> Situation {
    let backend = session.backend();
    Situation {
        backend,
        transaction: session.transaction_state(),
        // A blocking call is not dropped in a wait.
        longest_wait: None,
        stand_in: StandIn::of(session, backend),
    }
}
