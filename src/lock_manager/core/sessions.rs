//! The sessions: which one is asked, how one is opened, lost and given back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alarms::Alarm;
use super::entry::Stage;
use super::{Command, Core, SessionId, Unopened};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::protocol::Backoff;
use crate::session::{Backend, LockOp, SessionError};

/// The longest pause between two attempts to have a session.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a session does, with at most one statement in flight.
#[derive(Debug)]
pub(super) enum State<W> {
    /// Its connection is being checked out.
    Opening,
    Idle,
    /// A round is in flight. `confirming` have given back what is still held for others, before it was sent.
    Serving {
        steps: Arc<[LockOp]>,
        confirming: Vec<W>,
    },
    /// A round has failed; what it took is being given back.
    Undoing {
        steps: Arc<[LockOp]>,
        error: Failure,
    },
    /// What it has answered is being dealt with.
    Digesting,
    /// It waits on the server, which ends the wait at this time.
    Waiting {
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
pub(super) struct Session<W> {
    pub(super) state: State<W>,
    /// The server's session; 0 before it has answered.
    pub(super) pid: i32,
    /// What goes with the next round; with `true`, in a round of its own.
    pub(super) outbox: VecDeque<(LockOp, bool)>,
    /// Who is told after the next round that the session was alive.
    pub(super) confirms: Vec<W>,
    /// The only key of a session that waits on the server.
    pub(super) own: Option<RawLockKey>,
    /// Since when it has been in its state.
    pub(super) since: Instant,
    /// When it is looked after.
    pub(super) check: Option<Instant>,
}

impl<W> Session<W> {
    const fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening)
    }

    /// Whether nothing is in flight and nothing is to be sent.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && self.outbox.is_empty() && self.confirms.is_empty()
    }
}

impl<W> Core<W> {
    /// The session to ask next: one that is idle, else the one with the least to do; and then there is to be one more, for the next time.
    ///
    /// Nothing is left to a session that is being opened, unless there is no other: the pool may have none to give for long.
    pub(super) fn pick(&mut self, now: Instant) -> SessionId {
        let shared = self.shared();
        let count = shared.clone().count();
        let opening = shared.clone().any(|(_, session)| session.is_opening());
        let best = shared.min_by_key(|(_, session)| {
            let idle = matches!(session.state, State::Idle);
            (session.is_opening(), !idle, session.outbox.len())
        });
        let Some((id, session)) = best else {
            return self.open(now);
        };
        let (id, idle) = (*id, matches!(session.state, State::Idle));
        let failed = self.unopened.as_ref();
        let again = failed.is_none_or(|unopened| unopened.due <= now);
        if !idle && !opening && again && count < self.settings.sessions {
            self.open(now);
        }
        id
    }

    fn shared(&self) -> impl Iterator<Item = (&SessionId, &Session<W>)> + Clone {
        let sessions = self.sessions.iter();
        sessions.filter(|(_, session)| session.own.is_none())
    }

    /// Whether there is a session that can be asked.
    pub(super) fn is_connected(&self) -> bool {
        self.shared().any(|(_, session)| !session.is_opening())
    }

    fn open(&mut self, now: Instant) -> SessionId {
        let id = self.new_session(State::Opening, None, now);
        self.commands.push(Command::Open { session: id });
        id
    }

    pub(super) fn new_session(
        &mut self,
        state: State<W>,
        own: Option<RawLockKey>,
        now: Instant,
    ) -> SessionId {
        let id = SessionId(self.fresh());
        self.sessions.insert(
            id,
            Session {
                state,
                pid: 0,
                outbox: VecDeque::new(),
                confirms: Vec::new(),
                own,
                since: now,
                check: None,
            },
        );
        id
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
        if !session.is_opening() {
            // Nothing was asked.
            return self.lose(id, LockErrorKind::Lost, now);
        }
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
        self.close_session(id);
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
                .flat_map(|mut entry| entry.line.take())
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
        let due = self.try_later(why.clone(), now);
        for key in self.keys_of(id) {
            let Some(entry) = self.keys.get_mut(&key) else {
                continue;
            };
            entry.stage = Stage::Away;
            let told: Vec<_> = if may_return {
                entry.line.take_once()
            } else {
                entry.line.take().into()
            };
            self.set_due(key, due);
            for request in told {
                let error = LockError::new(kind)
                    .with_key(&request.key)
                    .with_context(why.clone());
                self.refuse_with(request, error);
            }
            self.forget_if_idle(key);
        }
        self.finish_closing();
    }

    /// Notes that a session could not be had. Returns when one more is tried.
    fn try_later(&mut self, why: String, now: Instant) -> Instant {
        let random = &mut self.random;
        let unopened = self.unopened.get_or_insert_with(|| Unopened {
            why: String::new(),
            pauses: Backoff::new(LONGEST_PAUSE, random.fork()),
            due: now,
        });
        let due = now.checked_add(unopened.pauses.next()).unwrap_or(now);
        (unopened.why, unopened.due) = (why, due);
        due
    }

    /// The session has ended, or cannot be relied on: everything on it is lost.
    pub(super) fn lose(&mut self, id: SessionId, kind: LockErrorKind, now: Instant) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        self.commands.push(Command::Lost { session: id });
        let Some(session) = self.dismiss(id, Command::Abandon { session: id }) else {
            return;
        };
        let confirming = match session.state {
            State::Serving { confirming, .. } => confirming,
            State::Opening
            | State::Idle
            | State::Undoing { .. }
            | State::Digesting
            | State::Waiting { .. } => Vec::new(),
        };
        for waiter in confirming.into_iter().chain(session.confirms) {
            self.reply(Some(waiter), Err(kind));
        }
        for key in self.keys_of(id) {
            let Some(entry) = self.keys.get_mut(&key) else {
                continue;
            };
            entry.holders.clear();
            entry.end_turns();
            let stage = std::mem::replace(&mut entry.stage, Stage::Away);
            if let Stage::Leaving { releaser, .. } = stage {
                self.reply(releaser, Err(kind));
            }
            if kind == LockErrorKind::SessionChanged {
                self.refuse_all(key, kind);
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
        self.dismiss(id, Command::Abandon { session: id });
    }

    /// The connection goes back to its pool: nothing is held on it.
    pub(super) fn close_session(&mut self, id: SessionId) {
        self.dismiss(id, Command::Close { session: id });
    }

    fn dismiss(&mut self, id: SessionId, last: Command<W>) -> Option<Session<W>> {
        let session = self.sessions.remove(&id)?;
        if let Some(at) = session.check {
            self.alarms.remove(&(at, Alarm::Check(id)));
        }
        self.leaving.insert(id);
        self.commands.push(last);
        Some(session)
    }

    /// The keys that are with a session, in their order.
    pub(super) fn keys_of(&self, id: SessionId) -> Vec<RawLockKey> {
        let keys = self.keys.iter();
        let keys = keys.filter(|(_, entry)| entry.stage.session() == Some(id));
        keys.map(|(key, _)| *key).collect()
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
