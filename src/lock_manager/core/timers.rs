//! Timers: deadlines, polls, health checks, connection checks.
//!
//! # Implementation details
//!
//! One ordered set of times and events. The driver sleeps until the first time and then calls
//! [`Core::run_due_timers`]. A timer is removed as soon as its event has no meaning. So the size of
//! the set depends on the keys, waiters and sessions in use only. Consequence for users: the
//! deadline of a wait is exact to the resolution of the driver's timer. A session that does not
//! reply to a batch is found within two keep-alive intervals. A wait on the server is not checked
//! while its key needs it, because it may last for any time.

use std::time::Instant;

use super::key_state::KeyPhase;
use super::session_loss::SessionLoss;
use super::sessions::SessionPhase;
use super::{Core, RequestId, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::pool::MIN_CHECKOUT;

/// Event of a timer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Timer {
    /// The deadline of a request passes.
    Deadline(RequestId, RawLockKey),
    /// A key is polled.
    Poll(RawLockKey),
    /// The health of a session is checked.
    HealthCheck(SessionId),
    /// The connection of a session that holds a lock is checked.
    ConnectionCheck(SessionId),
}

impl<W> Core<W> {
    /// Returns the time at which [`run_due_timers`](Self::run_due_timers) has work to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Runs the timers that are due.
    pub(crate) fn run_due_timers(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            // Removed before its handler runs, which may schedule a timer of the same key.
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Deadline(request, key) => self.on_deadline(request, key, now),
                Timer::Poll(key) => self.on_poll(key, now),
                Timer::HealthCheck(session) => self.health_check(session, now),
                Timer::ConnectionCheck(session) => self.check_connection(session, now),
            }
        }
    }

    fn on_poll(&mut self, key: RawLockKey, now: Instant) {
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        key_state.next_poll = None;
        if key_state.phase() != KeyPhase::NotHeld {
            return;
        }
        match self.reopen_at(now) {
            // The next attempt to open a session serves all waiting keys.
            Some(at) => self.schedule_poll(key, at),
            None => self.send_acquire(key, now),
        }
    }

    fn on_deadline(&mut self, id: RequestId, key: RawLockKey, now: Instant) {
        if self.await_first_answer(id, key, now) {
            return;
        }
        // Before the removal, which may end the wait of the key's session.
        let has_session = self.is_connected() || self.is_on_open_session(key);
        let Some(request) = self.remove_request(id, key, now) else {
            return;
        };
        if has_session || self.is_without_locks() {
            return self.fail(request, LockErrorKind::TimedOut);
        }
        // Without a session the server was not asked, so the caller must not conclude that another
        // session holds the lock.
        let error = LockError::new(LockErrorKind::Pool).with_key(&request.key);
        let error = match &self.open_failure {
            Some(failure) => error.with_context(failure.message.clone()),
            None => error.with_context("the pool returned no connection within the limit"),
        };
        self.fail_with(request, error);
    }

    /// Gives a request time for its first answer, after which it does not wait. Returns `false` if
    /// it was answered or has had that time.
    ///
    /// The limit bounds the wait for other holders, not the round trip of an attempt.
    fn await_first_answer(&mut self, id: RequestId, key: RawLockKey, now: Instant) -> bool {
        let Some(key_state) = self.keys.get_mut(&key) else {
            return false;
        };
        let is_sent = key_state.phase().session().is_some();
        let until = key_state
            .queue
            .get(id)
            .filter(|request| is_sent && !request.is_waiting);
        let until = until.and_then(|request| request.since.checked_add(MIN_CHECKOUT));
        let Some(at) = until.filter(|until| *until > now) else {
            return false;
        };
        key_state.queue.stop_waiting(id, at);
        self.timers.insert((at, Timer::Deadline(id, key)));
        true
    }

    /// Schedules the health check of a session whose phase began at `since`.
    pub(super) fn schedule_health_check(&mut self, id: SessionId, since: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(
            &mut session.health_check,
            since.checked_add(self.options.keep_alive),
        );
        if let Some(at) = before {
            self.timers.remove(&(at, Timer::HealthCheck(id)));
        }
        if let Some(at) = session.health_check {
            self.timers.insert((at, Timer::HealthCheck(id)));
        }
    }

    /// Checks a session: pings it if idle, and handles it as lost if its reply is overdue.
    fn health_check(&mut self, id: SessionId, now: Instant) {
        let needed = self.works_for_its_key(id);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.health_check = None;
        let since = session.phase_start;
        // The phase changed after this timer was set. Statements do not move the timer, because
        // each move updates the set of timers. So it is moved here, once per interval.
        if now.saturating_duration_since(since) < self.options.keep_alive {
            return self.schedule_health_check(id, since);
        }
        match session.phase {
            SessionPhase::Idle => {
                self.ping(id, now);
                self.schedule_health_check(id, now);
            }
            SessionPhase::Executing { .. } | SessionPhase::Compensating { .. } => {
                self.on_session_lost(id, SessionLoss::Unreliable, now);
            }
            // The key does not need the wait, and the wait did not end at its limit.
            SessionPhase::WaitingOnServer { .. } if !needed => self.terminate_session(id),
            SessionPhase::Opening => {
                self.terminate_session(id);
                let cause = "a new session did not reply to its first statement";
                let error = LockError::new(LockErrorKind::Pool).with_source(cause);
                self.on_open_failed(id, error, now);
            }
            // The next phase schedules a health check.
            SessionPhase::WaitingOnServer { .. } => {}
        }
    }
}
