//! What the users of a locker and its sessions share: the core behind a mutex, and where its commands go.

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
use super::station::{Help, Station};
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::session::LockBatch;

/// What a session is to do.
#[derive(Debug)]
pub(super) enum Order {
    Open,
    Run(LockBatch),
    Wait { key: LockKey, options: LockOptions },
    Close,
    Abandon,
}

pub(super) type Orders = mpsc::UnboundedReceiver<Order>;

/// What a user is told.
#[derive(Debug)]
pub(super) enum Answer {
    Granted(Held),
    Refused(LockError),
    Released(Result<(), LockErrorKind>),
    Closed,
}

pub(super) type Reply = oneshot::Sender<Answer>;

/// Starts a session where sessions run: on a task or on a thread, and in calls. `None` if there is no thread for it.
type Start = Box<dyn Fn(Arc<Hub>, SessionId, Orders) -> Option<Arc<Station>> + Send + Sync>;

/// A session, for those who give it orders.
struct Desk {
    orders: mpsc::UnboundedSender<Order>,
    station: Option<Arc<Station>>,
}

/// A locker, as its users and its sessions see it.
pub(super) struct Hub {
    state: Mutex<State>,
    start: Start,
    /// Sessions run on threads: their statements block, and cannot be told to stop.
    on_threads: bool,
}

struct State {
    core: Core<Reply>,
    /// Empty, with the room that the last commands took.
    commands: Vec<Command<Reply>>,
    sessions: BTreeMap<SessionId, Desk>,
    losses: BTreeMap<SessionId, Arc<LossSignal>>,
    clock: Clock,
}

/// Whoever looks after the alarms, and until when it sleeps.
#[derive(Default)]
struct Clock {
    armed: Option<Instant>,
    sleeper: Option<Waker>,
}

/// For so many commands, room is kept.
const ROOM: usize = 64;

/// What is done when the mutex is free: it may come back to the hub.
enum Errand {
    Start(SessionId, Orders),
    Answer(Reply, Answer),
    Wake(Waker),
}

/// Mostly there is one, and it needs no room of its own.
#[derive(Default)]
struct Errands {
    first: Option<Errand>,
    more: Vec<Errand>,
}

impl Errands {
    fn push(&mut self, errand: Errand) {
        if self.first.is_none() {
            self.first = Some(errand);
        } else {
            self.more.push(errand);
        }
    }
}

impl Hub {
    pub(super) fn new(settings: Settings, on_threads: bool, start: Start) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                core: Core::new(settings, fastrand::Rng::new(), Instant::now()),
                commands: Vec::new(),
                sessions: BTreeMap::new(),
                losses: BTreeMap::new(),
                clock: Clock::default(),
            }),
            start,
            on_threads,
        })
    }

    /// Tells the core what happened, and sees to what it wants done.
    pub(super) fn act<T>(
        self: &Arc<Self>,
        happened: impl FnOnce(&mut Core<Reply>, Instant) -> T,
    ) -> T {
        self.act_and(happened, None)
    }

    /// The same for a call: it runs the session that it gives an order.
    ///
    /// One that `waits` does not run a session whose statements block: over a network that falls silent, none would end at the limit of the wait.
    pub(super) fn act_and_help<T>(
        self: &Arc<Self>,
        waits: bool,
        happened: impl FnOnce(&mut Core<Reply>, Instant) -> T,
    ) -> T {
        if waits && self.on_threads {
            return self.act(happened);
        }
        let mut help = None;
        let value = self.act_and(happened, Some(&mut help));
        if let Some(help) = help {
            help.run();
        }
        value
    }

    fn act_and<T>(
        self: &Arc<Self>,
        happened: impl FnOnce(&mut Core<Reply>, Instant) -> T,
        help: Option<&mut Option<Help>>,
    ) -> T {
        let (value, errands) = {
            let mut state = self.state();
            let value = happened(&mut state.core, Instant::now());
            let mut errands = Errands::default();
            state.carry_out(self, help, &mut errands);
            if let Some(sleeper) = state.clock_rings() {
                errands.push(sleeper);
            }
            (value, errands)
        };
        for errand in errands.first.into_iter().chain(errands.more) {
            match errand {
                Errand::Start(session, orders) => {
                    let station = (self.start)(Arc::clone(self), session, orders);
                    if let Some(desk) = self.state().sessions.get_mut(&session) {
                        desk.station = station;
                    }
                }
                // Whoever has gone drops what it is given, which gives a lock back.
                Errand::Answer(reply, answer) => drop(reply.send(answer)),
                Errand::Wake(waker) => waker.wake(),
            }
        }
        value
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The core does not panic; and if it did, an error would be told later, rather than a panic in every drop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after the alarms until the locker is over.
    ///
    /// Dropped before, with its runtime, it ends the locker: nobody would be woken at a limit any more.
    pub(super) fn keep_time(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Here, not in the future: that may be dropped before its first poll.
        let end = EndOfTime(self);
        async move { end.0.ring().await }
    }

    async fn ring(self: &Arc<Self>) {
        let mut pause: Option<Delay> = None;
        poll_fn(|context| {
            loop {
                self.act(|core, now| core.run_due_timers(now));
                let next = {
                    let mut state = self.state();
                    if state.core.is_finished() {
                        return Poll::Ready(());
                    }
                    let next = state.core.next_timer();
                    state.clock = Clock {
                        armed: next,
                        sleeper: Some(context.waker().clone()),
                    };
                    next
                };
                let Some(next) = next else {
                    return Poll::Pending;
                };
                let left = next.saturating_duration_since(Instant::now());
                let pause = pause.get_or_insert_with(|| Delay::new(left));
                pause.reset(left);
                if Pin::new(pause).poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

/// Ends the locker when it is dropped.
struct EndOfTime(Arc<Hub>);

impl Drop for EndOfTime {
    fn drop(&mut self) {
        self.0.act(|core, now| core.shut_down(now));
    }
}

impl State {
    fn carry_out(
        &mut self,
        hub: &Arc<Hub>,
        mut help: Option<&mut Option<Help>>,
        errands: &mut Errands,
    ) {
        let mut commands = std::mem::take(&mut self.commands);
        loop {
            commands = self.core.take_commands(commands);
            if commands.is_empty() {
                break;
            }
            for command in commands.drain(..) {
                self.carry_out_one(command, hub, help.as_deref_mut(), errands);
            }
        }
        commands.shrink_to(ROOM);
        self.commands = commands;
    }

    fn carry_out_one(
        &mut self,
        command: Command<Reply>,
        hub: &Arc<Hub>,
        help: Option<&mut Option<Help>>,
        errands: &mut Errands,
    ) {
        match command {
            Command::Open { session } => self.order(session, Order::Open, errands),
            Command::RunBatch { session, batch } => {
                if let Some(help) = help.filter(|help| help.is_none()) {
                    *help = self.help(session);
                }
                self.order(session, Order::Run(batch), errands);
            }
            Command::WaitOnServer {
                session,
                key,
                options,
            } => self.order(session, Order::Wait { key, options }, errands),
            Command::Close { session } => self.dismiss(session, Order::Close),
            Command::Terminate { session } => {
                self.dismiss(session, Order::Abandon);
                // Its statement lasts as long as the server or the network likes, and nobody is to wait for it.
                if hub.on_threads {
                    self.core.on_session_closed(session);
                }
            }
            Command::SessionLost { session } => {
                if let Some(loss) = self.losses.remove(&session) {
                    loss.fire();
                }
            }
            Command::Granted { waiter, grant } => {
                let loss = grant.session.map(|session| self.loss(session));
                let held = Held::new(Arc::clone(hub), grant, loss);
                errands.push(Errand::Answer(waiter, Answer::Granted(held)));
            }
            Command::Failed { waiter, error } => {
                errands.push(Errand::Answer(waiter, Answer::Refused(error)));
            }
            Command::Released { waiter, result } => {
                errands.push(Errand::Answer(waiter, Answer::Released(result)));
            }
            Command::Closed { waiter } => {
                errands.push(Errand::Answer(waiter, Answer::Closed));
            }
        }
    }

    fn loss(&mut self, session: SessionId) -> Arc<LossSignal> {
        Arc::clone(self.losses.entry(session).or_default())
    }

    /// Tells a session what to do; a new one is started.
    fn order(&mut self, session: SessionId, order: Order, errands: &mut Errands) {
        let desk = self.sessions.entry(session).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded();
            errands.push(Errand::Start(session, receiver));
            Desk {
                orders: sender,
                station: None,
            }
        });
        // A session that is gone has told the core, or is about to.
        let _ = desk.orders.unbounded_send(order);
    }

    /// The help of a call for a session that is about to get an order.
    fn help(&self, session: SessionId) -> Option<Help> {
        self.sessions.get(&session)?.station.as_ref()?.reserve()
    }

    /// Gives a session its last order.
    fn dismiss(&mut self, session: SessionId, order: Order) {
        if let Some(desk) = self.sessions.remove(&session) {
            let _ = desk.orders.unbounded_send(order);
        }
        self.losses.remove(&session);
    }

    /// Wakes the sleeper if there is something to do earlier than it thinks, or nothing ever again.
    fn clock_rings(&mut self) -> Option<Errand> {
        let earlier = match (self.core.next_timer(), self.clock.armed) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        // A sleeper keeps the hub, and the hub keeps the pool.
        let sleeper = if earlier || self.core.is_finished() {
            self.clock.sleeper.take()
        } else {
            None
        };
        sleeper.map(Errand::Wake)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hub").finish_non_exhaustive()
    }
}

/// A lock that is held; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    hub: Arc<Hub>,
    hold: Option<LockGrant>,
    pub(super) token: Option<i64>,
    pub(super) session: Option<SessionId>,
    pub(super) loss: Option<Arc<LossSignal>>,
}

impl Held {
    const fn new(hub: Arc<Hub>, hold: LockGrant, loss: Option<Arc<LossSignal>>) -> Self {
        Self {
            hub,
            token: hold.token,
            session: hold.session,
            hold: Some(hold),
            loss,
        }
    }

    /// Gives it back, and asks to be told how that went.
    pub(super) fn give_back(mut self) -> Reception {
        let (reply, answer) = oneshot::channel();
        if let Some(hold) = self.hold.take() {
            let released = |core: &mut Core<Reply>, now| core.release(hold, Some(reply), now);
            self.hub.act_and_help(false, released);
        }
        Reception(answer)
    }

    /// The same for several locks of one locker, together.
    pub(super) fn give_back_all(mut all: Vec<Self>) -> Vec<Reception> {
        let Some(hub) = all.first().map(|held| Arc::clone(&held.hub)) else {
            return Vec::new();
        };
        let (replies, answers): (Vec<_>, Vec<_>) = all.iter().map(|_| oneshot::channel()).unzip();
        let holds: Vec<_> = all.iter_mut().map(|held| held.hold.take()).collect();
        hub.act(|core, now| {
            core.batched(now, |core| {
                for (hold, reply) in holds.into_iter().zip(replies) {
                    if let Some(hold) = hold {
                        core.release(hold, Some(reply), now);
                    }
                }
            });
        });
        answers.into_iter().map(Reception).collect()
    }
}

/// Where an answer arrives.
pub(super) struct Reception(pub(super) oneshot::Receiver<Answer>);

impl Future for Reception {
    type Output = Option<Answer>;

    /// `None`: nobody will answer.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.hub.act(|core, now| core.release(hold, None, now));
        }
    }
}
