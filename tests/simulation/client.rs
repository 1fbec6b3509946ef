//! A simulated client: its calls, and the assertions on their outcomes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use advisory_locking::session::AsyncLockBody;
use advisory_locking::{
    AsyncAdvisoryLocking, LockError, LockErrorKind, LockKey, LockMode, LockOptions, LockScope,
    WaitStrategy,
};

use crate::claims::ClaimGuard;
use crate::link::Session;
use crate::simulation::Simulation;

const CALLS: u32 = 6;

/// Waits in simulated time.
pub(crate) async fn pause(simulation: &Simulation, client: usize, pause: Duration) {
    let until = simulation.state().elapsed + pause;
    poll_fn(|_| {
        let mut state = simulation.state();
        if state.elapsed >= until {
            state.timers[client] = None;
            return Poll::Ready(());
        }
        state.timers[client] = Some(until);
        Poll::Pending
    })
    .await;
}

/// Runs a call until it ends, or drops it (`None`) when the schedule requires it.
async fn run_or_drop<T>(
    simulation: &Simulation,
    client: usize,
    call: impl Future<Output = T>,
) -> Option<T> {
    simulation.state().in_call[client] = true;
    let done = {
        let mut call = pin!(call);
        poll_fn(|context| {
            if std::mem::take(&mut simulation.state().drops[client]) {
                simulation.state().timers[client] = None;
                return Poll::Ready(None);
            }
            call.as_mut().poll(context).map(Some)
        })
        .await
    };
    let mut state = simulation.state();
    state.in_call[client] = false;
    state.drops[client] = false;
    done
}

/// Kind of a call, with its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum CallKind {
    Release,
    Drop,
    With,
    WithFailing,
    Scope,
    ScopeFailing,
    Nested,
}

const CALL_KINDS: [CallKind; 7] = [
    CallKind::Release,
    CallKind::Drop,
    CallKind::With,
    CallKind::WithFailing,
    CallKind::Scope,
    CallKind::ScopeFailing,
    CallKind::Nested,
];

#[derive(Clone, Debug)]
struct Call {
    kind: CallKind,
    key: LockKey,
    mode: LockMode,
    options: LockOptions,
    hold: Duration,
    inner: Option<Box<Self>>,
}

impl Call {
    fn choose(simulation: &Simulation, nested: bool) -> Self {
        let inner = (!nested && simulation.state().rng.u8(..4) == 0)
            .then(|| Box::new(Self::choose(simulation, true)));
        let mut state = simulation.state();
        let rng = &mut state.rng;
        let limit = Duration::from_micros([0, 1, 500, 3000, 20_000][rng.usize(..5)]);
        let options = match rng.u8(..6) {
            0 => LockOptions::no_wait(),
            1 | 2 => LockOptions::wait_up_to(limit).interval(Duration::from_millis(2)),
            3 | 4 => LockOptions::wait_up_to(limit).strategy(WaitStrategy::Block),
            _ => LockOptions::wait_forever().strategy(WaitStrategy::Block),
        };
        let mode = if rng.u8(..3) == 0 {
            LockMode::Shared
        } else {
            LockMode::Exclusive
        };
        let kind = CALL_KINDS[rng.usize(..CALL_KINDS.len())];
        Self {
            kind,
            key: LockKey::from(rng.i64(0..3)),
            mode,
            options: options.mode(mode),
            hold: Duration::from_micros(rng.u64(..5000)),
            inner,
        }
    }
}

#[derive(Debug)]
enum CallFailure {
    Body,
    Lock(LockError),
}

impl From<LockError> for CallFailure {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

pub(crate) async fn client(simulation: Simulation, number: usize) {
    let mut session = Session::connect(&simulation, number);
    for _ in 0..CALLS {
        let call = Call::choose(&simulation, false);
        simulation
            .state()
            .trace(|| format!("client {number}: {call:?}"));
        let ended = run_or_drop(
            &simulation,
            number,
            make(&simulation, number, &mut session, &call),
        )
        .await;
        simulation
            .state()
            .trace(|| format!("client {number}: {ended:?}"));
        // Messages that were sent without waiting for a reply are executed first.
        poll_fn(|_| {
            let state = simulation.state();
            if state.links[session.link].is_quiet() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        check_after(&simulation, &mut session, &call);
        let renew = {
            let state = simulation.state();
            let link = &state.links[session.link];
            session.is_broken() || link.swapped || !state.server.is_alive(link.pid)
        };
        if renew {
            session = Session::connect(&simulation, number);
        }
        pause(&simulation, number, Duration::from_micros(100)).await;
    }
}

/// Asserts that the session holds no lock and has no transaction, or has ended.
fn check_after(simulation: &Simulation, session: &mut Session, call: &Call) {
    use advisory_locking::session::AsyncLockSession;
    let depth = session.session_transaction_state().depth();
    let state = simulation.state();
    let pid = state.links[session.link].pid;
    assert!(
        !session.is_broken() || !state.server.is_alive(pid),
        "a terminated session lives: {call:?}"
    );
    if state.links[session.link].swapped {
        // After a swap the client cannot know which session holds the lock.
        return;
    }
    assert_eq!(state.server.levels_of(pid), 0, "left behind by {call:?}");
    if state.server.is_alive(pid) {
        assert_eq!(depth, 0, "a transaction left open by {call:?}");
        assert!(!state.server.is_in_transaction(pid), "and on the server");
    }
}

async fn make(
    simulation: &Simulation,
    client: usize,
    session: &mut Session,
    call: &Call,
) -> Result<(), CallFailure> {
    let scope = match call.kind {
        CallKind::Release | CallKind::Drop | CallKind::Nested => {
            return with_guard(simulation, client, session, call).await;
        }
        CallKind::With | CallKind::WithFailing => LockScope::Session,
        CallKind::Scope | CallKind::ScopeFailing => LockScope::Transaction,
    };
    let fails = matches!(call.kind, CallKind::WithFailing | CallKind::ScopeFailing);
    with_body(simulation, session, call, scope, async |session| {
        pause(simulation, client, call.hold).await;
        if let Some(inner) = &call.inner {
            inner_call(simulation, client, session, inner, scope).await?;
        }
        if fails {
            Err(CallFailure::Body)
        } else {
            Ok(())
        }
    })
    .await
}

async fn with_guard(
    simulation: &Simulation,
    client: usize,
    session: &mut Session,
    call: &Call,
) -> Result<(), CallFailure> {
    let link = session.link;
    let granted = session
        .try_acquire_advisory_lock(&call.key, call.options)
        .await?;
    let Some(mut guard) = granted else {
        simulation.state().coverage.contended += 1;
        return Ok(());
    };
    let claim = ClaimGuard::begin(simulation, link, &call.key, call.mode, false);
    pause(simulation, client, call.hold).await;
    if let (CallKind::Nested, Some(inner)) = (call.kind, &call.inner) {
        inner_call(simulation, client, &mut guard, inner, LockScope::Session).await?;
    }
    let held = claim.end();
    if call.kind == CallKind::Drop {
        drop(guard);
        return Ok(());
    }
    let released = guard.release().await.map_err(CallFailure::Lock);
    record_outcome(simulation, held, released)
}

/// A call inside the body of another call.
async fn inner_call(
    simulation: &Simulation,
    client: usize,
    session: &mut Session,
    call: &Call,
    scope: LockScope,
) -> Result<(), CallFailure> {
    with_body(simulation, session, call, scope, async |_| {
        pause(simulation, client, call.hold).await;
        Ok(())
    })
    .await
}

/// Makes a call with a body, and claims the lock while the body runs.
async fn with_body(
    simulation: &Simulation,
    session: &mut Session,
    call: &Call,
    scope: LockScope,
    body: impl AsyncLockBody<Session, (), CallFailure>,
) -> Result<(), CallFailure> {
    let link = session.link;
    let in_transaction = scope == LockScope::Transaction;
    let mut held = false;
    let held_to = &mut held;
    let body = async |session: &mut Session| {
        let claim = ClaimGuard::begin(simulation, link, &call.key, call.mode, in_transaction);
        body(session).await?;
        *held_to = claim.end();
        Ok(())
    };
    let ended = if in_transaction {
        session
            .with_advisory_xact_lock(&call.key, call.options, body)
            .await
    } else {
        session
            .with_advisory_lock(&call.key, call.options, body)
            .await
    };
    record_outcome(simulation, held, ended)
}

/// Counts the outcome. A success requires that the lock was held until its release.
fn record_outcome(
    simulation: &Simulation,
    held: bool,
    ended: Result<(), CallFailure>,
) -> Result<(), CallFailure> {
    let mut state = simulation.state();
    match &ended {
        Ok(()) => {
            assert!(held, "success although the lock was lost");
            state.coverage.succeeded += 1;
        }
        Err(CallFailure::Body) => {}
        Err(CallFailure::Lock(error)) => match error.kind() {
            LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut => state.coverage.contended += 1,
            LockErrorKind::Deadlock => state.coverage.deadlocks += 1,
            LockErrorKind::SessionChanged => state.coverage.swapped += 1,
            _ if error.is_lost() => state.coverage.lost += 1,
            _ => state.coverage.failed += 1,
        },
    }
    ended
}
