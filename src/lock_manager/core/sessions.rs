//! The sessions: which one is asked, how one is opened, lost and given back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::key_state::KeyPhase;
use super::timers::Timer;
use super::{Command, Core, OpenFailure, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::protocol::Backoff;
use crate::session::{Backend, LockOp, SessionError};

/// The longest pause between two attempts to have a session.
const MAX_REOPEN_BACKOFF: Duration = Duration::from_secs(1);

/// What a session does, with at most one statement in flight.
#[derive(Debug)]
pub(super) enum SessionPhase<W> {
    /// Its connection is being checked out.
    Opening,
    Idle,
    /// A round is in flight. `acks` have given back what is still held for others, before it was sent.
    Executing {
        ops: Arc<[LockOp]>,
        acks: Vec<W>,
    },
    /// A round has failed; what it took is being given back.
    Compensating {
        ops: Arc<[LockOp]>,
        error: Failure,
    },
    /// What it has answered is being dealt with.
    ProcessingReply,
    /// It waits on the server, which ends the wait at this time.
    WaitingOnServer {
        until: Option<Instant>,
    },
}

/// Why a round failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: LockErrorKind,
    pub(super) why: String,
}

/// One connection and what is to be asked on it.
#[derive(Debug)]
pub(super) struct SessionState<W> {
    pub(super) phase: SessionPhase<W>,
    /// The server's session; 0 before it has answered.
    pub(super) pid: i32,
    /// What goes with the next round; with `true`, in a round of its own.
    pub(super) outbox: VecDeque<(LockOp, bool)>,
    /// Who is told after the next round that the session was alive.
    pub(super) pending_acks: Vec<W>,
    /// The only key of a session that waits on the server.
    pub(super) dedicated_key: Option<RawLockKey>,
    /// Since when it has been in its phase.
    pub(super) phase_start: Instant,
    /// When it is looked after.
    pub(super) health_check: Option<Instant>,
}

impl<W> SessionState<W> {
    const fn is_opening(&self) -> bool {
        matches!(self.phase, SessionPhase::Opening)
    }

    /// Whether nothing is in flight and nothing is to be sent.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, SessionPhase::Idle)
            && self.outbox.is_empty()
            && self.pending_acks.is_empty()
    }
}

impl<W> Core<W> {
    /// The session to ask next: one that is idle, else the one with the least to do; and then there is to be one more, for the next time.
    ///
    /// Nothing is left to a session that is being opened, unless there is no other: the pool may have none to give for long.
    pub(super) fn select_session(&mut self, now: Instant) -> SessionId {
        let shared = self.shared_sessions();
        let count = shared.clone().count();
        let opening = shared.clone().any(|(_, session)| session.is_opening());
        let best = shared.min_by_key(|(_, session)| {
            let idle = matches!(session.phase, SessionPhase::Idle);
            (session.is_opening(), !idle, session.outbox.len())
        });
        let Some((id, session)) = best else {
            return self.open_session(now);
        };
        let (id, idle) = (*id, matches!(session.phase, SessionPhase::Idle));
        let failed = self.open_failure.as_ref();
        let again = failed.is_none_or(|failure| failure.due <= now);
        if !idle && !opening && again && count < self.settings.max_sessions {
            self.open_session(now);
        }
        id
    }

    fn shared_sessions(&self) -> impl Iterator<Item = (&SessionId, &SessionState<W>)> + Clone {
        let sessions = self.sessions.iter();
        sessions.filter(|(_, session)| session.dedicated_key.is_none())
    }

    /// Whether there is a session that can be asked.
    pub(super) fn is_connected(&self) -> bool {
        self.shared_sessions()
            .any(|(_, session)| !session.is_opening())
    }

    fn open_session(&mut self, now: Instant) -> SessionId {
        let id = self.new_session(SessionPhase::Opening, None, now);
        self.commands.push(Command::Open { session: id });
        id
    }

    pub(super) fn new_session(
        &mut self,
        phase: SessionPhase<W>,
        dedicated_key: Option<RawLockKey>,
        now: Instant,
    ) -> SessionId {
        let id = SessionId(self.next_id());
        self.sessions.insert(
            id,
            SessionState {
                phase,
                pid: 0,
                outbox: VecDeque::new(),
                pending_acks: Vec::new(),
                dedicated_key,
                phase_start: now,
                health_check: None,
            },
        );
        id
    }

    /// A connection was checked out, or could not be. `pid` is the server's session that answered on it.
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
            // Nothing was asked.
            return self.on_session_lost(id, LockErrorKind::Lost, now);
        }
        match opened {
            Ok((Backend::Postgres, pid)) => {
                (session.pid, session.phase_start) = (pid, now);
                self.backend = Some(Backend::Postgres);
                self.open_failure = None;
                session.phase = SessionPhase::ProcessingReply;
                self.schedule_health_check(id, now);
                self.on_idle(id, now);
            }
            Ok((backend, _)) => {
                self.backend = Some(backend);
                self.on_no_lock_backend(id, now);
            }
            Err(error) => self.on_open_failed(id, error, now),
        }
    }

    /// There are no locks: nobody needs the session.
    fn on_no_lock_backend(&mut self, id: SessionId, now: Instant) {
        self.close_session(id);
        for key in self.keys_of(id) {
            let Some(key_state) = self.keys.get_mut(&key) else {
                continue;
            };
            key_state.phase = KeyPhase::NotHeld;
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

    /// No connection could be had. Those who ask once are told; the others too, unless there was one before: then the database may be on its way
    /// back, and they ask again until their limits.
    fn on_open_failed(&mut self, id: SessionId, error: LockError, now: Instant) {
        self.sessions.remove(&id);
        let (kind, why) = (error.kind(), error_chain(&error));
        let may_return = self.backend.is_some() && kind == LockErrorKind::Pool;
        let due = self.schedule_reopen(why.clone(), now);
        for key in self.keys_of(id) {
            let Some(key_state) = self.keys.get_mut(&key) else {
                continue;
            };
            key_state.phase = KeyPhase::NotHeld;
            let told: Vec<_> = if may_return {
                key_state.queue.drain_no_wait()
            } else {
                key_state.queue.drain().into()
            };
            self.schedule_poll(key, due);
            for request in told {
                let error = LockError::new(kind)
                    .with_key(&request.key)
                    .with_context(why.clone());
                self.fail_with(request, error);
            }
            self.remove_if_unused(key);
        }
        self.finish_closing();
    }

    /// Notes that a session could not be had. Returns when one more is tried.
    fn schedule_reopen(&mut self, why: String, now: Instant) -> Instant {
        let random = &mut self.random;
        let failure = self.open_failure.get_or_insert_with(|| OpenFailure {
            why: String::new(),
            pauses: Backoff::new(MAX_REOPEN_BACKOFF, random.fork()),
            due: now,
        });
        let due = now.checked_add(failure.pauses.next()).unwrap_or(now);
        (failure.why, failure.due) = (why, due);
        due
    }

    /// The session has ended, or cannot be relied on: everything on it is lost.
    pub(super) fn on_session_lost(&mut self, id: SessionId, kind: LockErrorKind, now: Instant) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        self.commands.push(Command::SessionLost { session: id });
        let Some(session) = self.remove_session(id, Command::Terminate { session: id }) else {
            return;
        };
        let acks = match session.phase {
            SessionPhase::Executing { acks, .. } => acks,
            SessionPhase::Opening
            | SessionPhase::Idle
            | SessionPhase::Compensating { .. }
            | SessionPhase::ProcessingReply
            | SessionPhase::WaitingOnServer { .. } => Vec::new(),
        };
        for waiter in acks.into_iter().chain(session.pending_acks) {
            self.reply(Some(waiter), Err(kind));
        }
        for key in self.keys_of(id) {
            let Some(key_state) = self.keys.get_mut(&key) else {
                continue;
            };
            key_state.holders.clear();
            key_state.reset_tenure();
            let phase = std::mem::replace(&mut key_state.phase, KeyPhase::NotHeld);
            if let KeyPhase::Releasing { releaser, .. } = phase {
                self.reply(releaser, Err(kind));
            }
            if kind == LockErrorKind::SessionChanged {
                self.fail_waiters(key, kind);
            }
            // It was asked once for those who do not wait.
            self.fail_no_wait_with(
                key,
                LockErrorKind::Database,
                "the session ended before it answered",
            );
            self.poll_later(key, now);
        }
        self.finish_closing();
    }

    /// The session is ended, whatever it does; nothing is held on it that anybody knows of.
    pub(super) fn terminate_session(&mut self, id: SessionId) {
        self.remove_session(id, Command::Terminate { session: id });
    }

    /// The connection goes back to its pool: nothing is held on it.
    pub(super) fn close_session(&mut self, id: SessionId) {
        self.remove_session(id, Command::Close { session: id });
    }

    fn remove_session(&mut self, id: SessionId, last: Command<W>) -> Option<SessionState<W>> {
        let session = self.sessions.remove(&id)?;
        if let Some(at) = session.health_check {
            self.timers.remove(&(at, Timer::HealthCheck(id)));
        }
        self.ending_sessions.insert(id);
        self.commands.push(last);
        Some(session)
    }

    /// The keys that are with a session, in their order.
    pub(super) fn keys_of(&self, id: SessionId) -> Vec<RawLockKey> {
        let keys = self.keys.iter();
        let keys = keys.filter(|(_, key_state)| key_state.phase.session() == Some(id));
        keys.map(|(key, _)| *key).collect()
    }

    /// Whether a session is for one key, on which it has waited.
    pub(super) fn is_dedicated(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|session| session.dedicated_key.is_some())
    }
}

/// An error with its causes, for many who are to be told.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
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

/// A round's error, for those whom it hit.
impl Failure {
    pub(super) fn of(error: &SessionError) -> Self {
        Self {
            kind: crate::backends::postgres::classify(error.code()),
            why: error_chain(error),
        }
    }
}
