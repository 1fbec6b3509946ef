//! The driver for async sessions.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::protocol::{Action, Event, Machine, PoolerCheck, SessionSnapshot, Side};
use crate::session::AsyncLockSession;
use crate::session::ScriptKind;
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
    let mut input = Event::Ready;
    loop {
        let now = flight.session.session_now();
        let step = flight.machine.step(input, now);
        flight.in_flight = !matches!(step, Action::Sleep(_) | Action::Done(_));
        flight.waits = matches!(&step, Action::Script(batch) if matches!(batch.kind(), ScriptKind::Wait { .. }));
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
pub(crate) async fn drive_pair<S: AsyncLockSession>(
    first: &mut S,
    second: &mut S,
    probe: PoolerCheck,
) -> <PoolerCheck as Machine>::Output {
    let mut flight = PairFlight {
        sessions: [first, second],
        probe,
        in_flight: false,
    };
    let mut input = Event::Ready;
    loop {
        let step = flight.probe.step(input, Instant::now());
        flight.in_flight = !matches!(step, Action::Done(_));
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
    step: Action<T>,
) -> ControlFlow<T, Event> {
    ControlFlow::Continue(match step {
        Action::Query(statement) => Event::Row(match attempt {
            Some(attempt) => attempt.query(&statement),
            None => session.session_query(&statement).await,
        }),
        Action::Script(batch) => Event::Ran(match attempt {
            Some(attempt) => attempt.batch_async(&batch, session).await,
            None => session.session_execute(&batch).await,
        }),
        Action::Begin => Event::Ran(session.session_begin().await),
        Action::Commit => Event::Ran(match attempt.map_or(Ok(()), Attempt::before_commit) {
            Ok(()) => session.session_commit().await,
            Err(error) => session.session_rollback().await.and(Err(error)),
        }),
        Action::Rollback => Event::Ran(session.session_rollback().await),
        Action::Terminate => {
            session.session_terminate().await;
            Event::Ready
        }
        Action::ReadSessionState => Event::SessionState(snapshot(session)),
        Action::Sleep(pause) => {
            session.session_sleep(pause).await;
            Event::Ready
        }
        Action::Done(output) => return ControlFlow::Break(output),
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
            self.session.session_cancel_and_terminate();
        } else if self.in_flight || self.machine.needs_cleanup_if_dropped() {
            self.session.session_start_terminate();
        }
    }
}

/// Two sessions under a probe; abandoned if it is dropped before its end.
struct PairFlight<'s, S: AsyncLockSession> {
    sessions: [&'s mut S; 2],
    probe: PoolerCheck,
    in_flight: bool,
}

impl<S: AsyncLockSession> Drop for PairFlight<'_, S> {
    fn drop(&mut self) {
        if self.in_flight {
            self.sessions
                .iter_mut()
                .for_each(|session| session.session_start_terminate());
        }
    }
}

/// What the session is just now.
pub(crate) fn snapshot<S: AsyncLockSession>(session: &mut S) -> SessionSnapshot {
    let backend = session.session_backend();
    SessionSnapshot {
        backend,
        transaction: session.session_transaction_state(),
        longest_wait: session.session_max_server_wait(),
        stand_in: StandIn::of(session, backend),
    }
}
