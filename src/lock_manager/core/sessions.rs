//! Sessions: selection, opening, loss, termination.
//!
//! # Implementation details
//!
//! Shared sessions execute batches for many keys; a dedicated session waits in the server's queue
//! for one key. The first operation opens the first shared session, and a further one is opened,
//! up to the maximum, when all have a statement in flight. A failure to open a session starts a
//! backoff, after which one attempt is made for all waiting keys. A request for another key tries
//! at once if no session is open. When a session ends, every key on it becomes not held. A signal
//! notifies the holders, and the waiters poll again on another session. A request that does not
//! wait is tried again. Consequence for users: a lost session loses its own locks only. The
//! core never re-acquires a lost lock for its holder, whose work was unprotected meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::key_state::KeyEvent;
use super::session_loss::SessionLoss;
use super::timers::Timer;
use super::wait_queue::AfterLoss;
use super::{Core, OpenFailure, SessionCommand, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::{LockKey, RawLockKey};
use crate::protocol::Backoff;
use crate::session::{Backend, LockOp, SessionError};

/// Upper bound of the backoff between attempts to open a session.
const MAX_REOPEN_BACKOFF: Duration = Duration::from_secs(1);

/// Phase of a session, which has at most one statement in flight.
#[derive(Debug)]
pub(super) enum SessionPhase<W> {
    /// The driver checks out a connection.
    Opening,
    Idle,
    /// A batch is in flight. Its reply acknowledges the releases of `acks`.
    Executing {
        ops: Arc<[LockOp]>,
        acks: Vec<W>,
    },
    /// A batch has failed; the locks that it may have acquired are being released.
    Compensating {
        ops: Arc<[LockOp]>,
        failure: Failure,
    },
    /// The session waits in the server's queue, at most until this time.
    WaitingOnServer {
        until: Option<Instant>,
    },
}

/// Failure of a session, for each request that it concerns.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: LockErrorKind,
    pub(super) message: String,
}

impl Failure {
    /// Returns the failure of a batch.
    pub(super) fn of_batch(error: &SessionError) -> Self {
        Self {
            kind: crate::backends::postgres::classify_attempt(error.code()),
            message: error_chain(error),
        }
    }

    /// Returns the error of a request.
    pub(super) fn error(&self, key: &LockKey) -> LockError {
        let error = LockError::new(self.kind).with_key(key);
        error.with_context(self.message.clone())
    }
}

/// State of a session.
#[derive(Debug)]
pub(super) struct SessionState<W> {
    pub(super) phase: SessionPhase<W>,
    /// Process id of the session on the server; 0 before its first reply.
    pub(super) pid: i32,
    /// Operations to send. `true`: in a batch of its own.
    pub(super) outbox: VecDeque<(LockOp, bool)>,
    /// Releasers whose response is the next reply.
    pub(super) pending_acks: Vec<W>,
    /// Key of a session that waits, or has waited, in the server's queue.
    pub(super) dedicated_key: Option<RawLockKey>,
    /// Time of the last change of the phase, or of the last reply.
    pub(super) phase_start: Instant,
    /// Time of the health-check timer.
    pub(super) health_check: Option<Instant>,
    /// Time of the connection-check timer.
    pub(super) connection_check: Option<Instant>,
}

impl<W> SessionState<W> {
    pub(super) const fn is_opening(&self) -> bool {
        matches!(self.phase, SessionPhase::Opening)
    }

    /// Returns whether nothing is in flight and nothing is to be sent.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, SessionPhase::Idle)
            && self.outbox.is_empty()
            && self.pending_acks.is_empty()
    }
}

impl<W> Core<W> {
    /// Returns the session for the next operation: an idle one, else the one with the shortest
    /// outbox.
    ///
    /// If each has a statement in flight, a further session is opened for later operations. A
    /// session that is being opened is used only if there is no other, because the pool may have no
    /// connection for a long time.
    pub(super) fn select_session(&mut self, now: Instant) -> SessionId {
        let shared = self.shared_sessions();
        let count = shared.clone().count();
        let opening = shared.clone().any(|(_, session)| session.is_opening());
        let best = shared.min_by_key(|(_, session)| {
            let idle = matches!(session.phase, SessionPhase::Idle);
            (session.is_opening(), !idle, session.outbox.len())
        });
        let Some((id, session)) = best else {
            return self.open_session(None, now);
        };
        let (id, idle) = (*id, matches!(session.phase, SessionPhase::Idle));
        if !idle && !opening && count < self.options.max_sessions && self.may_open(now) {
            self.open_session(None, now);
        }
        id
    }

    /// Returns whether a further session may be opened. During the backoff after a failure, the
    /// open sessions serve all keys.
    pub(super) fn may_open(&self, now: Instant) -> bool {
        let failure = self.open_failure.as_ref();
        failure.is_none_or(|failure| failure.retry_at <= now)
    }

    /// Returns the end of the backoff if no shared session is open or being opened.
    pub(super) fn reopen_at(&self, now: Instant) -> Option<Instant> {
        let retry_at = self.open_failure.as_ref()?.retry_at;
        let has_session = self.shared_sessions().next().is_some();
        (!has_session && retry_at > now).then_some(retry_at)
    }

    fn shared_sessions(&self) -> impl Iterator<Item = (&SessionId, &SessionState<W>)> + Clone {
        let sessions = self.sessions.iter();
        sessions.filter(|(_, session)| session.dedicated_key.is_none())
    }

    /// Returns whether a shared session is open.
    pub(super) fn is_connected(&self) -> bool {
        self.shared_sessions()
            .any(|(_, session)| !session.is_opening())
    }

    /// Returns whether an open session, shared or dedicated, holds the key or works on it.
    pub(super) fn is_on_open_session(&self, key: RawLockKey) -> bool {
        let key_state = self.keys.get(&key);
        let session = key_state.and_then(|key_state| key_state.phase().session());
        let session = session.and_then(|id| self.sessions.get(&id));
        session.is_some_and(|session| !session.is_opening())
    }

    pub(super) fn open_session(
        &mut self,
        dedicated_key: Option<RawLockKey>,
        now: Instant,
    ) -> SessionId {
        let id = SessionId(self.next_id());
        self.send(id, SessionCommand::Open);
        self.sessions.insert(
            id,
            SessionState {
                phase: SessionPhase::Opening,
                pid: 0,
                outbox: VecDeque::new(),
                pending_acks: Vec::new(),
                dedicated_key,
                phase_start: now,
                health_check: None,
                connection_check: None,
            },
        );
        id
    }

    /// Handles a connection that was checked out, before its first statement: from now on the
    /// session must reply within the keep-alive. The checkout itself has the pool's timeout, or
    /// that of the session loop. A blocking pool that checks an idle connection may have none.
    pub(crate) fn on_checked_out(&mut self, id: SessionId, now: Instant) {
        let session = self.sessions.get_mut(&id);
        if let Some(session) = session.filter(|session| session.is_opening()) {
            session.phase_start = now;
            self.schedule_health_check(id, now);
        }
    }

    /// Handles the first reply of a session, or the failure to open it. `pid` is the process id of
    /// the session on the server.
    pub(crate) fn on_opened(
        &mut self,
        id: SessionId,
        opened: Result<(Backend, i32), LockError>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if !session.is_opening() {
            // The session was open already.
            return self.on_session_lost(id, SessionLoss::Unreliable, now);
        }
        match opened {
            Ok((Backend::Postgres, pid)) => {
                (session.pid, session.phase_start) = (pid, now);
                self.backend = Some(Backend::Postgres);
                self.open_failure = None;
                session.phase = SessionPhase::Idle;
                let dedicated_key = session.dedicated_key;
                self.schedule_health_check(id, now);
                if let Some(key) = dedicated_key {
                    self.on_dedicated_session_opened(key, id, now);
                }
            }
            // Only now known: requests before it were treated as for a server.
            Ok((backend, _)) => {
                self.backend = Some(backend);
                self.on_no_lock_backend(id, now);
            }
            Err(error) => self.on_open_failed(id, error, now),
        }
    }

    /// Handles a backend without locks, which needs no session.
    fn on_no_lock_backend(&mut self, id: SessionId, now: Instant) {
        self.close_session(id);
        for key in self.keys_of(id) {
            let Some(key_state) = self.keys.get_mut(&key) else {
                continue;
            };
            key_state.apply(KeyEvent::NotGranted);
            if !self.is_no_op() {
                self.send_acquire(key, now);
                continue;
            }
            for request in self
                .keys
                .remove(&key)
                .into_iter()
                .flat_map(|mut key_state| key_state.queue.drain())
            {
                self.grant_without_lock(request);
            }
        }
    }

    /// Handles the failure to open a session.
    ///
    /// Requests that do not wait fail. All others fail too, unless a session was open before and
    /// the pool has no connection. Then the database may return, and they are retried until their
    /// deadlines.
    pub(super) fn on_open_failed(&mut self, id: SessionId, error: LockError, now: Instant) {
        // Before any change, because the error of a pool may panic.
        let failure = Failure {
            kind: error.kind(),
            message: error_chain(&error),
        };
        // Removed without a command: the driver's session has already ended.
        if let Some(session) = self.sessions.remove(&id) {
            self.remove_timers(id, &session);
        }
        // Without an earlier session, the error may be one of the configuration, which no retry
        // cures.
        let may_return = self.backend.is_some() && failure.kind == LockErrorKind::Pool;
        // One attempt for all waiting keys: an earlier poll moves to this time, and the first opens
        // a session.
        let retry_at = self.schedule_reopen(failure.message.clone(), now);
        for key in self.keys_of(id) {
            let Some(key_state) = self.keys.get_mut(&key) else {
                continue;
            };
            key_state.apply(KeyEvent::NotGranted);
            let failed: Vec<_> = if may_return {
                let waits = |after| after == AfterLoss::Waits;
                key_state
                    .queue
                    .drain_no_wait(|request| !waits(request.after_loss))
            } else {
                key_state.queue.drain().into()
            };
            self.schedule_poll(key, retry_at);
            for request in failed {
                let error = failure.error(&request.key);
                self.fail_with(request, error);
            }
            self.remove_if_unused(key);
        }
    }

    /// Records the failure to open a session. Returns the time of the next attempt.
    fn schedule_reopen(&mut self, message: String, now: Instant) -> Instant {
        let random = &mut self.random;
        let failure = self.open_failure.get_or_insert_with(|| OpenFailure {
            message: String::new(),
            backoff: Backoff::new(MAX_REOPEN_BACKOFF, random.fork()),
            retry_at: now,
        });
        let retry_at = now.checked_add(failure.backoff.next()).unwrap_or(now);
        (failure.message, failure.retry_at) = (message, retry_at);
        retry_at
    }

    /// Terminates a session; no holder has a lock on it.
    pub(super) fn terminate_session(&mut self, id: SessionId) {
        self.remove_session(id, SessionCommand::Terminate);
    }

    /// Closes a session, which holds no lock.
    pub(super) fn close_session(&mut self, id: SessionId) {
        self.remove_session(id, SessionCommand::Close);
    }

    pub(super) fn remove_session(
        &mut self,
        id: SessionId,
        last: SessionCommand,
    ) -> Option<SessionState<W>> {
        let session = self.sessions.remove(&id)?;
        self.remove_timers(id, &session);
        // Over a blocking pool, a statement may last as long as the server or the network takes.
        let ends_soon = self.connection_check_interval.is_some();
        if ends_soon || matches!(last, SessionCommand::Close) {
            self.ending_sessions.insert(id);
        }
        self.send(id, last);
        Some(session)
    }

    fn remove_timers(&mut self, id: SessionId, session: &SessionState<W>) {
        if let Some(at) = session.health_check {
            self.timers.remove(&(at, Timer::HealthCheck(id)));
        }
        if let Some(at) = session.connection_check {
            self.timers.remove(&(at, Timer::ConnectionCheck(id)));
        }
    }

    /// Returns the keys that a session works on or holds, in ascending order.
    pub(super) fn keys_of(&self, id: SessionId) -> Vec<RawLockKey> {
        // A scan of all keys, because sessions seldom end.
        let keys = self.keys.iter();
        let keys = keys.filter(|(_, key_state)| key_state.phase().session() == Some(id));
        keys.map(|(key, _)| *key).collect()
    }

    /// Returns whether a session is dedicated to one key.
    pub(super) fn is_dedicated(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|session| session.dedicated_key.is_some())
    }
}

/// Joins the causes of an error to a text that several requests can share.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let causes = std::iter::successors(error.source(), |error| error.source());
    for cause in causes {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
    }
    text
}
