//! Waits in the server's queue, on sessions that are dedicated to one key.
//!
//! # Implementation details
//!
//! A blocking statement occupies its session, so each wait has a session of its own; their number
//! is limited. The session waits for the key, not for one request: the server wakes the session,
//! and the core then grants the first waiters. A granted lock stays on the session that waited.
//! When the last blocking waiter leaves, the session is terminated, because its statement cannot
//! be withdrawn reliably. So it is if the wait is exclusive and the new first waiter shares. If the
//! limit of the wait has passed, the wait ends by itself, and the connection returns to its pool.
//! Consequence for users: with [`WaitStrategy::Block`] the process has a place in the server's
//! queue. The key is polled while its session is being opened, and while all such sessions are
//! occupied or the pool has no connection. So a waiter that blocks is served without a second
//! connection, too.

use std::time::Instant;

use super::key_state::{KeyEvent, KeyPhase, KeyState};
use super::session_loss::SessionLoss;
use super::sessions::SessionPhase;
use super::wait_queue::Request;
use super::{Core, SessionCommand, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::options::{LockOptions, WaitStrategy};

impl<W> Core<W> {
    /// Starts a wait for the first waiter if the key has an idle session; otherwise opens one, if
    /// that is allowed, and schedules a poll.
    pub(super) fn wait_on_server_or_poll(&mut self, key: RawLockKey, now: Instant) {
        let mut own = self
            .sessions
            .iter()
            .filter(|(_, session)| session.dedicated_key == Some(key));
        if let Some((id, _)) = own.clone().find(|(_, session)| session.is_idle()) {
            let id = *id;
            return self.wait_on_server(key, id, now);
        }
        if !own.any(|(_, session)| session.is_opening()) {
            self.open_dedicated_session(key, now);
        }
        self.poll_later(key, now);
    }

    /// Opens a session for the waits of one key, unless the maximum is reached or the pool has just
    /// failed.
    fn open_dedicated_session(&mut self, key: RawLockKey, now: Instant) {
        // A session that was granted the lock still counts, because it occupies a connection.
        let dedicated = self
            .sessions
            .iter()
            .filter(|(_, session)| session.dedicated_key.is_some());
        // The pool may return no connection for a long time, in which the other key was granted.
        let unneeded = dedicated
            .clone()
            .find(|(id, session)| session.is_opening() && !self.is_needed_by_its_key(**id));
        let count = dedicated.count();
        if let Some(id) = unneeded.map(|(id, _)| *id) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.dedicated_key = Some(key);
            }
        } else if count < self.options.max_waiting_sessions && self.may_open(now) {
            self.open_session(Some(key), now);
        }
    }

    /// Starts the wait for which a session was opened, if the key still has use for it.
    pub(super) fn on_dedicated_session_opened(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        now: Instant,
    ) {
        let waits = self.keys.get(&key).is_some_and(|key_state| {
            key_state.phase() == KeyPhase::NotHeld
                && key_state.queue.front().is_some_and(Request::blocks)
        });
        if waits {
            self.cancel_poll(key);
            // A request may have kept its place without an answer when a session was lost.
            self.fail_no_wait(key);
            self.wait_on_server(key, session, now);
        }
    }

    /// Returns whether a dedicated session waits for its key or holds it.
    pub(super) fn works_for_its_key(&self, id: SessionId) -> bool {
        self.key_of(id)
            .is_some_and(|key_state| key_state.phase().session() == Some(id))
    }

    /// Returns whether a dedicated session works for its key, or may be told to wait for it soon.
    pub(super) fn is_needed_by_its_key(&self, id: SessionId) -> bool {
        let may_wait = |key_state: &KeyState<W>| {
            matches!(
                key_state.phase(),
                KeyPhase::NotHeld | KeyPhase::Acquiring { .. }
            ) && key_state.queue.front().is_some_and(Request::blocks)
        };
        self.works_for_its_key(id) || self.key_of(id).is_some_and(may_wait)
    }

    /// Returns the state of the key that a session is dedicated to.
    fn key_of(&self, id: SessionId) -> Option<&KeyState<W>> {
        let key = self.sessions.get(&id)?.dedicated_key?;
        self.keys.get(&key).map(|key_state| &**key_state)
    }

    /// Closes the idle sessions that were opened for the waits of keys that need none now.
    pub(super) fn close_unused_dedicated_sessions(&mut self) {
        while let Some((id, _)) = self.sessions.iter().find(|(id, session)| {
            session.dedicated_key.is_some() && session.is_idle() && !self.is_needed_by_its_key(**id)
        }) {
            self.close_session(*id);
        }
    }

    /// Starts a wait for the first waiter, on a session without a statement in flight.
    pub(super) fn wait_on_server(&mut self, key: RawLockKey, session: SessionId, now: Instant) {
        let Some(key_state) = self.keys.get(&key) else {
            return;
        };
        let Some(next) = key_state.queue.front() else {
            return;
        };
        // The wait also serves later waiters of the key, so it ends at the latest deadline of the
        // waiters that block.
        let blocking = key_state.queue.iter().filter(|request| request.blocks());
        // One waiter without a deadline makes the wait endless. The wait ends early when no
        // blocking waiter is left.
        let deadlines = blocking.map(|request| request.deadline);
        let until = deadlines
            .reduce(|one, other| Some(one?.max(other?)))
            .flatten();
        let options = match until {
            Some(limit) => LockOptions::wait_up_to(limit.saturating_duration_since(now)),
            None => LockOptions::wait_forever(),
        };
        let (name, mode) = (next.key.clone(), next.mode);
        let phase = SessionPhase::WaitingOnServer { until };
        if let Some(session) = self.sessions.get_mut(&session) {
            (session.phase, session.phase_start) = (phase, now);
        }
        if let Some(key_state) = self.keys.get_mut(&key) {
            key_state.apply(KeyEvent::WaitStarted { session, mode });
        }
        let options = options.mode(mode).strategy(WaitStrategy::Block);
        self.send(session, SessionCommand::WaitOnServer { key: name, options });
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

    /// Handles the end of a wait on the server: the process id of the session that was granted the
    /// lock, or `None` if the limit of the wait has passed.
    pub(crate) fn on_wait_ended(
        &mut self,
        id: SessionId,
        granted: Result<Option<i32>, LockError>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(key) = session
            .dedicated_key
            .filter(|_| matches!(session.phase, SessionPhase::WaitingOnServer { .. }))
        else {
            // The session was not told to wait.
            return self.on_session_lost(id, SessionLoss::Unreliable, now);
        };
        let expected = session.pid;
        (session.phase, session.phase_start) = (SessionPhase::Idle, now);
        let mode = match self.keys.get(&key).map(|key_state| key_state.phase()) {
            Some(KeyPhase::WaitingOnServer { session, mode }) if session == id => Some(mode),
            Some(_) | None => None,
        };
        match (granted, mode) {
            // A pooler exchanged the session after it was opened.
            (Ok(Some(pid)), _) if pid != expected => {
                self.on_session_lost(id, SessionLoss::Changed, now);
            }
            (Ok(Some(_)), Some(mode)) => {
                self.schedule_health_check(id, now);
                self.on_granted(key, id, mode, None, now);
            }
            // Granted after the last waiter had left. Termination releases the lock.
            (Ok(Some(_)), None) => self.terminate_session(id),
            (Ok(None) | Err(_), None) => self.close_session(id),
            (Ok(None), Some(_)) => self.on_wait_failed(id, key, None, now),
            (Err(error), Some(_)) => self.on_wait_failed(id, key, Some(error), now),
        }
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
        key_state.apply(KeyEvent::NotGranted);
        let concerns_session =
            |error: &LockError| matches!(error.kind(), LockErrorKind::Pool | LockErrorKind::Lost);
        if let Some(error) = error.filter(|error| !concerns_session(error)) {
            if let Some(request) = key_state.queue.remove_blocking() {
                // The wait has the name of an earlier waiter, whose text may differ.
                let error = error.with_key(&request.key);
                self.fail_with(request, error);
            }
        }
        self.poll_later(key, now);
    }
}
