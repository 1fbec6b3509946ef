//! What a locker does, without I/O: who waits, who holds, what to ask of which session.
//!
//! A [`Core`] is told what happened and answers with [`Command`]s; a driver carries them out. It serves the blocking locker and the async
//! one, and can be run against a model of the server, with every fault and without time passing.
//!
//! One key_state for each key in use, with its queue; a few sessions, each with at most one statement in flight. What is asked while a
//! statement is in flight goes with the next, all together.

mod batch_failure;
mod batches;
mod close;
mod hand_off;
mod key_state;
mod requests;
mod server_waits;
mod sessions;
#[cfg(test)]
mod tests;
mod timers;
mod wait_queue;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::options::Settings;
use crate::error::{LockError, LockErrorKind};
use crate::key::{LockKey, RawLockKey};
use crate::options::{LockOptions, Wait};
use crate::protocol::Backoff;
use crate::session::{Backend, LockBatch};

use key_state::KeyState;
use sessions::SessionState;
use timers::Timer;
use wait_queue::{Deadline, Request};

/// A longer pause than this is as good as none; and it can be added to a time.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// A session of the locker's. Never used twice, so it is the generation of what is held on it too.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct SessionId(u64);

impl SessionId {
    /// What stands for a session where this process alone is excluded.
    pub(crate) const IN_PROCESS: Self = Self(0);

    pub(crate) const fn generation(self) -> u64 {
        self.0
    }
}

/// Somebody who waits for a lock.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct RequestId(u64);

/// Proof that a lock was granted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LockGrant {
    id: u64,
    pub(crate) key: RawLockKey,
    /// The session it is held on; `None` where there are no locks.
    pub(crate) session: Option<SessionId>,
    pub(crate) token: Option<i64>,
}

/// What the driver is to do. `W` is whatever it gives its answers to.
#[derive(Debug)]
pub(crate) enum Command<W> {
    /// Check a connection out, and tell of it with [`Core::on_opened`].
    Open { session: SessionId },
    /// Run a round on the session, and tell of it with [`Core::on_batch_result`].
    RunBatch {
        session: SessionId,
        batch: LockBatch,
    },
    /// Wait for the lock on the server, on this session; check a connection out for it if it has none yet. Tell of it with
    /// [`Core::on_wait_ended`].
    WaitOnServer {
        session: SessionId,
        key: LockKey,
        options: LockOptions,
    },
    /// Give the connection back: nothing is held on it. Tell of it with [`Core::on_session_closed`].
    Close { session: SessionId },
    /// End the session, whatever it is doing. Tell of it with [`Core::on_session_closed`].
    Terminate { session: SessionId },
    /// What is held on the session is lost.
    SessionLost { session: SessionId },
    /// The lock is granted.
    Granted { waiter: W, grant: LockGrant },
    /// The lock is not granted.
    Failed { waiter: W, error: LockError },
    /// The lock is given back; or an error says what became of it.
    Released {
        waiter: W,
        result: Result<(), LockErrorKind>,
    },
    /// The locker is closed, and every session gone.
    Closed { waiter: W },
}

/// How a wait on the server ended.
#[derive(Debug)]
pub(crate) enum WaitOutcome {
    /// Granted to this session of the server's.
    Granted { pid: i32 },
    /// The limit has passed.
    TimedOut,
    /// Not granted.
    Failed(LockError),
}

/// Everything a locker knows.
#[derive(Debug)]
pub(crate) struct Core<W> {
    settings: Settings,
    /// A tree, because most lockers have few keys at a time, and then there is nothing to hash. Boxed, because a third of a tree's places, or more,
    /// are empty.
    keys: BTreeMap<RawLockKey, Box<KeyState<W>>>,
    sessions: BTreeMap<SessionId, SessionState<W>>,
    /// Sessions that were ended, or given back, and are not yet gone.
    ending_sessions: BTreeSet<SessionId>,
    timers: BTreeSet<(Instant, Timer)>,
    /// What the pool's connections lead to, once one was seen.
    backend: Option<Backend>,
    /// Why no session could be opened, since the last one that could.
    open_failure: Option<OpenFailure>,
    closing: Option<Vec<W>>,
    last_id: u64,
    /// Where the grid of the times to ask again begins.
    epoch: Instant,
    random: fastrand::Rng,
    commands: Vec<Command<W>>,
    /// Nothing is sent yet: more is to go with it.
    batching: bool,
}

/// Sessions cannot be had.
#[derive(Debug)]
struct OpenFailure {
    why: String,
    pauses: Backoff,
    /// When one more is tried.
    due: Instant,
}

impl<W> Core<W> {
    pub(crate) fn new(settings: Settings, random: fastrand::Rng, now: Instant) -> Self {
        Self {
            settings,
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            ending_sessions: BTreeSet::new(),
            timers: BTreeSet::new(),
            backend: None,
            open_failure: None,
            closing: None,
            last_id: 0,
            epoch: now,
            random,
            commands: Vec::new(),
            batching: false,
        }
    }

    /// Asks for a lock. The answer is a [`Command::Granted`] or [`Command::Failed`], perhaps among the next commands.
    ///
    /// `options` are in order.
    pub(crate) fn request(
        &mut self,
        key: LockKey,
        options: &LockOptions,
        fenced: bool,
        waiter: W,
        now: Instant,
    ) -> RequestId {
        let id = RequestId(self.next_id());
        let deadline = match options.wait() {
            Wait::No => Deadline::NoWait(LockErrorKind::HeldElsewhere),
            Wait::UpTo(Duration::ZERO) => Deadline::NoWait(LockErrorKind::TimedOut),
            Wait::UpTo(limit) => now.checked_add(limit).map_or(Deadline::Never, Deadline::At),
            Wait::Forever => Deadline::Never,
        };
        self.enqueue(
            Request {
                id,
                key,
                mode: options.lock_mode(),
                fenced,
                deadline,
                strategy: options.wait_strategy(),
                interval: options.max_interval().min(MAX_INTERVAL),
                on_missing_lock: options.missing_lock_policy(),
                waiter,
            },
            now,
        );
        id
    }

    /// Somebody waits no longer. Nothing happens if the answer is on its way.
    pub(crate) fn cancel(&mut self, id: RequestId, key: RawLockKey, now: Instant) {
        drop(self.remove_request(id, key, now));
    }

    /// Gives a lock back; `waiter` is told how that went.
    pub(crate) fn release(&mut self, grant: LockGrant, waiter: Option<W>, now: Instant) {
        let Some(session) = grant.session else {
            self.reply(waiter, Ok(()));
            return;
        };
        let held = self.keys.get_mut(&grant.key).is_some_and(|key_state| {
            let place = key_state.holders.iter().position(|id| *id == grant.id);
            place
                .map(|place| key_state.holders.swap_remove(place))
                .is_some()
        });
        if held {
            self.on_holder_released(grant.key, session, waiter, now);
        } else {
            self.reply(waiter, Err(LockErrorKind::Lost));
        }
    }

    /// What is to be done now, in order. The next commands go where `room` is, which is empty.
    pub(crate) const fn take_commands(&mut self, room: Vec<Command<W>>) -> Vec<Command<W>> {
        std::mem::replace(&mut self.commands, room)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn reply(&mut self, waiter: Option<W>, result: Result<(), LockErrorKind>) {
        if let Some(waiter) = waiter {
            self.commands.push(Command::Released { waiter, result });
        }
    }

    fn grant(
        &mut self,
        request: Request<W>,
        session: Option<SessionId>,
        token: Option<i64>,
    ) -> u64 {
        self.cancel_deadline(&request);
        let id = self.next_id();
        let grant = LockGrant {
            id,
            key: request.key.raw(),
            session,
            token: token.filter(|_| request.fenced),
        };
        self.commands.push(Command::Granted {
            waiter: request.waiter,
            grant,
        });
        id
    }
}
