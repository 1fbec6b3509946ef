//! State that the callers of a lock manager and its sessions share: [`Shared`].
//!
//! # Implementation details
//!
//! The core does no I/O: an event changes its state and yields commands. `Shared` keeps it behind a
//! mutex. [`with_core`](Shared::with_core) locks the mutex, applies one event and dispatches the
//! commands:
//!
//! * A command for a session goes into that session's unbounded channel, under the mutex. So every
//!   session receives its commands in the order of the core's decisions.
//! * Work that may call back (a response, a new session, a wake-up) is [deferred](Deferred) until
//!   the mutex is released. A response whose receiver is gone drops the [`LockHandle`] that it
//!   carries, which releases the lock through `with_core` again.
//!
//! One timer task or thread ([`run_timer`](Shared::run_timer)) sleeps until the core's next timer.
//! `with_core` wakes it only if the next timer has moved forward.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_channel::{mpsc, oneshot};
use futures_timer::Delay;

use super::core::{Command, Core, LockGrant, SessionId};
use super::loss_signal::LossSignal;
use super::options::Settings;
use super::session_task::{PollPermit, SessionTask};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::session::LockBatch;

/// A command for a session.
#[derive(Debug)]
pub(super) enum SessionCommand {
    Open,
    Run(LockBatch),
    Wait { key: LockKey, options: LockOptions },
    Close,
    Terminate,
}

pub(super) type SessionCommands = mpsc::UnboundedReceiver<SessionCommand>;

/// The response to a caller.
#[derive(Debug)]
pub(super) enum Response {
    Granted(LockHandle),
    Failed(LockError),
    Released(Result<(), LockErrorKind>),
    Closed,
}

pub(super) type ResponseSender = oneshot::Sender<Response>;

/// The kind of code that makes a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Caller {
    /// Runs on an executor, which it must not block.
    Async,
    /// Blocks its thread.
    Blocking,
}

impl Caller {
    /// Returns true if a request with these options may block its thread for a statement.
    ///
    /// A request that waits may not: a blocking statement does not return at the limit of the wait
    /// if the network fails silently.
    pub(super) const fn may_block_on(self, options: &LockOptions) -> bool {
        self.may_block() && !options.waits()
    }

    pub(super) const fn may_block(self) -> bool {
        matches!(self, Self::Blocking)
    }
}

/// Starts a session on a task or a thread. Returns `None` if no thread could be started.
type SpawnSession =
    Box<dyn Fn(Arc<Shared>, SessionId, SessionCommands) -> Option<Arc<SessionTask>> + Send + Sync>;

/// The sending side of a session.
struct SessionHandle {
    commands: mpsc::UnboundedSender<SessionCommand>,
    task: Option<Arc<SessionTask>>,
}

/// The core of a lock manager behind a mutex, and the dispatch of its commands.
pub(super) struct Shared {
    state: Mutex<State>,
    spawn_session: SpawnSession,
    /// The pool is a blocking one: a statement blocks its thread and cannot be cancelled.
    sessions_block: bool,
}

struct State {
    core: Core<ResponseSender>,
    /// Empty between calls; kept for its capacity.
    commands: Vec<Command<ResponseSender>>,
    sessions: BTreeMap<SessionId, SessionHandle>,
    losses: BTreeMap<SessionId, Arc<LossSignal>>,
    timer: TimerState,
}

/// The waker of the timer task, and the time until which it sleeps.
#[derive(Default)]
struct TimerState {
    armed_until: Option<Instant>,
    waker: Option<Waker>,
}

/// Capacity of the command buffer that is kept between calls.
const RETAINED_CAPACITY: usize = 64;

/// Work to do after the mutex is released: it may call back into [`Shared`].
enum Deferred {
    Spawn(SessionId, SessionCommands),
    Respond(ResponseSender, Response),
    Wake(Waker),
}

/// Deferred work. Most calls defer one item at most, which needs no allocation.
#[derive(Default)]
struct DeferredQueue {
    first: Option<Deferred>,
    more: Vec<Deferred>,
}

impl DeferredQueue {
    fn push(&mut self, deferred: Deferred) {
        if self.first.is_none() {
            self.first = Some(deferred);
        } else {
            self.more.push(deferred);
        }
    }
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        sessions_block: bool,
        spawn_session: SpawnSession,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                core: Core::new(settings, fastrand::Rng::new(), Instant::now()),
                commands: Vec::new(),
                sessions: BTreeMap::new(),
                losses: BTreeMap::new(),
                timer: TimerState::default(),
            }),
            spawn_session,
            sessions_block,
        })
    }

    /// Applies an event to the core and dispatches its commands.
    pub(super) fn with_core<T>(
        self: &Arc<Self>,
        event: impl FnOnce(&mut Core<ResponseSender>, Instant) -> T,
    ) -> T {
        self.apply(event, None)
    }

    /// Applies an event as [`with_core`](Self::with_core) does, then polls the session that the
    /// first command goes to.
    ///
    /// Over a blocking pool that poll runs a statement, so it needs a caller that `may_block`.
    pub(super) fn with_core_and_poll<T>(
        self: &Arc<Self>,
        may_block: bool,
        event: impl FnOnce(&mut Core<ResponseSender>, Instant) -> T,
    ) -> T {
        if self.sessions_block && !may_block {
            return self.with_core(event);
        }
        let mut permit = None;
        let value = self.apply(event, Some(&mut permit));
        // Outside the mutex, because the session reports to the core when it is polled.
        if let Some(permit) = permit {
            permit.poll();
        }
        value
    }

    fn apply<T>(
        self: &Arc<Self>,
        event: impl FnOnce(&mut Core<ResponseSender>, Instant) -> T,
        permit: Option<&mut Option<PollPermit>>,
    ) -> T {
        let (value, deferred) = {
            let mut state = self.state();
            let value = event(&mut state.core, Instant::now());
            let mut deferred = DeferredQueue::default();
            state.dispatch_all(self, permit, &mut deferred);
            if let Some(waker) = state.wake_timer_if_earlier() {
                deferred.push(Deferred::Wake(waker));
            }
            (value, deferred)
        };
        for item in deferred.first.into_iter().chain(deferred.more) {
            match item {
                Deferred::Spawn(session, commands) => {
                    let task = (self.spawn_session)(Arc::clone(self), session, commands);
                    if let Some(handle) = self.state().sessions.get_mut(&session) {
                        handle.task = task;
                    }
                }
                // If the caller is gone, dropping the response releases the lock that it carries.
                Deferred::Respond(sender, response) => drop(sender.send(response)),
                Deferred::Wake(waker) => waker.wake(),
            }
        }
        value
    }

    /// Drops the handle of a session whose loop has ended.
    ///
    /// The core sends no final command to a session that could not be opened, so without this call
    /// each failed attempt would leave a handle behind.
    pub(super) fn remove_session(&self, session: SessionId) {
        let handle = self.state().sessions.remove(&session);
        // Outside the mutex, because a task that is dropped may report to the core.
        drop(handle);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The core does not panic. If it did, later errors would be better than a panic in a drop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the core's timers until the lock manager is finished.
    ///
    /// Dropping the future earlier, with its runtime, shuts the lock manager down: without timers
    /// no wait would end at its limit.
    pub(super) fn run_timer(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Created here, not in the future, which may be dropped before its first poll.
        let shutdown = ShutdownOnDrop(self);
        async move { shutdown.0.timer_loop().await }
    }

    async fn timer_loop(self: &Arc<Self>) {
        let mut delay: Option<Delay> = None;
        poll_fn(|context| {
            loop {
                self.with_core(|core, now| core.run_due_timers(now));
                let next = {
                    let mut state = self.state();
                    if state.core.is_finished() {
                        return Poll::Ready(());
                    }
                    let next = state.core.next_timer();
                    // Under the mutex, so that no event can set an earlier timer unnoticed before
                    // the waker is stored.
                    state.timer = TimerState {
                        armed_until: next,
                        waker: Some(context.waker().clone()),
                    };
                    next
                };
                let Some(next) = next else {
                    return Poll::Pending;
                };
                // If the time has passed meanwhile, the delay is ready and the loop runs it.
                let left = next.saturating_duration_since(Instant::now());
                let delay = delay.get_or_insert_with(|| Delay::new(left));
                delay.reset(left);
                if Pin::new(delay).poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

/// Shuts the lock manager down when it is dropped.
struct ShutdownOnDrop(Arc<Shared>);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        self.0.with_core(|core, now| core.shut_down(now));
    }
}

impl State {
    fn dispatch_all(
        &mut self,
        shared: &Arc<Shared>,
        mut permit: Option<&mut Option<PollPermit>>,
        deferred: &mut DeferredQueue,
    ) {
        let mut commands = std::mem::take(&mut self.commands);
        // A loop, because the dispatch of `Terminate` may report an event to the core.
        loop {
            commands = self.core.take_commands(commands);
            if commands.is_empty() {
                break;
            }
            for command in commands.drain(..) {
                self.dispatch(command, shared, permit.as_deref_mut(), deferred);
            }
        }
        commands.shrink_to(RETAINED_CAPACITY);
        self.commands = commands;
    }

    fn dispatch(
        &mut self,
        command: Command<ResponseSender>,
        shared: &Arc<Shared>,
        permit: Option<&mut Option<PollPermit>>,
        deferred: &mut DeferredQueue,
    ) {
        match command {
            Command::Open { session } => self.send(session, SessionCommand::Open, deferred),
            Command::RunBatch { session, batch } => {
                // Claimed before the command is sent: otherwise the command would wake the owner.
                if let Some(permit) = permit.filter(|permit| permit.is_none()) {
                    *permit = self.try_claim(session);
                }
                self.send(session, SessionCommand::Run(batch), deferred);
            }
            Command::WaitOnServer {
                session,
                key,
                options,
            } => self.send(session, SessionCommand::Wait { key, options }, deferred),
            Command::Close { session } => self.send_final(session, SessionCommand::Close),
            Command::Terminate { session } => {
                self.send_final(session, SessionCommand::Terminate);
                // A blocking statement may last as long as the server or the network takes, so the
                // core does not wait for its end.
                if shared.sessions_block {
                    self.core.on_session_closed(session);
                }
            }
            // The core emits this before `Terminate`, whose dispatch removes the signal.
            Command::SessionLost { session } => {
                if let Some(loss) = self.losses.remove(&session) {
                    loss.fire();
                }
            }
            Command::Granted { waiter, grant } => {
                let loss = grant.session.map(|session| self.loss(session));
                let lock = LockHandle::new(Arc::clone(shared), grant, loss);
                deferred.push(Deferred::Respond(waiter, Response::Granted(lock)));
            }
            Command::Failed { waiter, error } => {
                deferred.push(Deferred::Respond(waiter, Response::Failed(error)));
            }
            Command::Released { waiter, result } => {
                deferred.push(Deferred::Respond(waiter, Response::Released(result)));
            }
            Command::Closed { waiter } => {
                deferred.push(Deferred::Respond(waiter, Response::Closed));
            }
        }
    }

    fn loss(&mut self, session: SessionId) -> Arc<LossSignal> {
        Arc::clone(self.losses.entry(session).or_default())
    }

    /// Sends a command to a session; starts the session if it is new.
    fn send(&mut self, session: SessionId, command: SessionCommand, deferred: &mut DeferredQueue) {
        let handle = self.sessions.entry(session).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded();
            deferred.push(Deferred::Spawn(session, receiver));
            SessionHandle {
                commands: sender,
                task: None,
            }
        });
        // A closed channel means that the session has ended. It reports that to the core itself.
        let _ = handle.commands.unbounded_send(command);
    }

    /// Claims the session that is about to get a command, for one poll by the caller.
    fn try_claim(&self, session: SessionId) -> Option<PollPermit> {
        self.sessions.get(&session)?.task.as_ref()?.try_claim()
    }

    /// Sends a session its last command, and drops its sender and its loss signal.
    fn send_final(&mut self, session: SessionId, command: SessionCommand) {
        if let Some(handle) = self.sessions.remove(&session) {
            let _ = handle.commands.unbounded_send(command);
        }
        self.losses.remove(&session);
    }

    /// Takes the timer's waker if it must wake before it planned to, or for the last time.
    fn wake_timer_if_earlier(&mut self) -> Option<Waker> {
        let earlier = match (self.core.next_timer(), self.timer.armed_until) {
            (Some(next), Some(armed_until)) => next < armed_until,
            (Some(_), None) => true,
            (None, _) => false,
        };
        // The timer keeps `Shared` alive, and `Shared` the pool: so the timer must end as well.
        if earlier || self.core.is_finished() {
            self.timer.waker.take()
        } else {
            None
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A granted lock; released when dropped.
#[derive(Debug)]
pub(super) struct LockHandle {
    shared: Arc<Shared>,
    grant: Option<LockGrant>,
    pub(super) token: Option<i64>,
    pub(super) session: Option<SessionId>,
    pub(super) loss: Option<Arc<LossSignal>>,
}

impl LockHandle {
    const fn new(shared: Arc<Shared>, grant: LockGrant, loss: Option<Arc<LossSignal>>) -> Self {
        Self {
            shared,
            token: grant.token,
            session: grant.session,
            grant: Some(grant),
            loss,
        }
    }

    /// Releases the lock. The receiver gets the result.
    pub(super) fn release(mut self, caller: Caller) -> ResponseReceiver {
        let (sender, receiver) = oneshot::channel();
        if let Some(grant) = self.grant.take() {
            let release =
                |core: &mut Core<ResponseSender>, now| core.release(grant, Some(sender), now);
            self.shared.with_core_and_poll(caller.may_block(), release);
        }
        ResponseReceiver(receiver)
    }

    /// Releases several locks of one lock manager in one batch.
    pub(super) fn release_all(mut all: Vec<Self>) -> Vec<ResponseReceiver> {
        let Some(shared) = all.first().map(|lock| Arc::clone(&lock.shared)) else {
            return Vec::new();
        };
        let (senders, receivers): (Vec<_>, Vec<_>) = all.iter().map(|_| oneshot::channel()).unzip();
        let grants: Vec<_> = all.iter_mut().map(|lock| lock.grant.take()).collect();
        shared.with_core(|core, now| {
            core.batched(now, |core| {
                for (grant, sender) in grants.into_iter().zip(senders) {
                    if let Some(grant) = grant {
                        core.release(grant, Some(sender), now);
                    }
                }
            });
        });
        receivers.into_iter().map(ResponseReceiver).collect()
    }
}

/// The receiver of a response. Its output is `None` if the lock manager is gone.
pub(super) struct ResponseReceiver(pub(super) oneshot::Receiver<Response>);

impl Future for ResponseReceiver {
    type Output = Option<Response>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

impl Drop for LockHandle {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.shared
                .with_core(|core, now| core.release(grant, None, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lock_manager::LockManager;
    use crate::session::{Backend, LockPool, LockSession, SessionError, TransactionState};

    /// Pool that has no connection.
    struct EmptyPool;

    /// Connection that does not exist.
    enum NoConnection {}

    impl LockSession for NoConnection {
        fn session_backend(&mut self) -> Backend {
            match *self {}
        }

        fn session_transaction_state(&mut self) -> TransactionState {
            match *self {}
        }

        fn session_begin(&mut self) -> Result<(), SessionError> {
            match *self {}
        }

        fn session_commit(&mut self) -> Result<(), SessionError> {
            match *self {}
        }

        fn session_rollback(&mut self) -> Result<(), SessionError> {
            match *self {}
        }
    }

    impl LockPool for EmptyPool {
        type Session = NoConnection;
        type Connection = Box<NoConnection>;

        fn checkout(&self) -> Result<Self::Connection, SessionError> {
            Err(SessionError::new("the pool is empty"))
        }
    }

    #[test]
    fn failed_session_leaves_no_handle_behind() {
        let manager = LockManager::over_blocking_pool(EmptyPool).unwrap();
        for _ in 0..20 {
            let result = manager.acquire_blocking("empty pool", LockOptions::no_wait());
            assert_eq!(result.unwrap_err().kind(), LockErrorKind::Pool);
        }
        // The thread of a session ends after its last report.
        let deadline = Instant::now() + Duration::from_secs(60);
        let shared = &manager.handle.shared;
        while !shared.state().sessions.is_empty() {
            assert!(Instant::now() < deadline, "handles are left");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
