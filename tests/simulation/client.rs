//! What a client does, one call after the other, and what it may say of each.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use advisory_locking::{
    AsyncAdvisoryLocking, LockError, LockErrorKind, LockKey, LockMode, LockOptions, WaitStrategy,
};

use crate::belief::Believing;
use crate::line::Session;
use crate::world::World;

const CALLS: u32 = 6;

/// Waits in simulated time.
pub(crate) async fn pause(world: &World, client: usize, pause: Duration) {
    let until = world.state().elapsed + pause;
    poll_fn(|_| {
        let mut state = world.state();
        if state.elapsed >= until {
            state.timers[client] = None;
            return Poll::Ready(());
        }
        state.timers[client] = Some(until);
        Poll::Pending
    })
    .await;
}

/// Runs a call until it is done, or the schedule says to drop it.
async fn unless_dropped<T>(
    world: &World,
    client: usize,
    call: impl Future<Output = T>,
) -> Option<T> {
    world.state().in_call[client] = true;
    let done = {
        let mut call = pin!(call);
        poll_fn(|context| {
            if std::mem::take(&mut world.state().drops[client]) {
                world.state().timers[client] = None;
                return Poll::Ready(None);
            }
            call.as_mut().poll(context).map(Some)
        })
        .await
    };
    let mut state = world.state();
    state.in_call[client] = false;
    state.drops[client] = false;
    done
}

/// How a call is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum How {
    Release,
    Drop,
    With,
    WithFailing,
    Scope,
    ScopeFailing,
    Nested,
}

const HOWS: [How; 7] = [
    How::Release,
    How::Drop,
    How::With,
    How::WithFailing,
    How::Scope,
    How::ScopeFailing,
    How::Nested,
];

#[derive(Clone, Debug)]
struct Call {
    how: How,
    key: LockKey,
    mode: LockMode,
    options: LockOptions,
    hold: Duration,
    inner: Option<Box<Self>>,
}

impl Call {
    fn choose(world: &World, nested: bool) -> Self {
        let inner = (!nested && world.state().rng.u8(..4) == 0)
            .then(|| Box::new(Self::choose(world, true)));
        let mut state = world.state();
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
        let how = HOWS[rng.usize(..HOWS.len())];
        Self {
            how,
            key: LockKey::from(rng.i64(0..3)),
            mode,
            options: options.mode(mode),
            hold: Duration::from_micros(rng.u64(..5000)),
            inner,
        }
    }
}

#[derive(Debug)]
enum Ended {
    Body,
    Lock(LockError),
}

impl From<LockError> for Ended {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

pub(crate) async fn client(world: World, number: usize) {
    let mut session = Session::connect(&world, number);
    for _ in 0..CALLS {
        let call = Call::choose(&world, false);
        world.state().trace(|| format!("client {number}: {call:?}"));
        let ended = unless_dropped(&world, number, make(&world, number, &mut session, &call)).await;
        world
            .state()
            .trace(|| format!("client {number}: {ended:?}"));
        // What nobody waits for comes to its end.
        poll_fn(|_| {
            let state = world.state();
            if state.lines[session.line].is_quiet() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        check_after(&world, &mut session, &call);
        let renew = {
            let state = world.state();
            let line = &state.lines[session.line];
            session.is_broken() || line.exchanged || !state.server.is_alive(line.pid)
        };
        if renew {
            session = Session::connect(&world, number);
        }
        pause(&world, number, Duration::from_micros(100)).await;
    }
}

/// Whatever came of the call: the session holds nothing and waits for nothing, or it has ended.
fn check_after(world: &World, session: &mut Session, call: &Call) {
    use advisory_locking::session::AsyncLockSession;
    let depth = session.session_transaction_state().depth();
    let state = world.state();
    let pid = state.lines[session.line].pid;
    assert!(
        !session.is_broken() || !state.server.is_alive(pid),
        "a condemned session lives: {call:?}"
    );
    if state.lines[session.line].exchanged {
        // Which session has what, nobody can know behind a pooler; whoever noticed has said so.
        return;
    }
    assert_eq!(state.server.levels_of(pid), 0, "left behind by {call:?}");
    if state.server.is_alive(pid) {
        assert_eq!(depth, 0, "a transaction left open by {call:?}");
        assert!(!state.server.is_in_transaction(pid), "and on the server");
    }
}

async fn make(
    world: &World,
    client: usize,
    session: &mut Session,
    call: &Call,
) -> Result<(), Ended> {
    let line = session.line;
    match call.how {
        How::Release | How::Drop | How::Nested => {
            let granted = session
                .try_acquire_advisory_lock(&call.key, call.options)
                .await?;
            let Some(mut guard) = granted else {
                world.state().met.refused += 1;
                return Ok(());
            };
            let believing = Believing::begin(world, line, &call.key, call.mode, false);
            pause(world, client, call.hold).await;
            if let (How::Nested, Some(inner)) = (call.how, &call.inner) {
                inner_call(world, client, &mut guard, inner).await?;
            }
            let held = believing.end();
            if call.how == How::Drop {
                drop(guard);
                return Ok(());
            }
            release(world, held, guard.release().await)
        }
        How::With | How::WithFailing => {
            let fails = call.how == How::WithFailing;
            let mut held = false;
            let held_to = &mut held;
            let ended = session
                .with_advisory_lock(&call.key, call.options, async |session| {
                    let believing = Believing::begin(world, line, &call.key, call.mode, false);
                    pause(world, client, call.hold).await;
                    if let Some(inner) = &call.inner {
                        inner_call(world, client, session, inner).await?;
                    }
                    *held_to = believing.end();
                    if fails { Err(Ended::Body) } else { Ok(()) }
                })
                .await;
            ran(world, held, ended)
        }
        How::Scope | How::ScopeFailing => {
            let fails = call.how == How::ScopeFailing;
            let mut held = false;
            let held_to = &mut held;
            let ended = session
                .with_advisory_xact_lock(&call.key, call.options, async |session| {
                    let believing = Believing::begin(world, line, &call.key, call.mode, true);
                    pause(world, client, call.hold).await;
                    if let Some(inner) = &call.inner {
                        inner_scope(world, client, session, inner).await?;
                    }
                    *held_to = believing.end();
                    if fails { Err(Ended::Body) } else { Ok(()) }
                })
                .await;
            ran(world, held, ended)
        }
    }
}

/// A call in the body of another.
async fn inner_call(
    world: &World,
    client: usize,
    session: &mut Session,
    call: &Call,
) -> Result<(), Ended> {
    let line = session.line;
    let mut held = false;
    let held_to = &mut held;
    let ended = session
        .with_advisory_lock(&call.key, call.options, async |_| {
            let believing = Believing::begin(world, line, &call.key, call.mode, false);
            pause(world, client, call.hold).await;
            *held_to = believing.end();
            Ok(())
        })
        .await;
    ran(world, held, ended)
}

/// A scope in a scope.
async fn inner_scope(
    world: &World,
    client: usize,
    session: &mut Session,
    call: &Call,
) -> Result<(), Ended> {
    let line = session.line;
    let mut held = false;
    let held_to = &mut held;
    let ended = session
        .with_advisory_xact_lock(&call.key, call.options, async |_| {
            let believing = Believing::begin(world, line, &call.key, call.mode, true);
            pause(world, client, call.hold).await;
            *held_to = believing.end();
            Ok(())
        })
        .await;
    ran(world, held, ended)
}

fn release(world: &World, held: bool, released: Result<(), LockError>) -> Result<(), Ended> {
    ran(world, held, released.map_err(Ended::Lock))
}

/// A success is said only of a lock that was held to its end.
fn ran(world: &World, held: bool, ended: Result<(), Ended>) -> Result<(), Ended> {
    let mut state = world.state();
    match &ended {
        Ok(()) => {
            assert!(held, "a success, but the lock was lost");
            state.met.succeeded += 1;
        }
        Err(Ended::Body) => {}
        Err(Ended::Lock(error)) => match error.kind() {
            LockErrorKind::HeldElsewhere | LockErrorKind::TimedOut => state.met.refused += 1,
            LockErrorKind::Deadlock => state.met.deadlocks += 1,
            LockErrorKind::SessionChanged => state.met.exchanged += 1,
            _ if error.is_lost() => state.met.lost += 1,
            _ => state.met.failed += 1,
        },
    }
    ended
}
