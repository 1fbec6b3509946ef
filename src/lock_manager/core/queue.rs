//! One key: who comes and goes, and when it is asked for.

use std::time::Instant;

use super::alarms::Alarm;
use super::entry::Stage;
use super::line::{Patience, Request};
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
            return self.refuse(request, LockErrorKind::Closed);
        }
        if self.is_no_op() {
            return self.admit(request);
        }
        let key = request.key.raw();
        let entry = self.keys.entry(key).or_default();
        let was_empty = entry.line.is_empty();
        let (limit, id) = (request.patience, request.id);
        entry.line.push(request);
        if let Patience::Until(limit) = limit {
            self.alarms.insert((limit, Alarm::Limit(id, key)));
        }
        let pauses = entry.due.is_some();
        match entry.stage {
            Stage::Away if was_empty => self.ask(key, now),
            Stage::Held { .. } => self.settle(key, None, None, now),
            // Somebody is before it who waits.
            Stage::Away | Stage::Waiting { .. } => self.refuse_impatient(key),
            Stage::Leaving { .. } if pauses => self.refuse_impatient(key),
            // The answer tells.
            Stage::Asking { .. } | Stage::Drawing { .. } | Stage::Leaving { .. } => {}
        }
    }

    /// Lets a request in where there are no locks and none are put in their place.
    pub(super) fn admit(&mut self, request: Request<W>) {
        match sqlite::admit(&request.key, request.missing) {
            Ok(()) => {
                let token = self.process_token();
                self.grant(request, None, Some(token));
            }
            Err(error) => self.refuse_with(request, error),
        }
    }

    pub(super) fn is_no_op(&self) -> bool {
        self.is_without_locks() && self.settings.without_locks == NoLockBackend::NoOp
    }

    fn is_without_locks(&self) -> bool {
        self.backend
            .is_some_and(|backend| backend != Backend::Postgres)
    }

    /// A token where there is no database to draw it from.
    pub(super) fn process_token(&mut self) -> i64 {
        i64::try_from(self.fresh()).unwrap_or(i64::MAX)
    }

    pub(super) fn refuse(&mut self, request: Request<W>, kind: LockErrorKind) {
        let error = LockError::new(kind).with_key(&request.key);
        self.refuse_with(request, error);
    }

    pub(super) fn refuse_with(&mut self, request: Request<W>, error: LockError) {
        self.forget_limit(&request);
        self.commands.push(Command::Refused {
            waiter: request.waiter,
            error,
        });
    }

    /// Its limit has no meaning any more.
    pub(super) fn forget_limit(&mut self, request: &Request<W>) {
        if let Patience::Until(limit) = request.patience {
            self.alarms
                .remove(&(limit, Alarm::Limit(request.id, request.key.raw())));
        }
    }

    /// Takes a request out of its queue: it waits no longer, or its limit has passed.
    pub(super) fn withdraw(
        &mut self,
        id: RequestId,
        key: RawLockKey,
        now: Instant,
    ) -> Option<Request<W>> {
        let entry = self.keys.get_mut(&key)?;
        let (request, was_first) = entry.line.remove(id)?;
        let blocks = entry.line.blocks();
        let nobody_left = entry.line.is_empty();
        match entry.stage {
            Stage::Held { .. } if was_first => self.settle(key, None, None, now),
            Stage::Waiting { session, .. } if !blocks => {
                entry.stage = Stage::Away;
                self.end_wait(session, now);
                self.ask_later(key, now);
            }
            Stage::Away | Stage::Leaving { .. } if was_first => {
                self.keep_pace(key, &request, now);
            }
            Stage::Away
            | Stage::Asking { .. }
            | Stage::Waiting { .. }
            | Stage::Held { .. }
            | Stage::Drawing { .. }
            | Stage::Leaving { .. } => {}
        }
        self.forget_limit(&request);
        if nobody_left {
            self.not_due(key);
        }
        self.forget_if_idle(key);
        Some(request)
    }

    /// The key is asked for in the rhythm of the first in its queue, which `before` was: sooner if need be, and never later than it
    /// would have been, for then it might never be.
    fn keep_pace(&mut self, key: RawLockKey, before: &Request<W>, now: Instant) {
        let epoch = self.epoch;
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        let (Some(due), Some(next)) = (entry.due, entry.line.front()) else {
            return;
        };
        if next.interval == before.interval {
            return;
        }
        entry.pauses = None;
        let sooner = entry.next_due(epoch, &mut self.random, now).min(due);
        self.set_due(key, sooner);
    }

    /// The key is asked for now, in the mode of the first in its queue.
    pub(super) fn ask(&mut self, key: RawLockKey, now: Instant) {
        self.not_due(key);
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        entry.end_turns();
        let Some(next) = entry.line.front() else {
            return self.forget_if_idle(key);
        };
        let (mode, fenced) = (next.mode, next.fenced);
        if self.is_without_locks() {
            return self.taken(key, SessionId::PROCESS, mode, None, now);
        }
        let session = self.pick(now);
        let asked = RequestId(self.next);
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.stage = Stage::Asking { session };
            entry.asked = asked;
            let step = LockOp::new(LockOpKind::Acquire { with_token: fenced }, key, mode);
            let alone = entry.alone;
            self.push(session, &[step], alone, now);
        }
    }

    /// The key is asked for after a pause, if anybody waits for it.
    pub(super) fn ask_later(&mut self, key: RawLockKey, now: Instant) {
        let epoch = self.epoch;
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        if entry.line.is_empty() {
            return self.forget_if_idle(key);
        }
        let due = entry.next_due(epoch, &mut self.random, now);
        self.set_due(key, due);
    }

    pub(super) fn set_due(&mut self, key: RawLockKey, due: Instant) {
        self.not_due(key);
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.due = Some(due);
            self.alarms.insert((due, Alarm::Due(key)));
        }
    }

    pub(super) fn not_due(&mut self, key: RawLockKey) {
        let due = self.keys.get_mut(&key).and_then(|entry| entry.due.take());
        if let Some(due) = due {
            self.alarms.remove(&(due, Alarm::Due(key)));
        }
    }

    /// Another session has it: those who do not wait are refused, the others ask again, or wait on the server.
    pub(super) fn refused(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        mode: LockMode,
        now: Instant,
    ) {
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        entry.stage = Stage::Away;
        entry.end_turns();
        entry.is_wanted_elsewhere();
        let asked = entry.asked;
        while let Some((next, kind)) = self.take_first_impatient(key, asked, mode) {
            self.refuse(next, kind);
        }
        let front = self.keys.get(&key).and_then(|entry| entry.line.front());
        if front.is_some_and(|next| next.once().is_some()) {
            // Between the question and its answer the lock may have become free, and somebody may have come who knows.
            return self.ask(key, now);
        }
        let blocks = front.is_some_and(|next| next.strategy == WaitStrategy::Block);
        self.refuse_impatient(key);
        // A session of the key's own goes on to wait.
        let own = self.is_own(session).then_some(session);
        if blocks && (own.is_some() || self.may_wait_on_server()) {
            self.wait_on_server(key, own, now);
        } else {
            self.ask_later(key, now);
        }
    }

    /// Takes the first in the queue if it does not wait and the answer no was for it too: it was there when the question was put, and
    /// asks for no less than the question.
    fn take_first_impatient(
        &mut self,
        key: RawLockKey,
        asked: RequestId,
        mode: LockMode,
    ) -> Option<(Request<W>, LockErrorKind)> {
        let entry = self.keys.get_mut(&key)?;
        let next = entry.line.front()?;
        let kind = next.once()?;
        let meant = next.id <= asked && (next.mode == mode || mode == LockMode::Shared);
        let next = if meant { entry.line.pop() } else { None };
        next.map(|next| (next, kind))
    }

    /// Refuses those who do not wait and have been passed over.
    pub(super) fn refuse_impatient(&mut self, key: RawLockKey) {
        for request in self.take_impatient(key) {
            if let Some(kind) = request.once() {
                self.refuse(request, kind);
            }
        }
        self.forget_if_idle(key);
    }

    /// Those who do not wait, and could not be asked for, are told why.
    pub(super) fn fail_impatient(
        &mut self,
        key: RawLockKey,
        kind: LockErrorKind,
        why: &'static str,
    ) {
        for request in self.take_impatient(key) {
            let error = LockError::new(kind)
                .with_key(&request.key)
                .with_context(why);
            self.refuse_with(request, error);
        }
    }

    fn take_impatient(&mut self, key: RawLockKey) -> Vec<Request<W>> {
        let entry = self.keys.get_mut(&key);
        entry
            .map(|entry| entry.line.take_once())
            .unwrap_or_default()
    }

    /// A key that nobody uses takes no room.
    pub(super) fn forget_if_idle(&mut self, key: RawLockKey) {
        let idle = self
            .keys
            .get(&key)
            .is_some_and(|entry| entry.line.is_empty() && matches!(entry.stage, Stage::Away));
        if idle {
            self.not_due(key);
            self.keys.remove(&key);
        }
    }
}
