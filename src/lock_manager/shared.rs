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
//! * Work that may call back (a response, a loss, a new session, a wake-up) is [deferred](Deferred)
//!   until the mutex is released. An executor may poll a task in its wake-up. A response whose
//!   receiver is gone drops the [`LockHandle`] that it carries, which releases the lock through
//!   `with_core` again.
//!
//! One timer task or thread ([`run_timer`](Shared::run_timer)) sleeps until the core's next timer.
//! `with_core` wakes it only if the next timer has moved forward.

mod timer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use futures_channel::{mpsc, oneshot};

use super::core::{CONNECTION_CHECK_INTERVAL, Command, Core, SessionCommand, SessionId};
use super::lock_handle::LockHandle;
use super::loss_signal::LossSignal;
use super::options::LockManagerOptions;
use super::session_task::{PollPermit, SessionTask};
use super::snapshot::LockManagerSnapshot;
use crate::error::{LockError, LockErrorKind};
use crate::events::Notice;
use crate::observer::contained;
use crate::options::LockOptions;
use crate::session::Backend;

pub(super) type SessionCommands = mpsc::UnboundedReceiver<SessionCommand>;

/// The response to a caller.
#[derive(Debug)]
pub(super) enum Response {
    Granted(LockHandle),
    Failed(LockError),
    Released(Result<(), LockErrorKind>),
    Closed,
}

/// Sender of a response, and the report that its request waits.
#[derive(Debug)]
pub(super) struct ResponseSender {
    sender: oneshot::Sender<Response>,
    /// `None` for a release, and if nothing receives the report.
    notice: Option<Arc<Notice>>,
}

impl ResponseSender {
    pub(super) const fn new(sender: oneshot::Sender<Response>) -> Self {
        Self {
            sender,
            notice: None,
        }
    }

    pub(super) fn with_notice(self, notice: Option<Arc<Notice>>) -> Self {
        Self { notice, ..self }
    }
}

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
    pub(super) fn may_block_on(self, options: &LockOptions) -> bool {
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
    /// Fires when the lock manager closes, for calls that wait in the lock table of a test.
    #[cfg(feature = "testing")]
    pub(super) closed: LossSignal,
}

struct State {
    core: Core<ResponseSender>,
    /// Empty between calls; kept for its capacity.
    commands: Vec<Command<ResponseSender>>,
    sessions: BTreeMap<SessionId, SessionHandle>,
    losses: BTreeMap<SessionId, Arc<LossSignal>>,
    /// Time until which the timer sleeps; `None` without a timer of the core.
    timer_sleeps_until: Option<Instant>,
    /// `None` after a wake-up, until the timer sleeps again.
    timer_waker: Option<Waker>,
}

/// Capacity of the command buffer that is kept between calls.
const RETAINED_CAPACITY: usize = 64;

/// Work to do after the mutex is released: it may call back into [`Shared`].
enum Deferred {
    Spawn(SessionId, SessionCommands),
    /// A grant, an error or a released lock, for the task of the caller. Sending it wakes the task.
    Respond(oneshot::Sender<Response>, Response),
    /// The loss of a session.
    SignalLoss(Arc<LossSignal>),
    /// An event, whose subscriber or observer may call back.
    Report(Arc<Notice>),
    /// The waker of the timer, which must fire earlier than planned.
    Wake(Waker),
}

/// Deferred work. Most calls defer one item at most, which needs no allocation.
#[derive(Default)]
struct DeferredQueue {
    first: Option<Deferred>,
    more: Vec<Deferred>,
    /// Permit to poll a session, after the other items.
    permit: Option<PollPermit>,
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
        options: LockManagerOptions,
        sessions_block: bool,
        spawn_session: SpawnSession,
    ) -> Arc<Self> {
        let core = Core::new(options, fastrand::Rng::new(), Instant::now());
        Arc::new(Self {
            state: Mutex::new(State {
                core: if sessions_block {
                    core
                } else {
                    core.over_async_pool(CONNECTION_CHECK_INTERVAL)
                },
                commands: Vec::new(),
                sessions: BTreeMap::new(),
                losses: BTreeMap::new(),
                timer_sleeps_until: None,
                timer_waker: None,
            }),
            spawn_session,
            sessions_block,
            #[cfg(feature = "testing")]
            closed: LossSignal::default(),
        })
    }

    /// Applies an event to the core and dispatches its commands.
    pub(super) fn with_core<T>(
        self: &Arc<Self>,
        event: impl FnOnce(&mut Core<ResponseSender>, Instant) -> T,
    ) -> T {
        self.apply(event, false)
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
        self.apply(event, may_block || !self.sessions_block)
    }

    fn apply<T>(
        self: &Arc<Self>,
        event: impl FnOnce(&mut Core<ResponseSender>, Instant) -> T,
        polls: bool,
    ) -> T {
        let (value, deferred) = {
            let mut state = self.state();
            let now = Instant::now();
            let value = event(&mut state.core, now);
            let mut deferred = DeferredQueue::default();
            state.dispatch_all(self, polls, &mut deferred, now);
            if let Some(waker) = state.wake_timer_if_earlier() {
                deferred.push(Deferred::Wake(waker));
            }
            (value, deferred)
        };
        for item in deferred.first.into_iter().chain(deferred.more) {
            self.perform(item);
        }
        // Outside the mutex, because the session reports to the core when it is polled.
        if let Some(permit) = deferred.permit {
            permit.poll();
        }
        value
    }

    fn perform(self: &Arc<Self>, item: Deferred) {
        match item {
            Deferred::Spawn(session, commands) => {
                let task = (self.spawn_session)(Arc::clone(self), session, commands);
                // A final command may have removed the session meanwhile.
                if let Some(handle) = self.state().sessions.get_mut(&session) {
                    handle.task = task;
                }
            }
            // If the caller is gone, dropping the response releases the lock that it carries. The
            // waker of an executor that has ended may panic, and the other items must follow.
            Deferred::Respond(sender, response) => contained(|| drop(sender.send(response))),
            Deferred::SignalLoss(loss) => loss.fire(),
            Deferred::Report(notice) => notice.waits(),
            // A guard may be dropped while its thread panics, where a second panic would abort.
            Deferred::Wake(waker) => contained(|| waker.wake()),
        }
    }

    /// Drops the handle of a session whose loop has ended.
    ///
    /// The core sends no final command to a session that could not be opened. So without this call
    /// each failed attempt would leave a handle behind.
    pub(super) fn remove_session(&self, session: SessionId) {
        let handle = self.state().sessions.remove(&session);
        // Outside the mutex, because a task that is dropped may report to the core.
        drop(handle);
    }

    /// Returns the pool's database, after the first session was opened.
    pub(super) fn backend(&self) -> Option<Backend> {
        self.state().core.backend()
    }

    /// Returns a copy of the core's state.
    pub(super) fn snapshot(&self) -> LockManagerSnapshot {
        self.state().core.snapshot(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The core does not panic. If it did, later errors would be better than a panic in a drop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn dispatch_all(
        &mut self,
        shared: &Arc<Shared>,
        polls: bool,
        deferred: &mut DeferredQueue,
        now: Instant,
    ) {
        let mut commands = std::mem::take(&mut self.commands);
        commands = self.core.take_commands(commands, now);
        for command in commands.drain(..) {
            self.dispatch(command, shared, polls, deferred);
        }
        commands.shrink_to(RETAINED_CAPACITY);
        self.commands = commands;
    }

    fn dispatch(
        &mut self,
        command: Command<ResponseSender>,
        shared: &Arc<Shared>,
        polls: bool,
        deferred: &mut DeferredQueue,
    ) {
        match command {
            Command::Session { session, command } => {
                let runs = matches!(command, SessionCommand::RunBatch(_));
                if polls && runs && deferred.permit.is_none() {
                    // Before the command is sent: otherwise it would wake the owner.
                    deferred.permit = self.try_claim(session);
                }
                self.send(session, command, deferred);
            }
            // The core emits this before `Terminate`, whose dispatch removes the signal.
            Command::SessionLost { session } => {
                if let Some(loss) = self.losses.remove(&session) {
                    deferred.push(Deferred::SignalLoss(loss));
                }
            }
            Command::Granted { waiter, grant } => {
                let loss = grant.session.map(|session| self.loss(session));
                let pid = grant.session.and_then(|id| self.core.pid_of(id));
                let lock = LockHandle::new(Arc::clone(shared), grant, pid, loss);
                deferred.push(Deferred::Respond(waiter.sender, Response::Granted(lock)));
            }
            Command::Failed { waiter, error } => {
                deferred.push(Deferred::Respond(waiter.sender, Response::Failed(error)));
            }
            Command::Waits { request, key } => {
                let waiter = self.core.waiter(request, key);
                if let Some(notice) = waiter.and_then(|waiter| waiter.notice.clone()) {
                    deferred.push(Deferred::Report(notice));
                }
            }
            Command::Released { waiter, result } => {
                deferred.push(Deferred::Respond(waiter.sender, Response::Released(result)));
            }
            Command::Closed { waiter } => {
                deferred.push(Deferred::Respond(waiter.sender, Response::Closed));
            }
        }
    }

    fn loss(&mut self, session: SessionId) -> Arc<LossSignal> {
        Arc::clone(self.losses.entry(session).or_default())
    }

    /// Sends a command to a session. Starts the session if it is new. After its last command, drops
    /// its sender and its loss signal.
    fn send(&mut self, session: SessionId, command: SessionCommand, deferred: &mut DeferredQueue) {
        if matches!(command, SessionCommand::Close | SessionCommand::Terminate) {
            if let Some(handle) = self.sessions.remove(&session) {
                let _ = handle.commands.unbounded_send(command);
            }
            self.losses.remove(&session);
            return;
        }
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
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
