//! Driver for async sessions.

use std::future::poll_fn;
use std::ops::{ControlFlow, Deref, DerefMut};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_timer::Delay;

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
use crate::session::{AsyncLockSession, Backend, LockReply, Script, Statement, TerminateStep};
#[cfg(feature = "testing")]
use crate::testing::SimulatedSession;

/// Longest wait for the holders that an error contains.
const REPORT_LIMIT: Duration = Duration::from_millis(250);

/// Creates a machine that acquires a lock, and runs it on a session.
///
/// # Cancel safety
///
/// As [`drive`].
pub(crate) async fn drive_acquire<S, M>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
    machine: impl FnOnce(LockKey, &LockOptions, SessionSnapshot) -> M,
) -> Result<Grant, LockError>
where
    S: AsyncLockSession,
    M: Machine<Output = Result<Grant, LockError>> + Send + Sync,
{
    let backend = Some(session.session_backend());
    let now = session.session_now();
    let mut request = RequestRecord::new(key, options, scope, backend, now);
    let span = request.span();
    let record = Some(&mut request);
    let mut outcome = span
        .run(pin!(run_acquire(
            session, key, options, scope, machine, record
        )))
        .await;
    span.in_scope(|| end_request(request, &mut outcome, session.session_now()));
    outcome
}

/// Acquires as [`drive_acquire`] does, without an event.
#[cfg_attr(
    not(feature = "testing"),
    expect(unused_variables, reason = "only the unit-test kit reads the scope")
)]
pub(crate) async fn run_acquire<S, M>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    scope: LockScope,
    machine: impl FnOnce(LockKey, &LockOptions, SessionSnapshot) -> M,
    record: Option<&mut RequestRecord>,
) -> Result<Grant, LockError>
where
    S: AsyncLockSession,
    M: Machine<Output = Result<Grant, LockError>> + Send + Sync,
{
    session.session_await_rollbacks().await;
    // Read for each call, because the client may have begun a transaction since the last one.
    let state = snapshot(session);
    #[cfg(feature = "testing")]
    if let Some(mut session) = SimulatedSession::for_acquire(session, &state, key, options, scope) {
        let state = session.snapshot(state);
        let mut outcome = drive(&mut session, machine(key.clone(), options, state), record).await;
        session.finish_acquire(&mut outcome);
        return outcome;
    }
    drive(session, machine(key.clone(), options, state), record).await
}

/// Creates a machine that releases a lock, and runs it on a session.
///
/// # Cancel safety
///
/// As [`drive`].
pub(crate) async fn drive_release<S, M>(
    session: &mut S,
    mut grant: Grant,
    machine: impl FnOnce(Grant, SessionSnapshot) -> M,
) -> Result<(), LockError>
where
    S: AsyncLockSession,
    M: Machine<Output = Result<(), LockError>> + Send + Sync,
{
    // First: if the release panics or is dropped, the record of the release logs the termination.
    let release = grant.record.take().map(GrantRecord::releasing);
    let result = run_release(session, grant, machine).await;
    if let Some(release) = release {
        release.ended(&result, session.session_now());
    }
    result
}

/// Releases as [`drive_release`] does, without an event.
pub(crate) async fn run_release<S, M>(
    session: &mut S,
    grant: Grant,
    machine: impl FnOnce(Grant, SessionSnapshot) -> M,
) -> Result<(), LockError>
where
    S: AsyncLockSession,
    M: Machine<Output = Result<(), LockError>> + Send + Sync,
{
    // Read again after the body, which may have begun or ended transactions.
    let state = snapshot(session);
    #[cfg(feature = "testing")]
    if let Some(mut session) = SimulatedSession::for_release(session, &grant) {
        let outcome = drive(&mut session, machine(grant, state), None).await;
        session.finish_release(&outcome);
        return outcome;
    }
    drive(session, machine(grant, state), None).await
}

/// Runs a statement that reports locks. Empty on a backend without locks.
///
/// It is no machine: a report changes nothing, so nothing needs a clean-up.
///
/// # Cancel safety
///
/// The future may be dropped at any point. The client discards the reply, and locks stay held.
pub(crate) async fn report<S: AsyncLockSession>(
    session: &mut S,
    statement: Statement,
) -> Result<Vec<LockReport>, LockError> {
    if session.session_backend() != Backend::Postgres {
        return Ok(Vec::new());
    }
    parse_report(session.session_query(&statement).await)
}

/// Identifies the server.
///
/// It is no machine: its lock ends with its statement, so nothing needs a clean-up.
///
/// # Cancel safety
///
/// The future may be dropped at any point. The client discards the reply.
pub(crate) async fn identify<S: AsyncLockSession>(
    session: &mut S,
) -> Result<ServerReport, LockError> {
    session.session_await_rollbacks().await;
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
    match parse_identity(session.session_query(&with_lock).await) {
        Ok(report) => Ok(report),
        Err(refused) => {
            let version = session
                .session_query(&Statement::Identity { key: None })
                .await;
            parse_version(version, refused)
        }
    }
}

/// Returns the grant, or an error with the holders of the lock if the options ask for them.
///
/// # Cancel safety
///
/// As [`report`].
pub(crate) async fn with_holders<S: AsyncLockSession>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
    acquired: Result<Grant, LockError>,
) -> Result<Grant, LockError> {
    let error = match acquired {
        Ok(grant) => return Ok(grant),
        Err(error) => error,
    };
    if !reports_holders(&error, options, session.session_transaction_state()) {
        return Err(error);
    }
    let mut report = pin!(report(session, Statement::holders(key.raw())));
    // Not tokio's timer, which panics in a runtime without `enable_time`.
    let mut timeout = Delay::new(REPORT_LIMIT);
    let report = poll_fn(|context| match report.as_mut().poll(context) {
        Poll::Ready(report) => Poll::Ready(report.ok()),
        Poll::Pending => Pin::new(&mut timeout).poll(context).map(|()| None),
    });
    Err(add_holders(error, report.await))
}

/// Runs a machine on a session until it is done. The record of a request learns that it waits.
///
/// # Cancel safety
///
/// If the future is dropped while an action is in flight, or while the machine needs a clean-up,
/// the session is terminated. If the adapter can queue a rollback, that is the clean-up of a
/// transaction. If the future is dropped during any other pause, no lock is held.
pub(crate) async fn drive<S, M>(
    session: &mut S,
    machine: M,
    mut record: Option<&mut RequestRecord>,
) -> M::Output
where
    S: AsyncLockSession,
    M: Machine + Send + Sync,
    M::Output: Send,
{
    let mut guard = TerminateOnDrop {
        session,
        machine,
        in_flight: false,
        can_roll_back: false,
        waits_on_server: false,
    };
    let mut event = Event::Ready;
    loop {
        let now = guard.session.session_now();
        let action = guard.machine.handle(event, now);
        record_wait(record.as_deref_mut(), &action);
        // Set before the await: a drop at the first pending point of the action must see it.
        guard.in_flight = !matches!(action, Action::Sleep(_) | Action::Done(_));
        // After a dropped end, it is unknown whether the transaction is open. After a dropped begin
        // with a query, the adapter knows whether there is one to roll back.
        guard.can_roll_back = matches!(
            action,
            Action::Query(_) | Action::BeginAndQuery(_) | Action::Script(_)
        );
        guard.waits_on_server = action.waits_on_server();
        let pid = guard.machine.session_pid();
        match perform(guard.session, action, pid).await {
            ControlFlow::Continue(next) => event = next,
            ControlFlow::Break(output) => return output,
        }
        guard.in_flight = false;
    }
}

/// Runs the pooler check on two sessions until it is done.
///
/// # Cancel safety
///
/// If the future is dropped before its end, both sessions are terminated, because one of them may
/// hold the test lock.
pub(crate) async fn drive_pair<S: AsyncLockSession>(
    first: &mut S,
    second: &mut S,
    mut check: PoolerCheck,
) -> <PoolerCheck as Machine>::Output {
    // Without process ids: behind a pooler, they may be those of earlier sessions.
    let mut first = TerminateIfArmed::new(first, None);
    let mut second = TerminateIfArmed::new(second, None);
    let mut event = Event::Ready;
    loop {
        let action = check.handle(event, Instant::now());
        let session = match check.side() {
            Side::First => &mut *first,
            Side::Second => &mut *second,
        };
        match perform(session, action, None).await {
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
async fn perform<S: AsyncLockSession, T>(
    session: &mut S,
    action: Action<T>,
    pid: Option<i32>,
) -> ControlFlow<T, Event> {
    ControlFlow::Continue(match action {
        Action::Query(statement) => Event::Row(
            session
                .session_query(&statement)
                .await
                .and_then(LockReply::try_from),
        ),
        Action::Script(script) => Event::Ran(session.session_execute(&script).await),
        Action::Begin => Event::Ran(session.session_begin().await),
        Action::BeginAndQuery(statement) => Event::Begun(
            session
                .session_begin_and_query(&statement)
                .await
                .map(|row| row.and_then(LockReply::try_from)),
        ),
        Action::Commit(check) => Event::Ran(session.session_commit(check.as_ref()).await),
        Action::Rollback => Event::Ran(session.session_rollback().await),
        Action::Terminate => {
            terminate(session, pid).await;
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

/// Drop guard of a session that a machine drives. Terminates the session if an action is in flight
/// or if the machine needs a clean-up.
struct TerminateOnDrop<'s, S: AsyncLockSession, M: Machine> {
    session: &'s mut S,
    machine: M,
    in_flight: bool,
    /// The action in flight neither controls a transaction nor terminates the session.
    can_roll_back: bool,
    waits_on_server: bool,
}

impl<S: AsyncLockSession, M: Machine> Drop for TerminateOnDrop<'_, S, M> {
    fn drop(&mut self) {
        if !self.in_flight && !self.machine.needs_cleanup_if_dropped() {
            return;
        }
        let pid = self.machine.session_pid();
        let depth = self.machine.depth_of_caller();
        let depth = depth.filter(|_| !self.in_flight || self.can_roll_back);
        run_in_drop(|| {
            let mut clean_up = TerminateIfArmed::new(&mut *self.session, pid);
            // Only a wait needs a cancel request: the server would grant the lock to it much later.
            clean_up.cancels = self.in_flight && self.waits_on_server;
            clean_up.roll_back_to(depth);
        });
    }
}

/// Drop guard of a connection whose session may hold a lock. Terminates the session while it is
/// armed, also if the client panics.
pub(crate) struct TerminateIfArmed<C: DerefMut<Target: AsyncLockSession + Sized>> {
    conn: C,
    /// Process id of the session, if it is known.
    pub(crate) pid: Option<i32>,
    /// A wait is in flight, which is cancelled. The session is terminated in any case then.
    cancels: bool,
    /// `false` if the session holds no lock, or if its clean-up is queued.
    pub(crate) armed: bool,
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> TerminateIfArmed<C> {
    pub(crate) const fn new(conn: C, pid: Option<i32>) -> Self {
        Self {
            conn,
            pid,
            cancels: false,
            armed: true,
        }
    }

    /// Drops the connection, which may return to its pool. Its session must hold no lock.
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }

    /// Queues a rollback to the transactions of the caller, if the adapter can do that. Returns
    /// `true` if it is queued.
    pub(crate) fn roll_back_to(&mut self, depth: Option<u32>) -> bool {
        let is_queued = depth.is_some_and(|depth| self.conn.session_start_rollback_to(depth));
        self.armed = !is_queued;
        is_queued
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> Drop for TerminateIfArmed<C> {
    fn drop(&mut self) {
        run_in_drop(|| match (self.cancels, self.armed) {
            (true, _) => self.conn.session_cancel_and_terminate(self.pid),
            (false, true) => self.conn.session_start_terminate(self.pid),
            (false, false) => {}
        });
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> Deref for TerminateIfArmed<C> {
    type Target = C::Target;

    fn deref(&self) -> &Self::Target {
        &self.conn
    }
}

impl<C: DerefMut<Target: AsyncLockSession + Sized>> DerefMut for TerminateIfArmed<C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.conn
    }
}

/// Terminates the session `pid`, whose state is unknown, and marks its connection as broken.
///
/// On a backend without locks, which has no session to end, it rolls back the open transactions.
async fn terminate<S: AsyncLockSession>(session: &mut S, pid: Option<i32>) {
    if session.session_backend() == Backend::Postgres {
        // One script after the other, until the client sees the end of the session or the release
        // of all locks succeeds. Some servers forbid a script, and a late cancel request meant for
        // another statement may hit one.
        for step in TerminateStep::passes() {
            let script = Script::Terminate { step, pid };
            let reply = session.session_execute(&script).await;
            if step.ends_sequence(&reply) {
                break;
            }
        }
    } else {
        while session.session_transaction_state().is_open() {
            // A rollback that fails would fail again.
            if session.session_rollback().await.is_err() {
                break;
            }
        }
    }
    session.session_mark_broken();
}

/// Returns a snapshot of the session.
pub(crate) fn snapshot<S: AsyncLockSession>(session: &mut S) -> SessionSnapshot {
    let backend = session.session_backend();
    SessionSnapshot {
        backend,
        provides_exclusion: backend.provides_mutual_exclusion(),
        transaction: session.session_transaction_state(),
        max_server_wait: session.session_max_server_wait(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
