//! Connection checks: a client may know of the end of a session before any statement fails.
//!
//! # Implementation details
//!
//! A grant starts the timer of its session, unless it runs. At each interval the driver checks the
//! connection of an idle session, without I/O. With a statement in flight there is no check,
//! because its error reports the end of the session. The timer lapses if no lock is held on the
//! session. So a session has one such timer at most, and short holds do not move it. Consequence
//! for users: a holder learns within one interval of a session that the server has ended.

use std::time::{Duration, Instant};

use super::session_loss::SessionLoss;
use super::timers::Timer;
use super::{Core, SessionCommand, SessionId};

/// Interval between connection checks: a check only reads the client's state.
pub(crate) const CONNECTION_CHECK_INTERVAL: Duration = Duration::from_millis(250);

impl<W> Core<W> {
    /// Uses an async pool: checks the connections of sessions that hold locks, at this interval,
    /// and waits for the end of terminated sessions.
    pub(crate) const fn over_async_pool(mut self, check_interval: Duration) -> Self {
        self.connection_check_interval = Some(check_interval);
        self
    }

    /// Schedules the next connection check of a session, unless it is scheduled.
    pub(super) fn arm_connection_check(&mut self, id: SessionId, now: Instant) {
        let Some(interval) = self.connection_check_interval else {
            return;
        };
        // In the process there is no session to check.
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.connection_check.is_none() {
            session.connection_check = now.checked_add(interval);
            if let Some(at) = session.connection_check {
                self.timers.insert((at, Timer::ConnectionCheck(id)));
            }
        }
    }

    /// Checks the connection of a session that is idle and holds a lock.
    pub(super) fn check_connection(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.connection_check = None;
        let is_idle = session.is_idle();
        if !self.has_holder_on(id) {
            return;
        }
        if is_idle {
            self.send(id, SessionCommand::CheckConnection);
        }
        self.arm_connection_check(id, now);
    }

    /// Returns whether a lock is held on a session.
    fn has_holder_on(&self, id: SessionId) -> bool {
        let mut keys = self.keys.values();
        keys.any(|key_state| {
            key_state.phase().session() == Some(id) && !key_state.holders.is_empty()
        })
    }

    /// Handles a session whose connection the client has found closed.
    pub(crate) fn on_connection_closed(&mut self, id: SessionId, now: Instant) {
        self.on_session_lost(id, SessionLoss::Ended, now);
    }
}
