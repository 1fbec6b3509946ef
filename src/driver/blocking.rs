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
    let guard = TerminateOnUnwind {
        session,
        armed: true,
    };
    let mut event = Event::Ready;
    loop {
        let action = machine.handle(event, Instant::now());
        match perform(guard.session, machine.attempt(), action) {
            ControlFlow::Continue(next) => event = next,
            ControlFlow::Break(output) => {
                guard.disarm();
                return output;
            }
        }
    }
}

/// A session that is at work, and is condemned if a panic ends that.
struct TerminateOnUnwind<'s, S: LockSession + ?Sized> {
    session: &'s mut S,
    armed: bool,
}

impl<S: LockSession + ?Sized> TerminateOnUnwind<'_, S> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl<S: LockSession + ?Sized> Drop for TerminateOnUnwind<'_, S> {
    fn drop(&mut self) {
        if self.armed {
            run_in_drop(|| self.session.session_terminate());
        }
    }
}

/// Runs a check of two sessions to its end.
pub(crate) fn drive_pair<S>(
    first: &mut S,
    second: &mut S,
    mut check: PoolerCheck,
) -> <PoolerCheck as Machine>::Output
where
    S: LockSession + ?Sized,
{
    let mut event = Event::Ready;
    loop {
        let action = check.handle(event, Instant::now());
        let session = match check.side() {
            Side::First => &mut *first,
            Side::Second => &mut *second,
        };
        match perform(session, None, action) {
            ControlFlow::Continue(next) => event = next,
            ControlFlow::Break(output) => return output,
        }
    }
}

/// Does what a drop owes. While a panic unwinds, a second one would end the process, so a client's goes no further then.
pub(crate) fn run_in_drop(act: impl FnOnce()) {
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
    action: Action<T>,
) -> ControlFlow<T, Event> {
    ControlFlow::Continue(match action {
        Action::Query(statement) => Event::Row(match attempt {
            Some(attempt) => attempt.query(&statement),
            None => session.session_query(&statement),
        }),
        Action::Script(script) => Event::Ran(match attempt {
            Some(attempt) => attempt.batch(&script),
            None => session.session_execute(&script),
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
        max_server_wait: None,
        stand_in: StandIn::of(session, backend),
    }
}
