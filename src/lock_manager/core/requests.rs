//! Requests of one key: arrival, cancellation, acquire, poll.
//!
//! # Implementation details
//!
//! A new request is appended to the wait queue of its key. The first request of an unused key sends
//! an acquire. So does a request that does not wait, if no session is open. Any other request
//! behind the first waits for the reply, for a hand-off or for the next poll. If the lock is
//! contended, one timer per key schedules the next poll, with the backoff of the first waiter. So
//! the load on the server depends on the number of keys and not on the number of waiters.
//! Consequence for users: the options of the first waiter decide how the key is polled, or that it
//! waits in the server's queue.

use std::time::Instant;

use super::key_state::{KeyEvent, KeyPhase, KeyState};
use super::timers::Timer;
use super::wait_queue::Request;
use super::{Command, Core, RequestId, SessionId};
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::lock_manager::options::NoLockBackend;
use crate::options::LockMode;
use crate::session::{Backend, LockOp, LockOpKind};

impl<W> Core<W> {
    /// Adds a request to the wait queue of its key, or responds at once.
    pub(super) fn enqueue(&mut self, request: Request<W>, now: Instant) {
        if self.closing.is_some() {
            return self.fail(request, LockErrorKind::Closed);
        }
        if self.is_no_op() {
            return self.grant_without_lock(request);
        }
        let key = request.key.raw();
        let waits = request.no_wait.is_none();
        let is_connected = self.is_connected();
        let key_state = self.keys.entry(key);
        let key_state = key_state.or_insert_with(|| Box::new(KeyState::new(request.key.clone())));
        let was_empty = key_state.queue.is_empty();
        let (deadline, id) = (request.deadline, request.id);
        key_state.queue.push(request);
        if let Some(at) = deadline {
            self.timers.insert((at, Timer::Deadline(id, key)));
        }
        let yields = key_state.next_poll.is_some();
        match key_state.phase() {
            // Without a session the key may be free, so a request that does not wait tries at once,
            // as it would for another key.
            KeyPhase::NotHeld if was_empty || !(waits || is_connected) => {
                self.send_acquire(key, now)
            }
            // The earlier requests wait for a session, and not for a holder.
            KeyPhase::NotHeld if !is_connected => {}
            KeyPhase::Held { .. } => self.grant_waiters(key, None, None, now),
            // An earlier request waits, so one that does not wait fails.
            KeyPhase::NotHeld | KeyPhase::WaitingOnServer { .. } => self.fail_no_wait(key),
            KeyPhase::Releasing { .. } if yields => self.fail_no_wait(key),
            // The reply of the session decides.
            KeyPhase::Acquiring { .. }
            | KeyPhase::IssuingToken { .. }
            | KeyPhase::Releasing { .. } => {}
        }
    }

    /// Grants a request without a lock: the backend has none, and the lock manager does not exclude
    /// its own callers either. The driver applies the policy of the call.
    pub(super) fn grant_without_lock(&mut self, request: Request<W>) {
        let token = self.process_token();
        self.grant(request, None, Some(token));
    }

    pub(super) fn is_no_op(&self) -> bool {
        self.is_without_locks() && self.options.no_lock_backend == NoLockBackend::NoOp
    }

    pub(super) fn is_without_locks(&self) -> bool {
        self.backend
            .is_some_and(|backend| backend != Backend::Postgres)
    }

    /// Returns a fencing token that is unique in this lock manager, for backends without locks.
    pub(crate) fn process_token(&mut self) -> i64 {
        i64::try_from(self.next_id()).unwrap_or(i64::MAX)
    }

    pub(super) fn fail(&mut self, request: Request<W>, kind: LockErrorKind) {
        let error = LockError::new(kind).with_key(&request.key);
        self.fail_with(request, error);
    }

    pub(super) fn fail_with(&mut self, request: Request<W>, error: LockError) {
        self.cancel_deadline(&request);
        self.commands.push(Command::Failed {
            waiter: request.waiter,
            error,
        });
    }

    /// Removes the timer of the deadline.
    pub(super) fn cancel_deadline(&mut self, request: &Request<W>) {
        if let Some(at) = request.deadline {
            self.timers
                .remove(&(at, Timer::Deadline(request.id, request.key.raw())));
        }
    }

    /// Removes a request that was cancelled or whose deadline has passed.
    pub(super) fn remove_request(
        &mut self,
        id: RequestId,
        key: RawLockKey,
        now: Instant,
    ) -> Option<Request<W>> {
        let key_state = self.keys.get_mut(&key)?;
        let (request, was_first) = key_state.queue.remove(id)?;
        // Read before the match, whose arms may remove the key.
        let blocks = key_state.queue.any_blocks();
        let next_shares = key_state
            .queue
            .front()
            .is_some_and(|next| next.mode == LockMode::Shared);
        let is_empty = key_state.queue.is_empty();
        match key_state.phase() {
            // The next request may be compatible with the holders where the first was not.
            KeyPhase::Held { .. } => self.grant_waiters(key, None, None, now),
            // The holders may share the lock with the next request.
            KeyPhase::WaitingOnServer { session, mode }
                if !blocks || (next_shares && mode == LockMode::Exclusive) =>
            {
                key_state.apply(KeyEvent::NotGranted);
                self.stop_server_wait(session, now);
                self.poll_later(key, now);
            }
            KeyPhase::NotHeld | KeyPhase::Releasing { .. } if was_first => {
                self.reschedule_poll(key, &request, now);
            }
            KeyPhase::NotHeld
            | KeyPhase::Acquiring { .. }
            | KeyPhase::WaitingOnServer { .. }
            | KeyPhase::IssuingToken { .. }
            | KeyPhase::Releasing { .. } => {}
        }
        self.cancel_deadline(&request);
        if is_empty {
            self.cancel_poll(key);
        }
        self.remove_if_unused(key);
        Some(request)
    }

    /// Reschedules the poll for the interval of a new first waiter; `previous` was the first
    /// before.
    ///
    /// The poll moves only to an earlier time. Otherwise waiters that come and go could postpone it
    /// forever.
    fn reschedule_poll(&mut self, key: RawLockKey, previous: &Request<W>, now: Instant) {
        let epoch = self.epoch;
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        let (Some(due), Some(next)) = (key_state.next_poll, key_state.queue.front()) else {
            return;
        };
        if next.interval == previous.interval {
            return;
        }
        let sooner = key_state
            .next_poll_at(epoch, &mut self.random, now)
            .min(due);
        self.schedule_poll(key, sooner);
    }

    /// Sends an acquire in the mode of the first waiter; removes the key without a waiter.
    pub(super) fn send_acquire(&mut self, key: RawLockKey, now: Instant) {
        self.send_acquire_with(key, false, now);
    }

    /// Sends it as [`send_acquire`](Self::send_acquire) does; with `alone`, in a batch of its own.
    pub(super) fn send_acquire_with(&mut self, key: RawLockKey, alone: bool, now: Instant) {
        self.cancel_poll(key);
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        // The lock is not held, so other processes have a chance to acquire it.
        key_state.reset_hand_offs();
        let Some(next) = key_state.queue.front() else {
            return self.remove_if_unused(key);
        };
        let (mode, fenced) = (next.mode, next.fenced);
        if self.is_without_locks() {
            return self.on_granted(key, SessionId::IN_PROCESS, mode, None, now);
        }
        let session = self.select_session(now);
        // Ids ascend, so the last id is at least that of the newest request.
        let newest = RequestId(self.last_id);
        if let Some(key_state) = self.keys.get_mut(&key) {
            key_state.apply(KeyEvent::AcquireSent { session });
            key_state.newest_when_sent = newest;
            let op = LockOp::new(LockOpKind::Acquire { with_token: fenced }, key, mode);
            self.enqueue_ops(session, &[op], alone);
        }
    }

    /// Schedules a poll for the first waiter; removes the key without a waiter.
    pub(super) fn poll_later(&mut self, key: RawLockKey, now: Instant) {
        let epoch = self.epoch;
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        if key_state.queue.is_empty() {
            return self.remove_if_unused(key);
        }
        let due = key_state.next_poll_at(epoch, &mut self.random, now);
        self.schedule_poll(key, due);
    }

    pub(super) fn schedule_poll(&mut self, key: RawLockKey, due: Instant) {
        self.cancel_poll(key);
        if let Some(key_state) = self.keys.get_mut(&key) {
            key_state.next_poll = Some(due);
            self.timers.insert((due, Timer::Poll(key)));
        }
    }

    pub(super) fn cancel_poll(&mut self, key: RawLockKey) {
        let due = self
            .keys
            .get_mut(&key)
            .and_then(|key_state| key_state.next_poll.take());
        if let Some(due) = due {
            self.timers.remove(&(due, Timer::Poll(key)));
        }
    }

    /// Handles the reply "contended". Requests that do not wait fail. The first waiter then waits
    /// on the server or polls.
    pub(super) fn on_contended(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        mode: LockMode,
        now: Instant,
    ) {
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        key_state.apply(KeyEvent::NotGranted);
        key_state.reset_hand_offs();
        key_state.record_outside_contention();
        let newest = key_state.newest_when_sent;
        while let Some((next, kind)) = self.pop_no_wait(key, newest, mode) {
            self.fail(next, kind);
        }
        let front = self
            .keys
            .get(&key)
            .and_then(|key_state| key_state.queue.front());
        if front.is_some_and(|next| next.no_wait.is_some()) {
            // The request arrived after the acquire was sent, or its mode is weaker. The lock may
            // be free for it by now, so it needs an attempt of its own.
            return self.send_acquire(key, now);
        }
        let blocks = front.is_some_and(Request::blocks);
        self.fail_no_wait(key);
        if !blocks {
            self.poll_later(key, now);
        } else if self.is_dedicated(session) {
            self.wait_on_server(key, session, now);
        } else {
            self.wait_on_server_or_poll(key, now);
        }
    }

    /// Removes the first request if it does not wait and the reply also answers it.
    ///
    /// The request must have been present when the acquire was sent. Its mode must conflict at
    /// least as much as the mode of the acquire: contention for shared also is contention for
    /// exclusive.
    fn pop_no_wait(
        &mut self,
        key: RawLockKey,
        newest: RequestId,
        mode: LockMode,
    ) -> Option<(Request<W>, LockErrorKind)> {
        let key_state = self.keys.get_mut(&key)?;
        let next = key_state.queue.front()?;
        let kind = next.no_wait?;
        let answered = next.id <= newest && (next.mode == mode || mode == LockMode::Shared);
        let next = if answered {
            key_state.queue.pop()
        } else {
            None
        };
        next.map(|next| (next, kind))
    }

    /// Fails requests that do not wait and that other requests or holders precede. Reports that the
    /// others wait.
    pub(super) fn fail_no_wait(&mut self, key: RawLockKey) {
        let drained = self
            .keys
            .get_mut(&key)
            .map(|key_state| key_state.queue.drain_no_wait(|_| true));
        for request in drained.into_iter().flatten() {
            if let Some(kind) = request.no_wait {
                self.fail(request, kind);
            }
        }
        // The rest of the queue waits for a holder, for a poll or for the server.
        if let Some(key_state) = self.keys.get_mut(&key) {
            let waiting = key_state.queue.begin_to_wait();
            self.commands
                .extend(waiting.map(|request| Command::Waits { request, key }));
        }
        self.remove_if_unused(key);
    }

    /// Removes a key that is not held and has no waiter.
    pub(super) fn remove_if_unused(&mut self, key: RawLockKey) {
        let unused = self.keys.get(&key).is_some_and(|key_state| {
            key_state.queue.is_empty() && key_state.phase() == KeyPhase::NotHeld
        });
        if unused {
            self.cancel_poll(key);
            self.keys.remove(&key);
        }
    }
}
