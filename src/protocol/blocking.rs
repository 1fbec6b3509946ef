//! The driver for blocking sessions.

use std::thread;
use std::time::Instant;

use super::{Input, Machine, Situation, Step};
use crate::session::LockSession;

/// Runs a machine to its end on a session.
pub(crate) fn drive<S, M>(session: &mut S, mut machine: M) -> M::Output
where
    S: LockSession + ?Sized,
    M: Machine,
{
    let mut input = Input::Ready;
    loop {
        input = match machine.step(input, Instant::now()) {
            Step::Query(statement) => Input::Row(session.query(&statement)),
            Step::Batch(batch) => Input::Ran(session.batch(&batch)),
            Step::Begin => Input::Ran(session.begin()),
            Step::Commit => Input::Ran(session.commit()),
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
    Situation {
        backend: session.backend(),
        transaction: session.transaction_state(),
        // A blocking call is not dropped in a wait.
        longest_wait: None,
    }
}
