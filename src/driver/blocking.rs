//! The driver for blocking sessions.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Instant;

use crate::protocol::{Action, Event, Machine, PoolerCheck, SessionSnapshot, Side};
use crate::session::LockSession;
use crate::stand_in::{Attempt, StandIn};

/// Runs a machine to its end on a session.
///
/// If the client panics, nothing is known of the session, so it is condemned.
pub(crate) fn drive<S, M>(session: &mut S, mut machine: M) -> M::Output
where
    S: LockSession + ?Sized,
    M: Machine,
{
    let flight = Flight {
        session,
        in_flight: true,
    };
    let mut input = Event::Ready;
    loop {
        let step = machine.step(input, Instant::now());
        match perform(flight.session, machine.attempt(), step) {
            ControlFlow::Continue(next) => input = next,
            ControlFlow::Break(output) => {
                flight.lands();
                return output;
            }
        }
    }
}

/// A session that is at work, and is condemned if a panic ends that.
struct Flight<'s, S: LockSession + ?Sized> {
    session: &'s mut S,
    in_flight: bool,
}

impl<S: LockSession + ?Sized> Flight<'_, S> {
    fn lands(mut self) {
        self.in_flight = false;
    }
}

impl<S: LockSession + ?Sized> Drop for Flight<'_, S> {
    fn drop(&mut self) {
        if self.in_flight {
            in_drop(|| self.session.session_terminate());
        }
    }
}

/// Runs a probe of two sessions to its end.
pub(crate) fn drive_pair<S>(
    first: &mut S,
    second: &mut S,
    mut probe: PoolerCheck,
) -> <PoolerCheck as Machine>::Output
where
    S: LockSession + ?Sized,
{
    let mut input = Event::Ready;
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

/// Does what a drop owes. While a panic unwinds, a second one would end the process, so a client's goes no further then.
pub(crate) fn in_drop(act: impl FnOnce()) {
    if thread::panicking() {
        // The panic hook has told of it.
        let _ = catch_unwind(AssertUnwindSafe(act));
    } else {
        act();
    }
}

/// Takes a step, on the session or on what answers instead of it.
fn perform<S: LockSession + ?Sized, T>(
    session: &mut S,
    attempt: Option<&Attempt>,
    step: Action<T>,
) -> ControlFlow<T, Event> {
    ControlFlow::Continue(match step {
        Action::Query(statement) => Event::Row(match attempt {
            Some(attempt) => attempt.query(&statement),
            None => session.session_query(&statement),
        }),
        Action::Script(batch) => Event::Ran(match attempt {
            Some(attempt) => attempt.batch(&batch),
            None => session.session_execute(&batch),
        }),
        Action::Begin => Event::Ran(session.session_begin()),
        Action::Commit => Event::Ran(match attempt.map_or(Ok(()), Attempt::before_commit) {
            Ok(()) => session.session_commit(),
            Err(error) => session.session_rollback().and(Err(error)),
        }),
        Action::Rollback => Event::Ran(session.session_rollback()),
        Action::Terminate => {
            session.session_terminate();
            Event::Ready
        }
        Action::ReadSessionState => Event::SessionState(snapshot(session)),
        Action::Sleep(pause) => {
            thread::sleep(pause);
            Event::Ready
        }
        Action::Done(output) => return ControlFlow::Break(output),
    })
}

/// What the session is just now.
pub(crate) fn snapshot<S: LockSession + ?Sized>(session: &mut S) -> SessionSnapshot {
    let backend = session.session_backend();
    SessionSnapshot {
        backend,
        transaction: session.session_transaction_state(),
        // A blocking call is not dropped in a wait.
        longest_wait: None,
        stand_in: StandIn::of(session, backend),
    }
}
