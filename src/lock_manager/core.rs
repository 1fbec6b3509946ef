//! Sans-I/O state machine of a lock manager: keys, wait queues, sessions.
//!
//! # Implementation details
//!
//! A driver reports events to [`Core`] by method calls and then performs the [`Command`]s that
//! [`take_commands`](Core::take_commands) returns. The core has neither clock nor thread: the
//! driver passes the time and calls [`run_due_timers`](Core::run_due_timers) at
//! [`next_timer`](Core::next_timer). Therefore one core serves blocking and async callers, and the
//! unit tests run it against a simulated server with injected faults.
//!
//! The data structure is a tree of keys in use and a tree of sessions. A key has a phase and a FIFO
//! wait queue; [`key_state`] has the table of its transitions. A session has an outbox and at most
//! one statement in flight. An event only adds operations to outboxes. After it,
//! [`take_commands`](Core::take_commands) sends the outbox of each idle session as one batch. So
//! the operations of an event, or of all events during a statement, need one statement.
//!
//! The reply of a session moves each key of the batch to its next phase. A key that is held grants
//! its first waiters: the core emits [`Command::Granted`], and the driver wakes the waiter.
//! Consequence for users: the waiters of one process are granted a key in the order of their
//! requests. A request that does not wait never overtakes a waiter.

mod batch_failure;
mod batches;
mod close;
mod connection_check;
mod hand_off;
mod key_state;
mod requests;
mod server_waits;
mod session_loss;
mod sessions;
mod snapshot;
#[cfg(test)]
mod tests;
mod timers;
mod wait_queue;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::options::LockManagerOptions;
use crate::error::{LockError, LockErrorKind};
use crate::key::{LockKey, RawLockKey};
use crate::options::LockOptions;
use crate::protocol::Backoff;
use crate::session::{Backend, LockBatch};

pub(crate) use connection_check::CONNECTION_CHECK_INTERVAL;

use key_state::KeyState;
use sessions::SessionState;
use snapshot::Counters;
use timers::Timer;
use wait_queue::{AfterLoss, Request};

/// Upper bound of a poll interval. Its sum with an [`Instant`] does not overflow.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Session of a lock manager.
///
/// An id is never reused, so it also is the generation of the locks that the session holds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct SessionId(u64);

impl SessionId {
    /// Id in the place of a session if the backend has no locks and the process excludes its own
    /// callers.
    pub(crate) const IN_PROCESS: Self = Self(0);

    pub(crate) const fn generation(self) -> u64 {
        self.0
    }
}

/// Identifies a request, and its grant. Later requests have greater ids.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct RequestId(u64);

/// Kind of a request, beyond its options.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RequestKind {
    Plain,
    /// A grant comes with a fencing token.
    Fenced,
    /// One of the requests of a call for several keys. If the key is contended it fails, also with
    /// options that wait.
    OneOfSeveral,
}

/// Granted lock; the holder passes it to [`Core::release`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LockGrant {
    request: RequestId,
    pub(crate) key: RawLockKey,
    /// Session that holds the lock. `None`: granted without a lock.
    pub(crate) session: Option<SessionId>,
    pub(crate) token: Option<i64>,
}

/// Action for the driver. `W` is the driver's handle of a caller that waits for a response.
#[derive(Debug)]
pub(crate) enum Command<W> {
    /// Pass a command on to a session, which [`SessionCommand::Open`] starts.
    Session {
        session: SessionId,
        command: SessionCommand,
    },
    /// Signal the loss to every holder of a lock on the session.
    SessionLost { session: SessionId },
    /// Respond to a request: granted.
    Granted { waiter: W, grant: LockGrant },
    /// Report that a request waits. At most once for each request.
    Waits { request: RequestId, key: RawLockKey },
    /// Respond to a request: not granted.
    Failed { waiter: W, error: LockError },
    /// Respond to a release.
    Released {
        waiter: W,
        result: Result<(), LockErrorKind>,
    },
    /// Respond to [`Core::close`]: every session has ended.
    Closed { waiter: W },
}

/// Action for a session.
#[derive(Debug)]
pub(crate) enum SessionCommand {
    /// Check out a connection and report it with [`Core::on_checked_out`], then its first reply
    /// with [`Core::on_opened`].
    Open,
    /// Run a batch and report the reply with [`Core::on_batch_result`].
    RunBatch(LockBatch),
    /// Wait for the lock in the server's queue and report the end with [`Core::on_wait_ended`].
    WaitOnServer { key: LockKey, options: LockOptions },
    /// Check, without I/O, whether the client has found the connection closed. If so, report it
    /// with [`Core::on_connection_closed`].
    CheckConnection,
    /// Return the connection to the pool; the session holds no lock. Report it with
    /// [`Core::on_session_closed`].
    Close,
    /// Terminate the session, also with a statement in flight. Report it with
    /// [`Core::on_session_closed`].
    Terminate,
}

/// State machine of a lock manager.
#[derive(Debug)]
pub(crate) struct Core<W> {
    options: LockManagerOptions,
    /// Keys in use. A tree, because most lock managers have few keys at a time. The values are
    /// boxed, because a third or more of the slots of a tree node are empty.
    keys: BTreeMap<RawLockKey, Box<KeyState<W>>>,
    sessions: BTreeMap<SessionId, SessionState<W>>,
    /// Sessions that were told to close or terminate and have not reported their end. They no
    /// longer count for the maximum of sessions.
    ending_sessions: BTreeSet<SessionId>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Interval of the connection checks. `None` over a blocking pool: its clients do not know
    /// without I/O, and a terminated session may end late.
    connection_check_interval: Option<Duration>,
    /// Backend of the pool; known after the first session was opened.
    backend: Option<Backend>,
    /// Last failure to open a session; `None` after a session was opened.
    open_failure: Option<OpenFailure>,
    /// Callers of [`Core::close`]; `Some` as soon as the lock manager is closed.
    closing: Option<Vec<W>>,
    /// Counter of request and session ids and of in-process fencing tokens.
    last_id: u64,
    /// Origin of the aligned poll times.
    epoch: Instant,
    random: fastrand::Rng,
    commands: Vec<Command<W>>,
    counters: Counters,
}

/// Last failure to open a session, and the backoff until the next attempt.
#[derive(Debug)]
struct OpenFailure {
    message: String,
    backoff: Backoff,
    /// Earliest time of the next attempt.
    retry_at: Instant,
}

impl<W> Core<W> {
    pub(crate) fn new(options: LockManagerOptions, random: fastrand::Rng, now: Instant) -> Self {
        Self {
            options,
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            ending_sessions: BTreeSet::new(),
            timers: BTreeSet::new(),
            connection_check_interval: None,
            backend: None,
            open_failure: None,
            closing: None,
            last_id: 0,
            epoch: now,
            random,
            commands: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Adds a request. The response is a [`Command::Granted`] or a [`Command::Failed`], possibly
    /// among the next commands.
    ///
    /// `options` must be valid.
    pub(crate) fn request(
        &mut self,
        key: LockKey,
        options: &LockOptions,
        kind: RequestKind,
        waiter: W,
        now: Instant,
    ) -> RequestId {
        let id = RequestId(self.next_id());
        let (no_wait, limit, after_loss) = if options.waits() {
            let one_of_several = kind == RequestKind::OneOfSeveral;
            let no_wait = one_of_several.then_some(LockErrorKind::HeldElsewhere);
            let limit = options.remaining(Duration::ZERO);
            (no_wait, limit, AfterLoss::Waits)
        } else {
            (Some(options.contended_kind()), None, AfterLoss::RetriesOnce)
        };
        self.enqueue(
            Request {
                id,
                key,
                mode: options.mode,
                fenced: kind == RequestKind::Fenced,
                no_wait,
                // A limit beyond the range of the clock never passes.
                deadline: limit.and_then(|limit| now.checked_add(limit)),
                after_loss,
                strategy: options.wait_strategy(),
                interval: options.max_interval().min(MAX_INTERVAL),
                since: now,
                is_waiting: false,
                waiter,
            },
            now,
        );
        id
    }

    /// Returns the waiter of a request in a wait queue.
    pub(crate) fn waiter(&self, request: RequestId, key: RawLockKey) -> Option<&W> {
        let request = self.keys.get(&key)?.queue.get(request);
        request.map(|request| &request.waiter)
    }

    /// Returns the backend of the pool; known after the first session was opened.
    pub(crate) const fn backend(&self) -> Option<Backend> {
        self.backend
    }

    /// Returns the process id of a session on the server.
    pub(crate) fn pid_of(&self, session: SessionId) -> Option<i32> {
        self.sessions.get(&session).map(|session| session.pid)
    }

    /// Removes a request and returns its waiter, whose drop may call back. Does nothing if the
    /// response was already emitted: a grant that its caller does not receive is released when the
    /// driver drops it.
    pub(crate) fn cancel(&mut self, id: RequestId, key: RawLockKey, now: Instant) -> Option<W> {
        let request = self.remove_request(id, key, now);
        request.map(|request| request.waiter)
    }

    /// Releases a lock. The response to `waiter` is a [`Command::Released`].
    pub(crate) fn release(&mut self, grant: LockGrant, waiter: Option<W>, now: Instant) {
        let Some(session) = grant.session else {
            self.reply(waiter, Ok(()));
            return;
        };
        let held = self.keys.get_mut(&grant.key).is_some_and(|key_state| {
            let mut holders = key_state.holders.iter();
            let position = holders.position(|holder| *holder == grant.request);
            position
                .map(|position| key_state.holders.swap_remove(position))
                .is_some()
        });
        // A lost session has removed its holders. A request is granted once, so this release cannot
        // end a later grant of the key.
        if held {
            self.on_holder_released(grant.key, session, waiter, now);
        } else {
            self.reply(waiter, Err(LockErrorKind::Lost));
        }
    }

    /// Ends an event, and returns the commands to perform, in order. `buffer`, which is empty,
    /// receives the next ones.
    pub(crate) fn take_commands(
        &mut self,
        buffer: Vec<Command<W>>,
        now: Instant,
    ) -> Vec<Command<W>> {
        self.close_unused_dedicated_sessions();
        self.send_outboxes(now);
        self.finish_closing();
        std::mem::replace(&mut self.commands, buffer)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn send(&mut self, session: SessionId, command: SessionCommand) {
        self.commands.push(Command::Session { session, command });
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
    ) -> RequestId {
        // The request leaves the queue here, so its deadline must not fire for it.
        self.cancel_deadline(&request);
        let grant = LockGrant {
            request: request.id,
            key: request.key.raw(),
            session,
            token: token.filter(|_| request.fenced),
        };
        self.commands.push(Command::Granted {
            waiter: request.waiter,
            grant,
        });
        request.id
    }
}
