//! The sessions: which one is asked, how one is opened, lost and given back.

use std::time::Instant;

use super::alarms::Alarm;
use super::{Command, Core, Patience, SessionId, Stage, Unopened, Waited};
use crate::error::{LockError, LockErrorKind};
use crate::key::KeySpace;
use crate::options::{LockOptions, WaitStrategy};
use crate::protocol::Pauses;
use crate::session::{Backend, RoundStep, SessionError};

/// What a session does, with at most one statement in flight.
#[derive(Debug)]
pub(super) enum State<W> {
    /// Its connection is being checked out.
    Opening,
    Idle,
    /// A round is in flight. `confirming` have given back what is still held for others, before it was sent.
    Serving {
        steps: Vec<RoundStep>,
        confirming: Vec<W>,
    },
    /// A round has failed; what it took is being given back.
    Undoing {
        steps: Vec<RoundStep>,
        error: Failure,
    },
    /// What it has answered is being dealt with.
    Digesting,
    /// It waits on the server.
    Waiting,
}

/// Why a round failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: LockErrorKind,
    pub(super) why: String,
}

/// One connection and what is to be asked on it.
#[derive(Debug)]
pub(super) struct Session<W> {
    pub(super) state: State<W>,
    /// The server's session; 0 before it has answered.
    pub(super) pid: i32,
    /// What goes with the next round; with `true`, in a round of its own.
    pub(super) outbox: Vec<(RoundStep, bool)>,
    /// Who is told after the next round that the session was alive.
    pub(super) confirms: Vec<W>,
    /// The only key of a session that waits on the server.
    pub(super) own: Option<KeySpace>,
    /// Since when it has been in its state.
    pub(super) since: Instant,
}

impl<W> Session<W> {
    /// Whether nothing is in flight and nothing is to be sent.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && self.outbox.is_empty() && self.confirms.is_empty()
    }
}

impl<W> Core<W> {
    /// The session to ask next: one that is idle, else a new one, else the one with the least to do.
    pub(super) fn pick(&mut self, now: Instant) -> SessionId {
        let shared = self
            .sessions
            .iter()
            .filter(|(_, session)| session.own.is_none());
        let idle = shared.clone().find(|(_, session)| session.is_idle());
        let least = idle.or_else(|| {
            let full = shared.clone().count() >= self.settings.sessions;
            let by_load = shared.min_by_key(|(_, session)| session.outbox.len());
            by_load.filter(|_| full)
        });
        match least {
            Some((id, _)) => *id,
            None => {
                let id = self.new_session(State::Opening, None, now);
                self.commands.push(Command::Open { session: id });
                id
            }
        }
    }

    fn new_session(&mut self, state: State<W>, own: Option<KeySpace>, now: Instant) -> SessionId {
        let id = SessionId(self.fresh());
        self.sessions.insert(
            id,
            Session {
                state,
                pid: 0,
                outbox: Vec::new(),
                confirms: Vec::new(),
                own,
                since: now,
            },
        );
        id
    }

    /// Whether one more session may wait on the server.
    pub(super) fn may_wait_on_server(&self) -> bool {
        let waiting = self
            .sessions
            .values()
            .filter(|session| session.own.is_some());
        waiting.count() < self.settings.waiting_sessions
    }

    /// Waits on the server for the first in the queue, on a session of the key's own.
    pub(super) fn wait_on_server(&mut self, key: KeySpace, own: Option<SessionId>, now: Instant) {
        let session = own.unwrap_or_else(|| self.new_session(State::Waiting, Some(key), now));
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        let Some(next) = entry.queue.front() else {
            return;
        };
        entry.stage = Stage::Waiting {
            session,
            mode: next.mode,
        };
        // The wait goes on for those who come later, so it ends when the most patient of those who are here gives up.
        let blocking = entry.queue.iter();
        let blocking = blocking.filter(|request| request.strategy == WaitStrategy::Block);
        let limits = blocking.map(|request| match request.patience {
            Patience::Until(limit) => Some(limit),
            Patience::Once(_) | Patience::Forever => None,
        });
        let limit = limits.reduce(|one, other| Some(one?.max(other?))).flatten();
        let options = match limit {
            Some(limit) => LockOptions::wait_up_to(limit.saturating_duration_since(now)),
            None => LockOptions::wait_forever(),
        };
        let (key, mode) = (next.key.clone(), next.mode);
        if let Some(session) = self.sessions.get_mut(&session) {
            (session.state, session.since) = (State::Waiting, now);
        }
        self.commands.push(Command::Wait {
            session,
            key,
            options: options.mode(mode).strategy(WaitStrategy::Block),
        });
    }

    /// A connection was checked out, or could not be. `pid` is the server's session that answered on it.
    pub(crate) fn opened(
        &mut self,
        id: SessionId,
        opened: Result<(Backend, i32), LockError>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match opened {
            Ok((Backend::Postgres, pid)) => {
                (session.pid, session.since) = (pid, now);
                self.backend = Some(Backend::Postgres);
                self.unopened = None;
                session.state = State::Digesting;
                self.watch(id, now);
                self.rest(id, now);
            }
            Ok((backend, _)) => {
                self.backend = Some(backend);
                self.without_locks(id, now);
            }
            Err(error) => self.unopened(id, error, now),
        }
    }

    /// There are no locks: nobody needs the session.
    fn without_locks(&mut self, id: SessionId, now: Instant) {
        self.sessions.remove(&id);
        self.leaving.insert(id);
        self.commands.push(Command::Close { session: id });
        for key in self.keys_of(id) {
            let Some(entry) = self.keys.get_mut(&key) else {
                continue;
            };
            entry.stage = Stage::Away;
            if !self.is_no_op() {
                self.ask(key, now);
                continue;
            }
            for request in self
                .keys
                .remove(&key)
                .into_iter()
                .flat_map(|entry| entry.queue)
            {
                self.admit(request);
            }
        }
    }

    /// No connection could be had. Those who ask once are told; the others too, unless there was one before: then the database may be on its way
    /// back, and they ask again until their limits.
    fn unopened(&mut self, id: SessionId, error: LockError, now: Instant) {
        self.sessions.remove(&id);
        let (kind, why) = (error.kind(), chain(&error));
        let may_return = self.backend.is_some() && kind == LockErrorKind::Pool;
        let longest = std::time::Duration::from_secs(1);
        let unopened = self.unopened.get_or_insert_with(|| Unopened {
            why: String::new(),
            pauses: Pauses::new(longest, self.random.fork()),
        });
        unopened.why.clone_from(&why);
        let due = now.checked_add(unopened.pauses.next()).unwrap_or(now);
        for key in self.keys_of(id) {
            let Some(entry) = self.keys.get_mut(&key) else {
                continue;
            };
            entry.stage = Stage::Away;
            let queue = std::mem::take(&mut entry.queue);
            let (told, wait): (Vec<_>, Vec<_>) = queue
                .into_iter()
                .partition(|request| !may_return || matches!(request.patience, Patience::Once(_)));
            entry.queue.extend(wait);
            if !entry.queue.is_empty() {
                entry.due = Some(due);
                self.alarms.insert((due, Alarm::Due(key)));
            }
            for request in told {
                let error = LockError::new(kind)
                    .with_key(&request.key)
                    .because(why.clone());
                self.refuse_with(request, error);
            }
            self.forget_if_idle(key);
        }
        self.finish_closing();
    }

    /// A wait on the server has ended.
    pub(crate) fn waited(&mut self, id: SessionId, waited: Waited, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(key) = session.own else { return };
        (session.state, session.since) = (State::Digesting, now);
        let mode = match self.keys.get(&key).map(|entry| &entry.stage) {
            Some(Stage::Waiting { session, mode }) if *session == id => Some(*mode),
            Some(_) | None => None,
        };
        match (waited, mode) {
            (Waited::Granted { pid }, Some(mode)) => {
                session.pid = pid;
                self.watch(id, now);
                self.taken(key, id, mode, None, now);
                self.rest(id, now);
            }
            // Granted in the moment in which the last to wait for it gave up.
            (Waited::Granted { .. }, None) => self.abandon(id),
            (Waited::TimedOut | Waited::Failed(_), None) => self.close_session(id),
            (Waited::TimedOut, Some(_)) => self.not_waited_for(id, key, None, now),
            (Waited::Failed(error), Some(_)) => self.not_waited_for(id, key, Some(error), now),
        }
        self.finish_closing();
    }

    /// The session goes; an error is for the first in the queue who waited on the server, and the others go on.
    fn not_waited_for(
        &mut self,
        id: SessionId,
        key: KeySpace,
        error: Option<LockError>,
        now: Instant,
    ) {
        self.close_session(id);
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        entry.stage = Stage::Away;
        let place = entry.queue.iter();
        let place = error.as_ref().and_then(|_| {
            place
                .clone()
                .position(|request| request.strategy == WaitStrategy::Block)
        });
        let told = place.and_then(|place| entry.queue.remove(place));
        if let (Some(request), Some(error)) = (told, error) {
            self.refuse_with(request, error);
        }
        self.ask_later(key, now);
    }

    /// The session has ended, or cannot be relied on: everything on it is lost.
    pub(super) fn lose(&mut self, id: SessionId, kind: LockErrorKind, now: Instant) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.leaving.insert(id);
        self.commands.push(Command::Lost { session: id });
        self.commands.push(Command::Abandon { session: id });
        let confirming = match session.state {
            State::Serving { confirming, .. } => confirming,
            State::Opening
            | State::Idle
            | State::Undoing { .. }
            | State::Digesting
            | State::Waiting => Vec::new(),
        };
        for waiter in confirming.into_iter().chain(session.confirms) {
            self.reply(Some(waiter), Err(kind));
        }
        for key in self.keys_of(id) {
            let Some(entry) = self.keys.get_mut(&key) else {
                continue;
            };
            entry.holders.clear();
            (entry.since, entry.turns) = (None, 0);
            let stage = std::mem::replace(&mut entry.stage, Stage::Away);
            if let Stage::Leaving { releaser, .. } = stage {
                self.reply(releaser, Err(kind));
            }
            // It was asked once for those who do not wait.
            self.fail_impatient(
                key,
                LockErrorKind::Database,
                "the session ended before it answered",
            );
            self.ask_later(key, now);
        }
        self.finish_closing();
    }

    /// The session is ended, whatever it does; nothing is held on it that anybody knows of.
    pub(super) fn abandon(&mut self, id: SessionId) {
        if self.sessions.remove(&id).is_some() {
            self.leaving.insert(id);
            self.commands.push(Command::Abandon { session: id });
        }
    }

    /// The connection goes back to its pool: nothing is held on it.
    pub(super) fn close_session(&mut self, id: SessionId) {
        if self.sessions.remove(&id).is_some() {
            self.leaving.insert(id);
            self.commands.push(Command::Close { session: id });
        }
    }

    /// The keys that are with a session.
    pub(super) fn keys_of(&self, id: SessionId) -> Vec<KeySpace> {
        let keys = self.keys.iter();
        keys.filter(|(_, entry)| entry.stage.session() == Some(id))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Whether a session is for one key, on which it has waited.
    pub(super) fn is_own(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|session| session.own.is_some())
    }
}

/// An error with its causes, for many who are to be told.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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
            why: chain(error),
        }
    }
}
