//! One key: who comes and goes, and when it is asked for.

use std::time::Instant;

use super::key_state::KeyPhase;
use super::timers::Timer;
use super::wait_queue::{Deadline, Request};
use super::{Command, Core, RequestId, SessionId};
use crate::backends::sqlite;
use crate::error::{LockError, LockErrorKind};
use crate::key::RawLockKey;
use crate::lock_manager::options::NoLockBackend;
use crate::options::{LockMode, WaitStrategy};
use crate::session::{Backend, LockOp, LockOpKind};

impl<W> Core<W> {
    /// Puts a request into the queue of its key, or answers it.
    pub(super) fn enqueue(&mut self, request: Request<W>, now: Instant) {
        if self.closing.is_some() {
            return self.fail(request, LockErrorKind::Closed);
        }
        if self.is_no_op() {
            return self.grant_without_lock(request);
        }
        let key = request.key.raw();
        let key_state = self.keys.entry(key).or_default();
        let was_empty = key_state.queue.is_empty();
        let (limit, id) = (request.deadline, request.id);
        key_state.queue.push(request);
        if let Deadline::At(limit) = limit {
            self.timers.insert((limit, Timer::Deadline(id, key)));
        }
        let pauses = key_state.next_poll.is_some();
        match key_state.phase {
            KeyPhase::NotHeld if was_empty => self.send_acquire(key, now),
            KeyPhase::Held { .. } => self.grant_waiters(key, None, None, now),
            // Somebody is before it who waits.
            KeyPhase::NotHeld | KeyPhase::WaitingOnServer { .. } => self.fail_no_wait(key),
            KeyPhase::Releasing { .. } if pauses => self.fail_no_wait(key),
            // The answer tells.
            KeyPhase::Acquiring { .. }
            | KeyPhase::IssuingToken { .. }
            | KeyPhase::Releasing { .. } => {}
        }
    }

    /// Lets a request in where there are no locks and none are put in their place.
    pub(super) fn grant_without_lock(&mut self, request: Request<W>) {
        match sqlite::admit(&request.key, request.on_missing_lock) {
            Ok(()) => {
                let token = self.process_token();
                self.grant(request, None, Some(token));
            }
            Err(error) => self.fail_with(request, error),
        }
    }

    pub(super) fn is_no_op(&self) -> bool {
        self.is_without_locks() && self.settings.no_lock_backend == NoLockBackend::NoOp
    }

    fn is_without_locks(&self) -> bool {
        self.backend
            .is_some_and(|backend| backend != Backend::Postgres)
    }

    /// A token where there is no database to draw it from.
    pub(super) fn process_token(&mut self) -> i64 {
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

    /// Its limit has no meaning any more.
    pub(super) fn cancel_deadline(&mut self, request: &Request<W>) {
        if let Deadline::At(limit) = request.deadline {
            self.timers
                .remove(&(limit, Timer::Deadline(request.id, request.key.raw())));
        }
    }

    /// Takes a request out of its queue: it waits no longer, or its limit has passed.
    pub(super) fn remove_request(
        &mut self,
        id: RequestId,
        key: RawLockKey,
        now: Instant,
    ) -> Option<Request<W>> {
        let key_state = self.keys.get_mut(&key)?;
        let (request, was_first) = key_state.queue.remove(id)?;
        let blocks = key_state.queue.any_blocks();
        let nobody_left = key_state.queue.is_empty();
        match key_state.phase {
            KeyPhase::Held { .. } if was_first => self.grant_waiters(key, None, None, now),
            KeyPhase::WaitingOnServer { session, .. } if !blocks => {
                key_state.phase = KeyPhase::NotHeld;
                self.stop_server_wait(session, now);
                self.poll_later(key, now);
            }
            KeyPhase::NotHeld | KeyPhase::Releasing { .. } if was_first => {
                self.reschedule_poll(key, &request, now);
            }
            KeyPhase::NotHeld
            | KeyPhase::Acquiring { .. }
            | KeyPhase::WaitingOnServer { .. }
            | KeyPhase::Held { .. }
            | KeyPhase::IssuingToken { .. }
            | KeyPhase::Releasing { .. } => {}
        }
        self.cancel_deadline(&request);
        if nobody_left {
            self.cancel_poll(key);
        }
        self.remove_if_unused(key);
        Some(request)
    }

    /// The key is asked for in the rhythm of the first in its queue, which `before` was: sooner if need be, and never later than it
    /// would have been, for then it might never be.
    fn reschedule_poll(&mut self, key: RawLockKey, before: &Request<W>, now: Instant) {
        let epoch = self.epoch;
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        let (Some(due), Some(next)) = (key_state.next_poll, key_state.queue.front()) else {
            return;
        };
        if next.interval == before.interval {
            return;
        }
        key_state.backoff = None;
        let sooner = key_state
            .next_poll_at(epoch, &mut self.random, now)
            .min(due);
        self.schedule_poll(key, sooner);
    }

    /// The key is asked for now, in the mode of the first in its queue.
    pub(super) fn send_acquire(&mut self, key: RawLockKey, now: Instant) {
        self.cancel_poll(key);
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        key_state.reset_tenure();
        let Some(next) = key_state.queue.front() else {
            return self.remove_if_unused(key);
        };
        let (mode, fenced) = (next.mode, next.fenced);
        if self.is_without_locks() {
            return self.on_granted(key, SessionId::IN_PROCESS, mode, None, now);
        }
        let session = self.select_session(now);
        let asked = RequestId(self.last_id);
        if let Some(key_state) = self.keys.get_mut(&key) {
            key_state.phase = KeyPhase::Acquiring { session };
            key_state.newest_when_sent = asked;
            let op = LockOp::new(LockOpKind::Acquire { with_token: fenced }, key, mode);
            let alone = key_state.retry_alone;
            self.enqueue_ops(session, &[op], alone, now);
        }
    }

    /// The key is asked for after a pause, if anybody waits for it.
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

    /// Another session has it: those who do not wait are refused, the others ask again, or wait on the server.
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
        key_state.phase = KeyPhase::NotHeld;
        key_state.reset_tenure();
        key_state.record_outside_contention();
        let asked = key_state.newest_when_sent;
        while let Some((next, kind)) = self.pop_no_wait(key, asked, mode) {
            self.fail(next, kind);
        }
        let front = self
            .keys
            .get(&key)
            .and_then(|key_state| key_state.queue.front());
        if front.is_some_and(|next| next.no_wait_kind().is_some()) {
            // Between the question and its answer the lock may have become free, and somebody may have come who knows.
            return self.send_acquire(key, now);
        }
        let blocks = front.is_some_and(|next| next.strategy == WaitStrategy::Block);
        self.fail_no_wait(key);
        // A session of the key's own goes on to wait.
        let own = self.is_dedicated(session).then_some(session);
        if blocks && (own.is_some() || self.may_wait_on_server()) {
            self.wait_on_server(key, own, now);
        } else {
            self.poll_later(key, now);
        }
    }

    /// Takes the first in the queue if it does not wait and the answer no was for it too: it was there when the question was put, and
    /// asks for no less than the question.
    fn pop_no_wait(
        &mut self,
        key: RawLockKey,
        asked: RequestId,
        mode: LockMode,
    ) -> Option<(Request<W>, LockErrorKind)> {
        let key_state = self.keys.get_mut(&key)?;
        let next = key_state.queue.front()?;
        let kind = next.no_wait_kind()?;
        let meant = next.id <= asked && (next.mode == mode || mode == LockMode::Shared);
        let next = if meant { key_state.queue.pop() } else { None };
        next.map(|next| (next, kind))
    }

    /// Refuses those who do not wait and have been passed over.
    pub(super) fn fail_no_wait(&mut self, key: RawLockKey) {
        for request in self.drain_no_wait(key) {
            if let Some(kind) = request.no_wait_kind() {
                self.fail(request, kind);
            }
        }
        self.remove_if_unused(key);
    }

    /// Those who do not wait, and could not be asked for, are told why.
    pub(super) fn fail_no_wait_with(
        &mut self,
        key: RawLockKey,
        kind: LockErrorKind,
        why: &'static str,
    ) {
        for request in self.drain_no_wait(key) {
            let error = LockError::new(kind)
                .with_key(&request.key)
                .with_context(why);
            self.fail_with(request, error);
        }
    }

    fn drain_no_wait(&mut self, key: RawLockKey) -> Vec<Request<W>> {
        let key_state = self.keys.get_mut(&key);
        key_state
            .map(|key_state| key_state.queue.drain_no_wait())
            .unwrap_or_default()
    }

    /// A key that nobody uses takes no room.
    pub(super) fn remove_if_unused(&mut self, key: RawLockKey) {
        let idle = self.keys.get(&key).is_some_and(|key_state| {
            key_state.queue.is_empty() && matches!(key_state.phase, KeyPhase::NotHeld)
        });
        if idle {
            self.cancel_poll(key);
            self.keys.remove(&key);
        }
    }
}
