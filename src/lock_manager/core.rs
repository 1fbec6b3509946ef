//! What a locker does, without I/O: who waits, who holds, what to ask of which session.
//!
//! A [`Core`] is told what happened and answers with [`Command`]s; a driver carries them out. It serves the blocking locker and the async
//! one, and can be run against a model of the server, with every fault and without time passing.
//!
//! One entry for each key in use, with its queue; a few sessions, each with at most one statement in flight. What is asked while a
//! statement is in flight goes with the next, all together.

mod alarms;
mod close;
mod entry;
mod line;
mod queue;
mod rounds;
mod sessions;
#[cfg(test)]
mod tests;
mod turns;
mod undo;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::options::Settings;
use crate::error::{LockError, LockErrorKind};
use crate::key::{LockKey, RawLockKey};
use crate::options::{LockOptions, Wait};
use crate::protocol::Backoff;
use crate::session::{Backend, LockBatch};

use alarms::Alarm;
use entry::Entry;
use line::{Patience, Request};
use sessions::Session;

/// A longer pause than this is as good as none; and it can be added to a time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// A session of the locker's. Never used twice, so it is the generation of what is held on it too.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct SessionId(u64);

impl SessionId {
    /// What stands for a session where this process alone is excluded.
    pub(crate) const PROCESS: Self = Self(0);

    pub(crate) const fn generation(self) -> u64 {
        self.0
    }
}

/// Somebody who waits for a lock.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct RequestId(u64);

/// Proof that a lock was granted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hold {
    id: u64,
    pub(crate) key: RawLockKey,
    /// The session it is held on; `None` where there are no locks.
    pub(crate) session: Option<SessionId>,
    pub(crate) token: Option<i64>,
}

/// What the driver is to do. `W` is whatever it gives its answers to.
#[derive(Debug)]
pub(crate) enum Command<W> {
    /// Check a connection out, and tell of it with [`Core::opened`].
    Open { session: SessionId },
    /// Run a round on the session, and tell of it with [`Core::answered`].
    Send {
        session: SessionId,
        round: LockBatch,
    },
    /// Wait for the lock on the server, on this session; check a connection out for it if it has none yet. Tell of it with
    /// [`Core::waited`].
    Wait {
        session: SessionId,
        key: LockKey,
        options: LockOptions,
    },
    /// Give the connection back: nothing is held on it. Tell of it with [`Core::closed`].
    Close { session: SessionId },
    /// End the session, whatever it is doing. Tell of it with [`Core::closed`].
    Abandon { session: SessionId },
    /// What is held on the session is lost.
    Lost { session: SessionId },
    /// The lock is granted.
    Granted { waiter: W, hold: Hold },
    /// The lock is not granted.
    Refused { waiter: W, error: LockError },
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
pub(crate) enum Waited {
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
    keys: BTreeMap<RawLockKey, Box<Entry<W>>>,
    sessions: BTreeMap<SessionId, Session<W>>,
    /// Sessions that were ended, or given back, and are not yet gone.
    leaving: BTreeSet<SessionId>,
    alarms: BTreeSet<(Instant, Alarm)>,
    /// What the pool's connections lead to, once one was seen.
    backend: Option<Backend>,
    /// Why no session could be opened, since the last one that could.
    unopened: Option<Unopened>,
    closing: Option<Vec<W>>,
    next: u64,
    /// Where the grid of the times to ask again begins.
    epoch: Instant,
    random: fastrand::Rng,
    commands: Vec<Command<W>>,
    /// Nothing is sent yet: more is to go with it.
    gathering: bool,
}

/// Sessions cannot be had.
#[derive(Debug)]
struct Unopened {
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
            leaving: BTreeSet::new(),
            alarms: BTreeSet::new(),
            backend: None,
            unopened: None,
            closing: None,
            next: 0,
            epoch: now,
            random,
            commands: Vec::new(),
            gathering: false,
        }
    }

    /// Asks for a lock. The answer is a [`Command::Granted`] or [`Command::Refused`], perhaps among the next commands.
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
        let id = RequestId(self.fresh());
        let patience = match options.wait() {
            Wait::No => Patience::Once(LockErrorKind::HeldElsewhere),
            Wait::UpTo(Duration::ZERO) => Patience::Once(LockErrorKind::TimedOut),
            Wait::UpTo(limit) => now
                .checked_add(limit)
                .map_or(Patience::Forever, Patience::Until),
            Wait::Forever => Patience::Forever,
        };
        self.enqueue(
            Request {
                id,
                key,
                mode: options.lock_mode(),
                fenced,
                patience,
                strategy: options.wait_strategy(),
                interval: options.longest_pause().min(LONGEST_INTERVAL),
                missing: options.missing_lock_policy(),
                waiter,
            },
            now,
        );
        id
    }

    /// Somebody waits no longer. Nothing happens if the answer is on its way.
    pub(crate) fn cancel(&mut self, id: RequestId, key: RawLockKey, now: Instant) {
        drop(self.withdraw(id, key, now));
    }

    /// Gives a lock back; `waiter` is told how that went.
    pub(crate) fn release(&mut self, hold: Hold, waiter: Option<W>, now: Instant) {
        let Some(session) = hold.session else {
            self.reply(waiter, Ok(()));
            return;
        };
        let held = self.keys.get_mut(&hold.key).is_some_and(|entry| {
            let place = entry.holders.iter().position(|id| *id == hold.id);
            place
                .map(|place| entry.holders.swap_remove(place))
                .is_some()
        });
        if held {
            self.given_up(hold.key, session, waiter, now);
        } else {
            self.reply(waiter, Err(LockErrorKind::Lost));
        }
    }

    /// What is to be done now, in order. The next commands go where `room` is, which is empty.
    pub(crate) const fn commands(&mut self, room: Vec<Command<W>>) -> Vec<Command<W>> {
        std::mem::replace(&mut self.commands, room)
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
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
        self.forget_limit(&request);
        let id = self.fresh();
        let hold = Hold {
            id,
            key: request.key.raw(),
            session,
            token: token.filter(|_| request.fenced),
        };
        self.commands.push(Command::Granted {
            waiter: request.waiter,
            hold,
        });
        id
    }
}
