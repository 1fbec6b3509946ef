//! Waits in the server's queue, on sessions that are dedicated to one key.
//!
//! # Implementation details
//!
//! A blocking statement occupies its session, so each wait has a session of its own; their number
//! is limited. The session waits for the key, not for one request: the server wakes the session,
//! and the core then grants the first waiters. A granted lock stays on the session that waited.
//! When the last blocking waiter leaves, the session is terminated, because its statement cannot
//! be withdrawn reliably. Consequence for users: with [`WaitStrategy::Block`] the process has a
//! place in the server's queue, and without a free session the key is polled.

use std::time::Instant;

use super::key_state::{KeyEvent, KeyPhase};
use super::sessions::SessionPhase;
use super::{Command, Core, Deadline, SessionId, WaitOutcome};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::options::{LockOptions, WaitStrategy};

impl<W> Core<W> {
    /// Returns whether a further session may wait on the server.
    ///
    /// A session that was granted the lock still counts, because it occupies a connection.
    pub(super) fn may_wait_on_server(&self) -> bool {
        let waiting = self
            .sessions
            .values()
            .filter(|session| session.dedicated_key.is_some());
        waiting.count() < self.settings.max_waiting_sessions
    }

    /// Starts a wait for the first waiter, on `dedicated` or on a new session.
    pub(super) fn wait_on_server(
        &mut self,
        key: RawLockKey,
        dedicated: Option<SessionId>,
        now: Instant,
    ) {
        let Some(key_state) = self.keys.get(&key) else {
            return;
        };
        let Some(next) = key_state.queue.front() else {
            return;
        };
        // The wait also serves later waiters of the key, so it ends at the latest deadline of the
        // waiters that block.
        let blocking = key_state.queue.iter();
        let blocking = blocking.filter(|request| request.strategy == WaitStrategy::Block);
        // One waiter without a deadline makes the wait endless. The wait ends early when no
        // blocking waiter is left.
        let deadlines = blocking.map(|request| match request.deadline {
            Deadline::At(at) => Some(at),
            Deadline::NoWait(_) | Deadline::Never => None,
        });
        let until = deadlines
            .reduce(|one, other| Some(one?.max(other?)))
            .flatten();
        let options = match until {
            Some(limit) => LockOptions::wait_up_to(limit.saturating_duration_since(now)),
            None => LockOptions::wait_forever(),
        };
        let (name, mode) = (next.key.clone(), next.mode);
        let phase = SessionPhase::WaitingOnServer { until };
        let session = match dedicated {
            Some(session) => session,
            None => self.new_session(SessionPhase::Opening, Some(key), now),
        };
        if let Some(session) = self.sessions.get_mut(&session) {
            (session.phase, session.phase_start) = (phase, now);
        }
        if let Some(key_state) = self.keys.get_mut(&key) {
            key_state.apply(KeyEvent::WaitStarted { session, mode });
        }
        self.commands.push(Command::WaitOnServer {
            session,
            key: name,
            options: options.mode(mode).strategy(WaitStrategy::Block),
        });
    }

    /// Ends the wait of a session that no waiter needs.
    pub(super) fn stop_server_wait(&mut self, id: SessionId, now: Instant) {
        let phase = self.sessions.get(&id).map(|session| &session.phase);
        match phase {
            // The wait ends by its own limit now. The health check terminates a session that does
            // not return.
            Some(SessionPhase::WaitingOnServer { until: Some(limit) }) if *limit <= now => {
                self.schedule_health_check(id, now)
            }
            // A [cancel request](https://www.postgresql.org/docs/current/protocol-flow.html) may
            // arrive after the grant, and then the session would keep the lock.
            Some(_) | None => self.terminate_session(id),
        }
    }

    /// Handles the end of a wait on the server.
    pub(crate) fn on_wait_ended(&mut self, id: SessionId, outcome: WaitOutcome, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(key) = session
            .dedicated_key
            .filter(|_| matches!(session.phase, SessionPhase::WaitingOnServer { .. }))
        else {
            // The session was not told to wait.
            return self.on_session_lost(id, LockErrorKind::Lost, now);
        };
        (session.phase, session.phase_start) = (SessionPhase::ProcessingReply, now);
        let mode = match self.keys.get(&key).map(|key_state| key_state.phase()) {
            Some(KeyPhase::WaitingOnServer { session, mode }) if session == id => Some(mode),
            Some(_) | None => None,
        };
        match (outcome, mode) {
            (WaitOutcome::Granted { pid }, Some(mode)) => {
                // A new dedicated session is opened by its wait, so its process id is known only
                // now.
                session.pid = pid;
                self.schedule_health_check(id, now);
                self.on_granted(key, id, mode, None, now);
                self.on_idle(id, now);
            }
            // Granted after the last waiter had left. Termination releases the lock.
            (WaitOutcome::Granted { .. }, None) => self.terminate_session(id),
            (WaitOutcome::TimedOut | WaitOutcome::Failed(_), None) => self.close_session(id),
            (WaitOutcome::TimedOut, Some(_)) => self.on_wait_failed(id, key, None, now),
            (WaitOutcome::Failed(error), Some(_)) => self.on_wait_failed(id, key, Some(error), now),
        }
        self.finish_closing();
    }

    /// Closes the session and schedules a poll.
    ///
    /// An error of the wait fails the first waiter that blocks. `Pool` and `Lost` concern the
    /// session only: then no waiter fails, and the key is polled.
    fn on_wait_failed(
        &mut self,
        id: SessionId,
        key: RawLockKey,
        error: Option<LockError>,
        now: Instant,
    ) {
        // The machine of the wait has cleaned up, so the connection returns to its pool. If it
        // terminated the session, the connection is broken and the pool discards it.
        self.close_session(id);
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        key_state.apply(KeyEvent::WaitEnded);
        let concerns_session =
            |error: &LockError| matches!(error.kind(), LockErrorKind::Pool | LockErrorKind::Lost);
        if let Some(error) = error.filter(|error| !concerns_session(error)) {
            if let Some(request) = key_state.queue.remove_blocking() {
                self.fail_with(request, error);
            }
        }
        self.poll_later(key, now);
    }
}
