//! Waiting for a lock on the server, on a session of the key's own.

use std::time::Instant;

use super::key_state::KeyPhase;
use super::sessions::SessionPhase;
use super::{Command, Core, Deadline, SessionId, WaitOutcome};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::options::{LockOptions, WaitStrategy};

impl<W> Core<W> {
    /// Whether one more session may wait on the server.
    pub(super) fn may_wait_on_server(&self) -> bool {
        let waiting = self
            .sessions
            .values()
            .filter(|session| session.dedicated_key.is_some());
        waiting.count() < self.settings.max_waiting_sessions
    }

    /// Waits on the server for the first in the queue, on a session of the key's own.
    pub(super) fn wait_on_server(&mut self, key: RawLockKey, own: Option<SessionId>, now: Instant) {
        let Some(key_state) = self.keys.get(&key) else {
            return;
        };
        let Some(next) = key_state.queue.front() else {
            return;
        };
        // The wait goes on for those who come later, so it ends when the most patient of those who are here gives up.
        let blocking = key_state.queue.iter();
        let blocking = blocking.filter(|request| request.strategy == WaitStrategy::Block);
        let limits = blocking.map(|request| match request.deadline {
            Deadline::At(limit) => Some(limit),
            Deadline::NoWait(_) | Deadline::Never => None,
        });
        let until = limits.reduce(|one, other| Some(one?.max(other?))).flatten();
        let options = match until {
            Some(limit) => LockOptions::wait_up_to(limit.saturating_duration_since(now)),
            None => LockOptions::wait_forever(),
        };
        let (name, mode) = (next.key.clone(), next.mode);
        let phase = SessionPhase::WaitingOnServer { until };
        let session = match own {
            Some(session) => session,
            None => self.new_session(SessionPhase::Opening, Some(key), now),
        };
        if let Some(session) = self.sessions.get_mut(&session) {
            (session.phase, session.phase_start) = (phase, now);
        }
        if let Some(key_state) = self.keys.get_mut(&key) {
            key_state.phase = KeyPhase::WaitingOnServer { session, mode };
        }
        self.commands.push(Command::WaitOnServer {
            session,
            key: name,
            options: options.mode(mode).strategy(WaitStrategy::Block),
        });
    }

    /// Nobody is left for whom a session waits on the server.
    pub(super) fn stop_server_wait(&mut self, id: SessionId, now: Instant) {
        let phase = self.sessions.get(&id).map(|session| &session.phase);
        match phase {
            // It ends by itself, at this moment.
            Some(SessionPhase::WaitingOnServer { until: Some(limit) }) if *limit <= now => {
                self.schedule_health_check(id, now)
            }
            Some(_) | None => self.terminate_session(id),
        }
    }

    /// A wait on the server has ended.
    pub(crate) fn on_wait_ended(&mut self, id: SessionId, waited: WaitOutcome, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(key) = session
            .dedicated_key
            .filter(|_| matches!(session.phase, SessionPhase::WaitingOnServer { .. }))
        else {
            // Nothing was asked.
            return self.on_session_lost(id, LockErrorKind::Lost, now);
        };
        (session.phase, session.phase_start) = (SessionPhase::ProcessingReply, now);
        let mode = match self.keys.get(&key).map(|key_state| &key_state.phase) {
            Some(KeyPhase::WaitingOnServer { session, mode }) if *session == id => Some(*mode),
            Some(_) | None => None,
        };
        match (waited, mode) {
            (WaitOutcome::Granted { pid }, Some(mode)) => {
                session.pid = pid;
                self.schedule_health_check(id, now);
                self.on_granted(key, id, mode, None, now);
                self.on_idle(id, now);
            }
            // Granted in the moment in which the last to wait for it gave up.
            (WaitOutcome::Granted { .. }, None) => self.terminate_session(id),
            (WaitOutcome::TimedOut | WaitOutcome::Failed(_), None) => self.close_session(id),
            (WaitOutcome::TimedOut, Some(_)) => self.on_wait_failed(id, key, None, now),
            (WaitOutcome::Failed(error), Some(_)) => self.on_wait_failed(id, key, Some(error), now),
        }
        self.finish_closing();
    }

    /// The session goes; an error is for the first in the queue who waited on the server, and the others go on. Without a session to wait
    /// on, the key is polled.
    fn on_wait_failed(
        &mut self,
        id: SessionId,
        key: RawLockKey,
        error: Option<LockError>,
        now: Instant,
    ) {
        self.close_session(id);
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        key_state.phase = KeyPhase::NotHeld;
        let without_session =
            |error: &LockError| matches!(error.kind(), LockErrorKind::Pool | LockErrorKind::Lost);
        if let Some(error) = error.filter(|error| !without_session(error)) {
            if let Some(request) = key_state.queue.remove_blocking() {
                self.fail_with(request, error);
            }
        }
        self.poll_later(key, now);
    }
}
