//! Waiting for a lock on the server, on a session of the key's own.

use std::time::Instant;

use super::entry::Stage;
use super::sessions::State;
use super::{Command, Core, Patience, SessionId, Waited};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::options::{LockOptions, WaitStrategy};

impl<W> Core<W> {
    /// Whether one more session may wait on the server.
    pub(super) fn may_wait_on_server(&self) -> bool {
        let waiting = self
            .sessions
            .values()
            .filter(|session| session.own.is_some());
        waiting.count() < self.settings.waiting_sessions
    }

    /// Waits on the server for the first in the queue, on a session of the key's own.
    pub(super) fn wait_on_server(&mut self, key: RawLockKey, own: Option<SessionId>, now: Instant) {
        let Some(entry) = self.keys.get(&key) else {
            return;
        };
        let Some(next) = entry.line.front() else {
            return;
        };
        // The wait goes on for those who come later, so it ends when the most patient of those who are here gives up.
        let blocking = entry.line.iter();
        let blocking = blocking.filter(|request| request.strategy == WaitStrategy::Block);
        let limits = blocking.map(|request| match request.patience {
            Patience::Until(limit) => Some(limit),
            Patience::Once(_) | Patience::Forever => None,
        });
        let until = limits.reduce(|one, other| Some(one?.max(other?))).flatten();
        let options = match until {
            Some(limit) => LockOptions::wait_up_to(limit.saturating_duration_since(now)),
            None => LockOptions::wait_forever(),
        };
        let (name, mode) = (next.key.clone(), next.mode);
        let state = State::Waiting { until };
        let session = match own {
            Some(session) => session,
            None => self.new_session(State::Opening, Some(key), now),
        };
        if let Some(session) = self.sessions.get_mut(&session) {
            (session.state, session.since) = (state, now);
        }
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.stage = Stage::Waiting { session, mode };
        }
        self.commands.push(Command::Wait {
            session,
            key: name,
            options: options.mode(mode).strategy(WaitStrategy::Block),
        });
    }

    /// Nobody is left for whom a session waits on the server.
    pub(super) fn end_wait(&mut self, id: SessionId, now: Instant) {
        let state = self.sessions.get(&id).map(|session| &session.state);
        match state {
            // It ends by itself, at this moment.
            Some(State::Waiting { until: Some(limit) }) if *limit <= now => self.watch(id, now),
            Some(_) | None => self.abandon(id),
        }
    }

    /// A wait on the server has ended.
    pub(crate) fn waited(&mut self, id: SessionId, waited: Waited, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(key) = session
            .own
            .filter(|_| matches!(session.state, State::Waiting { .. }))
        else {
            // Nothing was asked.
            return self.lose(id, LockErrorKind::Lost, now);
        };
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

    /// The session goes; an error is for the first in the queue who waited on the server, and the others go on. Without a session to wait
    /// on, the key is polled.
    fn not_waited_for(
        &mut self,
        id: SessionId,
        key: RawLockKey,
        error: Option<LockError>,
        now: Instant,
    ) {
        self.close_session(id);
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        entry.stage = Stage::Away;
        let without_session =
            |error: &LockError| matches!(error.kind(), LockErrorKind::Pool | LockErrorKind::Lost);
        if let Some(error) = error.filter(|error| !without_session(error)) {
            if let Some(request) = entry.line.remove_blocking() {
                self.refuse_with(request, error);
            }
        }
        self.ask_later(key, now);
    }
}
