//! The driver for async sessions.

use super::AsyncLockSession;
use crate::protocol::{Input, Machine, Situation, Step};
use crate::stand_in::{Attempt, StandIn};

/// Runs a machine to its end on a session.
///
/// # Cancel safety
///
/// Dropped while a statement is in flight, or while the machine owes a clean-up, it abandons the session. Dropped in a pause it
/// leaves nothing behind.
pub(super) async fn drive<S, M>(session: &mut S, machine: M) -> M::Output
where
    S: AsyncLockSession,
    M: Machine + Send + Sync,
    M::Output: Send,
{
    let mut flight = Flight {
        session,
        machine,
        in_flight: false,
    };
    let mut input = Input::Ready;
    loop {
        let now = flight.session.now();
        let step = flight.machine.step(input, now);
        flight.in_flight = !matches!(step, Step::Sleep(_) | Step::Done(_));
        input = match step {
            Step::Query(statement) => Input::Row(match flight.machine.attempt() {
                Some(attempt) => attempt.query(&statement),
                None => flight.session.query(&statement).await,
            }),
            Step::Batch(batch) => Input::Ran(match flight.machine.attempt() {
                Some(attempt) => attempt.batch_async(&batch, flight.session).await,
                None => flight.session.batch(&batch).await,
            }),
            Step::Begin => Input::Ran(flight.session.begin().await),
            Step::Commit => Input::Ran(
                match flight
                    .machine
                    .attempt()
                    .map_or(Ok(()), Attempt::before_commit)
                {
                    Ok(()) => flight.session.commit().await,
                    Err(error) => flight.session.rollback().await.and(Err(error)),
                },
            ),
            Step::Rollback => Input::Ran(flight.session.rollback().await),
            Step::Condemn => {
                flight.session.condemn().await;
                Input::Ready
            }
            Step::Look => Input::Situation(situation(flight.session)),
            Step::Sleep(pause) => {
                flight.session.sleep(pause).await;
                Input::Ready
            }
            Step::Done(output) => return output,
        };
        flight.in_flight = false;
    }
}

/// A session between two steps; abandoned if it is dropped with something undone.
struct Flight<'s, S: AsyncLockSession, M: Machine> {
    session: &'s mut S,
    machine: M,
    in_flight: bool,
}

impl<S: AsyncLockSession, M: Machine> Drop for Flight<'_, S, M> {
    fn drop(&mut self) {
        if self.in_flight || self.machine.owes_clean_up() {
            self.session.abandon();
        }
    }
}

/// What the session is just now.
pub(super) fn situation<S: AsyncLockSession>(session: &mut S) -> Situation {
    let backend = session.backend();
    Situation {
        backend,
        transaction: session.transaction_state(),
        longest_wait: session.longest_wait(),
        stand_in: StandIn::of(session, backend),
    }
}
