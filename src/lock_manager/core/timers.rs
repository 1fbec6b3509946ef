//! What happens when time passes.

use std::time::Instant;

use super::key_state::KeyPhase;
use super::sessions::SessionPhase;
use super::{Core, RequestId, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;

/// What is to happen at a certain time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Timer {
    /// The limit of a request passes.
    Deadline(RequestId, RawLockKey),
    /// A key is asked for again.
    Poll(RawLockKey),
    /// A session is looked after.
    HealthCheck(SessionId),
}

impl<W> Core<W> {
    /// When [`run_due_timers`](Self::run_due_timers) has something to do, unless something else happens first.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub(crate) fn run_due_timers(&mut self, now: Instant) {
        // What is due is gathered, so that it is asked for together.
        let mut due = Vec::new();
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Deadline(request, key) => self.on_deadline(request, key, now),
                Timer::Poll(key) => due.push(key),
                Timer::HealthCheck(session) => self.health_check(session, now),
            }
        }
        self.batched(now, |core| {
            for key in due {
                if let Some(key_state) = core.keys.get_mut(&key) {
                    key_state.next_poll = None;
                    if matches!(key_state.phase, KeyPhase::NotHeld) {
                        core.send_acquire(key, now);
                    }
                }
            }
        });
    }

    fn on_deadline(&mut self, id: RequestId, key: RawLockKey, now: Instant) {
        let Some(request) = self.remove_request(id, key, now) else {
            return;
        };
        // A database that cannot be reached is the better reason.
        let failure = self.open_failure.as_ref().filter(|_| !self.is_connected());
        match failure.map(|failure| failure.why.clone()) {
            Some(why) => {
                let error = LockError::new(LockErrorKind::Pool);
                let error = error.with_key(&request.key).with_context(why);
                self.fail_with(request, error);
            }
            None => self.fail(request, LockErrorKind::TimedOut),
        }
    }

    /// A session that is in its phase since then will be looked after.
    pub(super) fn schedule_health_check(&mut self, id: SessionId, since: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(
            &mut session.health_check,
            since.checked_add(self.settings.keep_alive),
        );
        if let Some(at) = before {
            self.timers.remove(&(at, Timer::HealthCheck(id)));
        }
        if let Some(at) = session.health_check {
            self.timers.insert((at, Timer::HealthCheck(id)));
        }
    }

    /// An idle session is asked whether it is alive; one that has not answered for too long is given up.
    fn health_check(&mut self, id: SessionId, now: Instant) {
        let used = self.is_used_by_its_key(id);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.health_check = None;
        let since = session.phase_start;
        if now.saturating_duration_since(since) < self.settings.keep_alive {
            return self.schedule_health_check(id, since);
        }
        match session.phase {
            SessionPhase::Idle => {
                self.ping(id, now);
                self.schedule_health_check(id, now);
            }
            SessionPhase::Executing { .. } | SessionPhase::Compensating { .. } => {
                self.on_session_lost(id, LockErrorKind::Lost, now);
            }
            // Nobody waits for it any more, and it has not come back at its limit.
            SessionPhase::WaitingOnServer { .. } if !used => {
                self.terminate_session(id);
                self.finish_closing();
            }
            // It is looked after again when it is granted, or when nobody waits for it any more.
            SessionPhase::Opening
            | SessionPhase::ProcessingReply
            | SessionPhase::WaitingOnServer { .. } => {}
        }
    }

    fn is_used_by_its_key(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .and_then(|session| session.dedicated_key)
            .and_then(|key| self.keys.get(&key))
            .is_some_and(|key_state| key_state.phase.session() == Some(id))
    }
}
