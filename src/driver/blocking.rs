//! Driver for blocking sessions.

use std::ops::ControlFlow;
use std::time::Instant;

use super::{
    add_holders, check_identify, end_request, parse_identity, parse_report, parse_version,
    record_wait, reports_holders, run_in_drop,
};
use crate::error::LockError;
use crate::events::{GrantRecord, RequestRecord};
use crate::key::LockKey;
use crate::lock_report::LockReport;
use crate::options::{LockOptions, LockScope};
use crate::protocol::{Action, Event, Grant, Machine, PoolerCheck, SessionSnapshot, Side};
use crate::server_report::ServerReport;
use crate::session::{Backend, LockReply, LockSession, Script, Statement, TerminateStep};
#[cfg(feature = "testing")]
use crate::testing::SimulatedSession;

/// Creates a machine that acquires a lock, and runs it on a session.
pub(crate) fn drive_acquire<S, M>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
    machine: impl FnOnce(LockKey, &LockOptions, SessionSnapshot) -> M,
) -> Result<Grant, LockError>
where
    S: LockSession + ?Sized,
    M: Machine<Output = Result<Grant, LockError>>,
{
    let backend = Some(session.session_backend());
    let now = session.session_now();
    let mut request = RequestRecord::new(key, options, scope, backend, now);
    let span = request.span();
    let record = Some(&mut request);
    let mut outcome = span.in_scope(|| run_acquire(session, key, options, scope, machine, record));
    span.in_scope(|| end_request(request, &mut outcome, session.session_now()));
    outcome
}

/// Acquires as [`drive_acquire`] does, without an event.
#[cfg_attr(
    not(feature = "testing"),
    expect(unused_variables, reason = "only the unit-test kit reads the scope")
)]
fn run_acquire<S, M>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
    machine: impl FnOnce(LockKey, &LockOptions, SessionSnapshot) -> M,
    record: Option<&mut RequestRecord>,
) -> Result<Grant, LockError>
where
    S: LockSession + ?Sized,
    M: Machine<Output = Result<Grant, LockError>>,
{
    // Read for each call, because the client may have begun a transaction since the last one.
    let state = snapshot(session);
    #[cfg(feature = "testing")]
    if let Some(mut session) = SimulatedSession::for_acquire(session, &state, key, options, scope) {
        let state = session.snapshot(state);
        let mut outcome = drive(&mut session, machine(key.clone(), options, state), record);
        session.finish_acquire(&mut outcome);
        return outcome;
    }
    drive(session, machine(key.clone(), options, state), record)
}

/// Creates a machine that releases a lock, and runs it on a session.
pub(crate) fn drive_release<S, M>(
    session: &mut S,
    mut grant: Grant,
    machine: impl FnOnce(Grant, SessionSnapshot) -> M,
) -> Result<(), LockError>
where
    S: LockSession + ?Sized,
    M: Machine<Output = Result<(), LockError>>,
{
    // First: if the release panics or is dropped, the record of the release logs the termination.
    let release = grant.record.take().map(GrantRecord::releasing);
    let result = run_release(session, grant, machine);
    if let Some(release) = release {
        release.ended(&result, session.session_now());
    }
    result
}

/// Releases as [`drive_release`] does, without an event.
fn run_release<S, M>(
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
        let outcome = drive(&mut session, machine(grant, state), None);
        session.finish_release(&outcome);
        return outcome;
    }
    drive(session, machine(grant, state), None)
}

/// Runs a statement that reports locks. Empty on a backend without locks.
///
/// It is no machine: a report changes nothing, so nothing needs a clean-up.
pub(crate) fn report<S: LockSession + ?Sized>(
    session: &mut S,
    statement: Statement,
) -> Result<Vec<LockReport>, LockError> {
    if session.session_backend() != Backend::Postgres {
        return Ok(Vec::new());
    }
    parse_report(session.session_query(&statement))
}

/// Identifies the server.
///
/// It is no machine: its lock ends with its statement, so nothing needs a clean-up.
pub(crate) fn identify<S: LockSession + ?Sized>(
    session: &mut S,
) -> Result<ServerReport, LockError> {
    let state = snapshot(session);
    // On every backend, so that tests on SQLite find the mistake.
    check_identify(&state)?;
    if state.backend != Backend::Postgres {
        return Ok(ServerReport::sqlite());
    }
    // A random key, so that other clients do not request it.
    let with_lock = Statement::Identity {
        key: Some(fastrand::i64(..)),
    };
    match parse_identity(session.session_query(&with_lock)) {
        Ok(report) => Ok(report),
        Err(refused) => parse_version(
            session.session_query(&Statement::Identity { key: None }),
            refused,
        ),
    }
}

/// Returns the grant, or an error with the holders of the lock if the options ask for them.
pub(crate) fn with_holders<S: LockSession + ?Sized>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    acquired: Result<Grant, LockError>,
) -> Result<Grant, LockError> {
    acquired.map_err(|error| {
        if !reports_holders(&error, options, session.session_transaction_state()) {
            return error;
        }
        add_holders(error, report(session, Statement::holders(key.raw())).ok())
    })
}

/// Runs a machine on a session until it is done. The record of a request learns that it waits. If
/// the client library panics, the session is terminated.
pub(crate) fn drive<S, M>(
    session: &mut S,
    mut machine: M,
    mut record: Option<&mut RequestRecord>,
) -> M::Output
where
    S: LockSession + ?Sized,
    M: Machine,
{
    let mut guard = TerminateOnUnwind::new(session);
    let mut event = Event::Ready;
    loop {
        let now = guard.session.session_now();
        let action = machine.handle(event, now);
        record_wait(record.as_deref_mut(), &action);
        // After each event: the first reply shows the process id.
        guard.pid = machine.session_pid();
        match perform(guard.session, action, guard.pid) {
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
    /// Process id of the session, if it is known.
    pid: Option<i32>,
}

impl<'s, S: LockSession + ?Sized> TerminateOnUnwind<'s, S> {
    const fn new(session: &'s mut S) -> Self {
        Self { session, pid: None }
    }

    fn disarm(self) {
        // Nothing leaks: the guard owns no memory.
        std::mem::forget(self);
    }
}

impl<S: LockSession + ?Sized> Drop for TerminateOnUnwind<'_, S> {
    fn drop(&mut self) {
        run_in_drop(|| terminate(&mut *self.session, self.pid));
    }
}

/// Runs the pooler check on two sessions until it is done. If the client library panics, both
/// sessions are terminated, because either may hold the lock of the check.
pub(crate) fn drive_pair<S>(
    first: &mut S,
    second: &mut S,
    mut check: PoolerCheck,
) -> <PoolerCheck as Machine>::Output
where
    S: LockSession + ?Sized,
{
    let first = TerminateOnUnwind::new(first);
    let second = TerminateOnUnwind::new(second);
    let mut event = Event::Ready;
    loop {
        let action = check.handle(event, Instant::now());
        let session = match check.side() {
            Side::First => &mut *first.session,
            Side::Second => &mut *second.session,
        };
        // Without a process id: behind a pooler, it may be that of an earlier session.
        match perform(session, action, None) {
            ControlFlow::Continue(next) => event = next,
            ControlFlow::Break(output) => {
                first.disarm();
                second.disarm();
                return output;
            }
        }
    }
}

/// Performs an action on the session, whose process id is `pid` if it is known.
fn perform<S: LockSession + ?Sized, T>(
    session: &mut S,
    action: Action<T>,
    pid: Option<i32>,
) -> ControlFlow<T, Event> {
    ControlFlow::Continue(match action {
        Action::Query(statement) => Event::Row(
            session
                .session_query(&statement)
                .and_then(LockReply::try_from),
        ),
        Action::Script(script) => Event::Ran(session.session_execute(&script)),
        Action::Begin => Event::Ran(session.session_begin()),
        Action::BeginAndQuery(statement) => Event::Begun(
            session
                .session_begin_and_query(&statement)
                .map(|row| row.and_then(LockReply::try_from)),
        ),
        Action::Commit(check) => Event::Ran(session.session_commit(check.as_ref())),
        Action::Rollback => Event::Ran(session.session_rollback()),
        Action::Terminate => {
            terminate(session, pid);
            Event::Ready
        }
        Action::ReadSessionState => Event::SessionState(snapshot(session)),
        Action::Sleep(pause) => {
            session.session_sleep(pause);
            Event::Ready
        }
        Action::Done(output) => return ControlFlow::Break(output),
    })
}

/// Terminates the session `pid`, whose state is unknown, and marks its connection as broken.
///
/// On a backend without locks, which has no session to end, it rolls back the open transactions.
pub(crate) fn terminate<S: LockSession + ?Sized>(session: &mut S, pid: Option<i32>) {
    let marked = MarkBrokenOnDrop(session);
    let session = &mut *marked.0;
    if session.session_backend() == Backend::Postgres {
        // One script after the other, until the client sees the end of the session or the release
        // of all locks succeeds: some servers forbid a script.
        for step in TerminateStep::passes() {
            let reply = session.session_execute(&Script::Terminate { step, pid });
            if step.ends_sequence(&reply) {
                break;
            }
        }
    } else {
        while session.session_transaction_state().is_open() {
            // A rollback that fails would fail again.
            if session.session_rollback().is_err() {
                break;
            }
        }
    }
}

/// Drop guard that marks a connection as broken, also if its client panics once more.
struct MarkBrokenOnDrop<'s, S: LockSession + ?Sized>(&'s mut S);

impl<S: LockSession + ?Sized> Drop for MarkBrokenOnDrop<'_, S> {
    fn drop(&mut self) {
        self.0.session_mark_broken();
    }
}

/// Returns a snapshot of the session.
pub(crate) fn snapshot<S: LockSession + ?Sized>(session: &mut S) -> SessionSnapshot {
    let backend = session.session_backend();
    SessionSnapshot {
        backend,
        provides_exclusion: backend.provides_mutual_exclusion(),
        transaction: session.session_transaction_state(),
        // A blocking call lasts until its wait ends, so its waits need no bound.
        max_server_wait: None,
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
    use std::time::Duration;

    use super::*;
    use crate::error::LockErrorKind;
    use crate::session::{
        Row, Script, ServerSigns, SessionError, Statement, StatementKind, TransactionState,
    };

    /// Session whose client library panics at the query of this number.
    #[derive(Default)]
    struct PanickingSession {
        queries: u32,
        holds_lock: bool,
        panics_at: Option<u32>,
        scripts_panic: bool,
        pid: i32,
        is_broken: bool,
        last_statement: Option<Statement>,
    }

    impl LockSession for PanickingSession {
        fn session_backend(&mut self) -> Backend {
            Backend::Postgres
        }

        fn session_transaction_state(&mut self) -> TransactionState {
            TransactionState::none()
        }

        fn session_begin(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
            Ok(())
        }

        fn session_rollback(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        fn session_query(&mut self, statement: &Statement) -> Result<Row, SessionError> {
            self.queries += 1;
            self.last_statement = Some(statement.clone());
            assert_ne!(Some(self.queries), self.panics_at, "the client panics");
            self.holds_lock |= matches!(statement.kind(), Some(StatementKind::TryAcquire { .. }));
            let reply = LockReply {
                answer: Some(self.holds_lock),
                pid: self.pid,
                transaction_began: 1,
                server_signs: ServerSigns::NONE,
            };
            Ok(reply.into())
        }

        fn session_execute(&mut self, _script: &Script) -> Result<(), SessionError> {
            assert!(!self.scripts_panic, "the client panics");
            Ok(())
        }

        fn session_mark_broken(&mut self) {
            self.is_broken = true;
        }
    }

    /// Many waiters may reach their limits together.
    #[test]
    fn error_reads_no_waiters() {
        let (mut session, key) = (PanickingSession::default(), LockKey::from("key"));
        let options = LockOptions::wait_up_to(Duration::ZERO);
        let timed_out = Err(LockError::new(LockErrorKind::TimedOut));
        with_holders(&mut session, &key, &options, timed_out).unwrap_err();
        let report = Statement::holders(key.raw());
        assert_eq!(session.last_statement, Some(report));
    }

    /// A report that fails would abort the transaction.
    #[test]
    fn error_in_a_transaction_reads_no_holders() {
        let options = LockOptions::wait_up_to(Duration::ZERO);
        let error = LockError::new(LockErrorKind::TimedOut);
        for (transaction, reports) in [
            (TransactionState::none(), true),
            (TransactionState::open(1), false),
            (TransactionState::in_test(0), false),
        ] {
            assert_eq!(reports_holders(&error, &options, transaction), reports);
        }
    }

    #[test]
    fn panic_in_the_pooler_check_terminates_both_sessions() {
        // The thirteenth query of each is the first one under the test lock.
        for panics_at in 1..=13 {
            for side in [Side::First, Side::Second] {
                let mut sessions = [PanickingSession::default(), PanickingSession::default()];
                let [first, second] = &mut sessions;
                (first.pid, second.pid) = (1, 2);
                match side {
                    Side::First => first.panics_at = Some(panics_at),
                    Side::Second => second.panics_at = Some(panics_at),
                }
                let check = PoolerCheck::new(&snapshot(first), &snapshot(second));
                let result = catch_unwind(AssertUnwindSafe(|| drive_pair(first, second, check)));
                assert!(result.is_err(), "{panics_at}: no panic");
                let broken = sessions.map(|session| session.is_broken);
                assert_eq!(broken, [true, true], "{panics_at}");
            }
        }
    }

    /// Session on a backend without locks.
    struct OpenTransactions {
        depth: u32,
        rollback_fails: bool,
        rollbacks: u32,
        is_broken: bool,
    }

    impl LockSession for OpenTransactions {
        fn session_backend(&mut self) -> Backend {
            Backend::Sqlite
        }

        fn session_transaction_state(&mut self) -> TransactionState {
            TransactionState::open(self.depth)
        }

        fn session_begin(&mut self) -> Result<(), SessionError> {
            Ok(())
        }

        fn session_commit(&mut self, _check: Option<&Script>) -> Result<(), SessionError> {
            Ok(())
        }

        fn session_rollback(&mut self) -> Result<(), SessionError> {
            self.rollbacks += 1;
            assert!(self.rollbacks <= 2, "the rollbacks do not end");
            if self.rollback_fails {
                return Err(SessionError::new("the rollback fails"));
            }
            self.depth -= 1;
            Ok(())
        }

        fn session_mark_broken(&mut self) {
            self.is_broken = true;
        }
    }

    #[test]
    fn termination_rolls_back_without_locks_and_ends() {
        for (rollback_fails, rollbacks) in [(false, 2), (true, 1)] {
            let mut session = OpenTransactions {
                depth: 2,
                rollback_fails,
                rollbacks: 0,
                is_broken: false,
            };
            terminate(&mut session, None);
            assert_eq!((session.rollbacks, session.is_broken), (rollbacks, true));
        }
    }

    #[test]
    fn transaction_without_locks_is_not_identified() {
        for (depth, refused) in [(0, None), (1, Some(LockErrorKind::InTransaction))] {
            let mut session = OpenTransactions {
                depth,
                rollback_fails: false,
                rollbacks: 0,
                is_broken: false,
            };
            let identified = identify(&mut session);
            assert_eq!(identified.err().map(|error| error.kind()), refused);
        }
    }

    /// Payload of a panic, whose destructor panics.
    struct PanickingPayload;

    impl Drop for PanickingPayload {
        fn drop(&mut self) {
            panic!("the payload panics");
        }
    }

    struct PanickingGuard;

    impl Drop for PanickingGuard {
        fn drop(&mut self) {
            run_in_drop(|| panic_any(PanickingPayload));
        }
    }

    #[test]
    fn payload_that_panics_in_a_drop_does_not_abort() {
        let body: fn() = || {
            let _guard = PanickingGuard;
            panic!("the body panics");
        };
        assert!(catch_unwind(body).is_err());
    }

    #[test]
    fn panic_in_the_termination_marks_the_connection() {
        let mut session = PanickingSession {
            scripts_panic: true,
            ..PanickingSession::default()
        };
        let terminated = catch_unwind(AssertUnwindSafe(|| terminate(&mut session, None)));
        assert!(terminated.is_err());
        assert!(session.is_broken);
    }
}
