//! The driver for blocking sessions.

use std::ops::ControlFlow;
use std::thread;
use std::time::Instant;

use super::{Input, Machine, Probe, Side, Situation, Step};
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
        let step = machine.step(input, Instant::now());
        match perform(session, machine.attempt(), step) {
            ControlFlow::Continue(next) => input = next,
            ControlFlow::Break(output) => return output,
        }
    }
}

/// Runs a probe of two sessions to its end.
pub(crate) fn drive_pair<S>(
    first: &mut S,
    second: &mut S,
    mut probe: Probe,
) -> <Probe as Machine>::Output
where
    S: LockSession + ?Sized,
{
    let mut input = Input::Ready;
    loop {
        let step = probe.step(input, Instant::now());
        let session = match probe.side() {
            Side::First => &mut *first,
            Side::Second => &mut *second,
        };
        match perform(session, None, step) {
            ControlFlow::Continue(next) => input = next,
            ControlFlow::Break(output) => return output,
        }
    }
}

/// Takes a step, on the session or on what answers instead of it.
fn perform<S: LockSession + ?Sized, T>(
    session: &mut S,
    attempt: Option<&Attempt>,
    step: Step<T>,
) -> ControlFlow<T, Input> {
    ControlFlow::Continue(match step {
        Step::Query(statement) => Input::Row(match attempt {
            Some(attempt) => attempt.query(&statement),
            None => session.query(&statement),
        }),
        Step::Batch(batch) => Input::Ran(match attempt {
            Some(attempt) => attempt.batch(&batch),
            None => session.batch(&batch),
        }),
        Step::Begin => Input::Ran(session.begin()),
        Step::Commit => Input::Ran(match attempt.map_or(Ok(()), Attempt::before_commit) {
            Ok(()) => session.commit(),
            Err(error) => session.rollback().and(Err(error)),
        }),
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
        Step::Done(output) => return ControlFlow::Break(output),
    })
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
