//! The driver for async sessions.

use std::ops::ControlFlow;
use std::time::Instant;

use super::AsyncLockSession;
use crate::protocol::{Input, Machine, Probe, Side, Situation, Step};
use crate::session::BatchKind;
use crate::stand_in::{Attempt, StandIn};

/// Runs a machine to its end on a session.
///
/// # Cancel safety
///
/// Dropped while a statement is in flight, or while the machine owes a clean-up, it abandons the session. Dropped in a pause it
/// leaves nothing behind.
pub(crate) async fn drive<S, M>(session: &mut S, machine: M) -> M::Output
where
    S: AsyncLockSession,
    M: Machine + Send + Sync,
    M::Output: Send,
{
    let mut flight = Flight {
        session,
        machine,
        in_flight: false,
        waits: false,
    };
    let mut input = Input::Ready;
    loop {
        let now = flight.session.now();
        let step = flight.machine.step(input, now);
        flight.in_flight = !matches!(step, Step::Sleep(_) | Step::Done(_));
        flight.waits =
            matches!(&step, Step::Batch(batch) if matches!(batch.kind(), BatchKind::Wait { .. }));
        match perform(flight.session, flight.machine.attempt(), step).await {
            ControlFlow::Continue(next) => input = next,
            ControlFlow::Break(output) => return output,
        }
        flight.in_flight = false;
    }
}

/// Runs a probe of two sessions to its end.
///
/// # Cancel safety
///
/// Dropped before its end it abandons both sessions: one of them may hold the probe's lock.
pub(super) async fn drive_pair<S: AsyncLockSession>(
    first: &mut S,
    second: &mut S,
    probe: Probe,
) -> <Probe as Machine>::Output {
    let mut flight = PairFlight {
        sessions: [first, second],
        probe,
        in_flight: false,
    };
    let mut input = Input::Ready;
    loop {
        let step = flight.probe.step(input, Instant::now());
        flight.in_flight = !matches!(step, Step::Done(_));
        let [first, second] = &mut flight.sessions;
        let session = match flight.probe.side() {
            Side::First => first,
            Side::Second => second,
        };
        match perform(&mut **session, None, step).await {
            ControlFlow::Continue(next) => input = next,
            ControlFlow::Break(output) => return output,
        }
    }
}

/// Takes a step, on the session or on what answers instead of it.
async fn perform<S: AsyncLockSession, T>(
    session: &mut S,
    attempt: Option<&Attempt>,
    step: Step<T>,
) -> ControlFlow<T, Input> {
    ControlFlow::Continue(match step {
        Step::Query(statement) => Input::Row(match attempt {
            Some(attempt) => attempt.query(&statement),
            None => session.query(&statement).await,
        }),
        Step::Batch(batch) => Input::Ran(match attempt {
            Some(attempt) => attempt.batch_async(&batch, session).await,
            None => session.batch(&batch).await,
        }),
        Step::Begin => Input::Ran(session.begin().await),
        Step::Commit => Input::Ran(match attempt.map_or(Ok(()), Attempt::before_commit) {
            Ok(()) => session.commit().await,
            Err(error) => session.rollback().await.and(Err(error)),
        }),
        Step::Rollback => Input::Ran(session.rollback().await),
        Step::Condemn => {
            session.condemn().await;
            Input::Ready
        }
        Step::Look => Input::Situation(situation(session)),
        Step::Sleep(pause) => {
            session.sleep(pause).await;
            Input::Ready
        }
        Step::Done(output) => return ControlFlow::Break(output),
    })
}

/// A session between two steps; abandoned if it is dropped with something undone.
struct Flight<'s, S: AsyncLockSession, M: Machine> {
    session: &'s mut S,
    machine: M,
    in_flight: bool,
    waits: bool,
}

impl<S: AsyncLockSession, M: Machine> Drop for Flight<'_, S, M> {
    fn drop(&mut self) {
        if self.in_flight && self.waits {
            self.session.abandon_wait();
        } else if self.in_flight || self.machine.owes_clean_up() {
            self.session.abandon();
        }
    }
}

/// Two sessions under a probe; abandoned if it is dropped before its end.
struct PairFlight<'s, S: AsyncLockSession> {
    sessions: [&'s mut S; 2],
    probe: Probe,
    in_flight: bool,
}

impl<S: AsyncLockSession> Drop for PairFlight<'_, S> {
    fn drop(&mut self) {
        if self.in_flight {
            self.sessions
                .iter_mut()
                .for_each(|session| session.abandon());
        }
    }
}

/// What the session is just now.
pub(crate) fn situation<S: AsyncLockSession>(session: &mut S) -> Situation {
    let backend = session.backend();
    Situation {
        backend,
        transaction: session.transaction_state(),
        longest_wait: session.longest_wait(),
        stand_in: StandIn::of(session, backend),
    }
}
