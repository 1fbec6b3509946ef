//! Driver for blocking sessions.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Instant;

use crate::backends::postgres::TerminateSequence;
use crate::capabilities::Capabilities;
use crate::error::LockError;
use crate::events::requested;
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::protocol::{
    Acquired, Action, Event, Grant, Machine, PoolerCheck, SessionSnapshot, Side,
};
use crate::session::{Backend, LockReply, LockSession};
#[cfg(feature = "testing")]
use crate::testing::SimulatedSession;

/// Creates a machine that acquires a lock, and runs it on a session.
pub(crate) fn drive_acquire<S, M>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
    machine: impl FnOnce(LockKey, &LockOptions, SessionSnapshot) -> M,
) -> Result<Acquired, LockError>
where
    S: LockSession + ?Sized,
    M: Machine<Output = Result<Acquired, LockError>>,
{
    requested(key, scope);
    // Read for each call, because the client may have begun a transaction since the last one.
    let state = snapshot(session);
    #[cfg(feature = "testing")]
    if let Some(mut session) = SimulatedSession::for_acquire(session, &state, key, options, scope) {
        let state = session.snapshot(state);
        let mut outcome = drive(&mut session, machine(key.clone(), options, state));
        session.finish_acquire(&mut outcome);
        return outcome;
    }
    drive(session, machine(key.clone(), options, state))
}

/// Creates a machine that releases a lock, and runs it on a session.
pub(crate) fn drive_release<S, M>(
    session: &mut S,
    grant: Grant,
    machine: impl FnOnce(Grant, SessionSnapshot) -> M,
) -> Result<(), LockError>
where
    S: LockSession + ?Sized,
    M: Machine<Output = Result<(), LockError>>,
{
    // Read again after the body, which may have begun or ended transactions.
    let state = snapshot(session);
    #[cfg(feature = "testing")]
    if let Some(mut session) = SimulatedSession::for_release(session, &grant) {
        let outcome = drive(&mut session, machine(grant, state));
        session.finish_release(&outcome);
        return outcome;
    }
    drive(session, machine(grant, state))
}

/// Runs a machine on a session until it is done. If the client library panics, the session is
/// terminated.
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
        match perform(guard.session, action) {
            ControlFlow::Continue(next) => event = next,
            ControlFlow::Break(output) => {
                // The machine has cleaned up, whatever its output is.
                guard.disarm();
                return output;
            }
        }
    }
}

/// Drop guard of a session that a machine drives. Terminates the session if the client library
/// panics.
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
            run_in_drop(|| terminate(&mut *self.session));
        }
    }
}

/// Runs the pooler check on two sessions until it is done.
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
        match perform(session, action) {
            ControlFlow::Continue(next) => event = next,
            ControlFlow::Break(output) => return output,
        }
    }
}

/// Runs the action of a destructor. During a panic a second panic would abort the process, so it is
/// caught then.
pub(crate) fn run_in_drop(act: impl FnOnce()) {
    if thread::panicking() {
        // The panic hook has already reported the panic.
        let _ = catch_unwind(AssertUnwindSafe(act));
    } else {
        act();
    }
}

/// Performs an action on the session.
fn perform<S: LockSession + ?Sized, T>(
    session: &mut S,
    action: Action<T>,
) -> ControlFlow<T, Event> {
    ControlFlow::Continue(match action {
        Action::Query(statement) => Event::Row(
            session
                .session_query(&statement)
                .and_then(LockReply::try_from),
        ),
        Action::Script(script) => Event::Ran(session.session_execute(&script)),
        Action::Begin => Event::Ran(session.session_begin()),
        Action::Commit => Event::Ran(session.session_commit()),
        Action::Rollback => Event::Ran(session.session_rollback()),
        Action::Terminate => {
            terminate(session);
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

/// Terminates the session, whose state is unknown, and marks its connection as broken.
///
/// On a backend without locks, which has no session to end, it rolls back the open transactions.
pub(crate) fn terminate<S: LockSession + ?Sized>(session: &mut S) {
    if session.session_backend() == Backend::Postgres {
        // One script after the other, until one succeeds: some servers forbid a script.
        let (mut sequence, mut last) = (TerminateSequence::default(), None);
        while let Some(script) = sequence.next(last) {
            last = Some(session.session_execute(&script));
        }
    } else {
        while session.session_transaction_state().is_open() {
            if session.session_rollback().is_err() {
                break;
            }
        }
    }
    session.session_mark_broken();
}

/// Returns a snapshot of the session.
pub(crate) fn snapshot<S: LockSession + ?Sized>(session: &mut S) -> SessionSnapshot {
    let backend = session.session_backend();
    SessionSnapshot {
        backend,
        provides_exclusion: Capabilities::of(backend).provides_mutual_exclusion(),
        transaction: session.session_transaction_state(),
        // A blocking call lasts until its wait ends, so its waits need no bound.
        max_server_wait: None,
    }
}
