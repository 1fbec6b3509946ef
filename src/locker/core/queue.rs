//! One key: who waits, who is next, when it is asked for and given back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::alarms::Alarm;
use super::{Command, Core, Entry, Patience, Request, RequestId, SessionId, Stage};
use crate::backends::sqlite;
use crate::error::{LockError, LockErrorKind};
use crate::key::KeySpace;
use crate::locker::options::{Settings, WithoutLocks};
use crate::options::{LockMode, WaitStrategy};
use crate::protocol::Pauses;
use crate::session::{Backend, RoundStep, StepKind};

impl<W> Default for Entry<W> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            holders: Vec::new(),
            stage: Stage::Away,
            since: None,
            turns: 0,
            due: None,
            pauses: None,
            alone: false,
        }
    }
}

impl<W> Entry<W> {
    /// Whether it has been handed on in this process for as long as others can be made to wait.
    fn is_overdue(&self, settings: &Settings, now: Instant) -> bool {
        let held_for = self
            .since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.turns > 0 && (self.turns >= settings.turns || held_for >= settings.tenure)
    }

    /// Whether the first in the queue may have it now, as it is held.
    fn admits_next(&self, held: LockMode, settings: &Settings, now: Instant) -> bool {
        self.queue.front().is_some_and(|next| {
            let alone = self.holders.is_empty();
            next.mode == held
                && (alone || held == LockMode::Shared)
                && !self.is_overdue(settings, now)
        })
    }

    fn waits_on_server(&self) -> bool {
        self.queue
            .iter()
            .any(|request| request.strategy == WaitStrategy::Block)
    }

    /// When to ask again: after a pause of the first in the queue.
    ///
    /// On a grid, so that keys that wait in the same rhythm are asked for in the same statement. Other processes have other grids.
    fn next_due(&mut self, epoch: Instant, random: &mut fastrand::Rng, now: Instant) -> Instant {
        let interval = self
            .queue
            .front()
            .map_or(Duration::ZERO, |next| next.interval);
        let pauses = self
            .pauses
            .get_or_insert_with(|| Pauses::new(interval, random.fork()));
        let due = now.checked_add(pauses.next()).unwrap_or(now);
        let grid = (interval / 16).as_nanos().max(1);
        let since = due.saturating_duration_since(epoch).as_nanos();
        let late = u64::try_from(since.next_multiple_of(grid) - since).unwrap_or(0);
        due.checked_add(Duration::from_nanos(late)).unwrap_or(due)
    }
}

impl<W> Core<W> {
    /// Puts a request into the queue of its key, or answers it.
    pub(super) fn enqueue(&mut self, request: Request<W>, now: Instant) {
        if self.closing.is_some() {
            return self.refuse(request, LockErrorKind::Closed);
        }
        if self.is_no_op() {
            return self.admit(request);
        }
        let key = request.key.space();
        let entry = self.keys.entry(key).or_default();
        let was_empty = entry.queue.is_empty();
        let (limit, id) = (request.patience, request.id);
        entry.queue.push_back(request);
        if let Patience::Until(limit) = limit {
            self.alarms.insert((limit, Alarm::Limit(id, key)));
        }
        match entry.stage {
            Stage::Away if was_empty => self.ask(key, now),
            Stage::Held { .. } => self.settle(key, None, None, now),
            Stage::Away | Stage::Waiting { .. } | Stage::Drawing { .. } => {
                self.refuse_impatient(key)
            }
            Stage::Asking { .. } | Stage::Leaving { .. } => {}
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
        self.is_without_locks() && self.settings.without_locks == WithoutLocks::NoOp
    }

    pub(super) fn is_without_locks(&self) -> bool {
        self.backend
            .is_some_and(|backend| backend != Backend::Postgres)
    }

    /// A token where there is no database to draw it from.
    fn process_token(&mut self) -> i64 {
        i64::try_from(self.fresh()).unwrap_or(i64::MAX)
    }

    pub(super) fn refuse(&mut self, request: Request<W>, kind: LockErrorKind) {
        let error = LockError::new(kind).with_key(&request.key);
        self.refuse_with(request, error);
    }

    pub(super) fn refuse_with(&mut self, request: Request<W>, error: LockError) {
        if let Patience::Until(limit) = request.patience {
            self.alarms
                .remove(&(limit, Alarm::Limit(request.id, request.key.space())));
        }
        self.commands.push(Command::Refused {
            waiter: request.waiter,
            error,
        });
    }

    /// Takes a request out of its queue.
    ///
    /// A wait on the server that nobody is left for is ended by `end_wait`, or ends at its limit, which is now.
    pub(super) fn withdraw(
        &mut self,
        id: RequestId,
        key: KeySpace,
        end_wait: bool,
        now: Instant,
    ) -> Option<Request<W>> {
        let entry = self.keys.get_mut(&key)?;
        let place = entry.queue.iter().position(|request| request.id == id)?;
        let request = entry.queue.remove(place)?;
        if let Patience::Until(limit) = request.patience {
            self.alarms.remove(&(limit, Alarm::Limit(id, key)));
        }
        let waits = entry.waits_on_server();
        match entry.stage {
            Stage::Held { .. } if place == 0 => self.settle(key, None, None, now),
            Stage::Waiting { session, .. } if !waits => {
                entry.stage = Stage::Away;
                if end_wait {
                    self.abandon(session);
                } else {
                    self.watch(session, now);
                }
                self.ask_later(key, now);
            }
            Stage::Away
            | Stage::Asking { .. }
            | Stage::Waiting { .. }
            | Stage::Held { .. }
            | Stage::Drawing { .. }
            | Stage::Leaving { .. } => {}
        }
        self.forget_if_idle(key);
        Some(request)
    }

    /// The key is asked for now, in the mode of the first in its queue.
    pub(super) fn ask(&mut self, key: KeySpace, now: Instant) {
        self.not_due(key);
        let Some(next) = self.keys.get(&key).and_then(|entry| entry.queue.front()) else {
            return self.forget_if_idle(key);
        };
        let (mode, fenced) = (next.mode, next.fenced);
        if self.is_without_locks() {
            return self.taken(key, SessionId::PROCESS, mode, None, now);
        }
        let session = self.pick(now);
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.stage = Stage::Asking { session, mode };
            let step = RoundStep::new(StepKind::Take { fenced }, key, mode);
            let alone = entry.alone;
            self.push(session, step, alone, now);
        }
    }

    /// The key is asked for after a pause; at once if it is not asked for otherwise.
    pub(super) fn ask_later(&mut self, key: KeySpace, now: Instant) {
        self.not_due(key);
        let epoch = self.epoch;
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        if entry.queue.is_empty() {
            return self.forget_if_idle(key);
        }
        let due = entry.next_due(epoch, &mut self.random, now);
        entry.due = Some(due);
        self.alarms.insert((due, Alarm::Due(key)));
    }

    fn not_due(&mut self, key: KeySpace) {
        let due = self.keys.get_mut(&key).and_then(|entry| entry.due.take());
        if let Some(due) = due {
            self.alarms.remove(&(due, Alarm::Due(key)));
        }
    }

    /// It was granted: the queue is served.
    pub(super) fn taken(
        &mut self,
        key: KeySpace,
        session: SessionId,
        mode: LockMode,
        token: Option<i64>,
        now: Instant,
    ) {
        self.not_due(key);
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.stage = Stage::Held { session, mode };
            entry.since = Some(now);
            entry.turns = 0;
            entry.pauses = None;
            entry.alone = false;
        }
        self.settle(key, token, None, now);
    }

    /// Another session has it: those who do not wait are refused, the others ask again, or wait on the server.
    pub(super) fn refused(&mut self, key: KeySpace, session: SessionId, now: Instant) {
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.stage = Stage::Away;
        }
        self.refuse_impatient(key);
        let Some(entry) = self.keys.get(&key) else {
            return;
        };
        let blocks = entry
            .queue
            .front()
            .is_some_and(|next| next.strategy == WaitStrategy::Block);
        // A session of the key's own goes on to wait.
        let own = self.is_own(session).then_some(session);
        if blocks && (own.is_some() || self.may_wait_on_server()) {
            self.wait_on_server(key, own, now);
        } else {
            self.ask_later(key, now);
        }
    }

    /// The lock is held: whoever may have it next gets it; with nobody left, it is given back. `releaser` is told when it is certain that
    /// it was held until now.
    pub(super) fn settle(
        &mut self,
        key: KeySpace,
        mut token: Option<i64>,
        releaser: Option<W>,
        now: Instant,
    ) {
        let session = loop {
            let Some(entry) = self.keys.get_mut(&key) else {
                return;
            };
            let Stage::Held { session, mode } = entry.stage else {
                return;
            };
            if !entry.admits_next(mode, &self.settings, now) {
                break session;
            }
            let fenced = entry.queue.front().is_some_and(|next| next.fenced);
            if fenced && token.is_none() {
                if session != SessionId::PROCESS {
                    entry.stage = Stage::Drawing { session, mode };
                    self.push(
                        session,
                        RoundStep::new(StepKind::Draw, key, mode),
                        false,
                        now,
                    );
                    break session;
                }
                token = Some(self.process_token());
            } else if let Some(next) = entry.queue.pop_front() {
                entry.turns = entry.turns.saturating_add(1);
                let token = if next.fenced { token.take() } else { None };
                let id = self.grant(next, Some(session), token);
                self.keys.entry(key).or_default().holders.push(id);
            }
        };
        self.refuse_impatient(key);
        let free = self.keys.get(&key).is_some_and(|entry| {
            entry.holders.is_empty() && matches!(entry.stage, Stage::Held { .. })
        });
        if free {
            self.leave(key, releaser, now);
        } else {
            self.confirm(session, releaser, now);
        }
    }

    /// A holder has given the lock up.
    pub(super) fn given_up(
        &mut self,
        key: KeySpace,
        session: SessionId,
        releaser: Option<W>,
        now: Instant,
    ) {
        match self.keys.get(&key).map(|entry| &entry.stage) {
            Some(Stage::Held { .. }) => self.settle(key, None, releaser, now),
            Some(_) | None => self.confirm(session, releaser, now),
        }
    }

    /// Nobody holds it: it is given back, and asked for again at once if somebody waits whose turn it is.
    fn leave(&mut self, key: KeySpace, releaser: Option<W>, now: Instant) {
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        let Stage::Held { session, mode } = entry.stage else {
            return;
        };
        let overdue = entry.is_overdue(&self.settings, now);
        (entry.since, entry.turns) = (None, 0);
        if session == SessionId::PROCESS {
            entry.stage = Stage::Away;
            self.reply(releaser, Ok(()));
            return self.ask(key, now);
        }
        // A server that has a queue gives it to the others who wait there, before it gives it to us again. Those who poll need time.
        let next = entry.queue.front();
        let pauses = next.filter(|next| overdue && next.strategy != WaitStrategy::Block);
        let pauses = pauses.map(|next| Pauses::grown(next.interval, self.random.fork()));
        let again = if pauses.is_some() {
            None
        } else {
            next.map(|next| (next.mode, next.fenced))
        };
        entry.stage = Stage::Leaving {
            session,
            releaser,
            again: again.map(|(mode, _)| mode),
        };
        self.push(
            session,
            RoundStep::new(StepKind::GiveBack, key, mode),
            false,
            now,
        );
        if let Some((mode, fenced)) = again {
            self.push(
                session,
                RoundStep::new(StepKind::Take { fenced }, key, mode),
                false,
                now,
            );
        }
        if pauses.is_some() {
            if let Some(entry) = self.keys.get_mut(&key) {
                entry.pauses = pauses;
            }
            self.ask_later(key, now);
        }
    }

    /// It is given back.
    pub(super) fn left(&mut self, key: KeySpace, held: bool, now: Instant) {
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        let stage = std::mem::replace(&mut entry.stage, Stage::Away);
        let Stage::Leaving {
            session,
            releaser,
            again,
        } = stage
        else {
            entry.stage = stage;
            return;
        };
        let waits_for_its_turn = entry.due.is_some();
        let result = if held {
            Ok(())
        } else {
            Err(LockErrorKind::NotHeld)
        };
        self.reply(releaser, result);
        if let (Some(mode), Some(entry)) = (again, self.keys.get_mut(&key)) {
            entry.stage = Stage::Asking { session, mode };
        } else if !waits_for_its_turn {
            self.ask(key, now);
        }
    }

    /// Refuses those who do not wait and have been passed over.
    fn refuse_impatient(&mut self, key: KeySpace) {
        for (request, kind) in self.take_impatient(key) {
            self.refuse(request, kind);
        }
        self.forget_if_idle(key);
    }

    /// Those who do not wait, and could not be asked for, are told why.
    pub(super) fn fail_impatient(&mut self, key: KeySpace, kind: LockErrorKind, why: &'static str) {
        for (request, _) in self.take_impatient(key) {
            let error = LockError::new(kind).with_key(&request.key).because(why);
            self.refuse_with(request, error);
        }
    }

    fn take_impatient(&mut self, key: KeySpace) -> Vec<(Request<W>, LockErrorKind)> {
        let Some(entry) = self.keys.get_mut(&key) else {
            return Vec::new();
        };
        let kind = |request: &Request<W>| match request.patience {
            Patience::Once(kind) => Some(kind),
            Patience::Until(_) | Patience::Forever => None,
        };
        // Nearly always there is nobody.
        if !entry.queue.iter().any(|request| kind(request).is_some()) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for request in std::mem::take(&mut entry.queue) {
            match kind(&request) {
                Some(kind) => taken.push((request, kind)),
                None => entry.queue.push_back(request),
            }
        }
        taken
    }

    /// A key that nobody uses takes no room.
    pub(super) fn forget_if_idle(&mut self, key: KeySpace) {
        let idle = self
            .keys
            .get(&key)
            .is_some_and(|entry| entry.queue.is_empty() && matches!(entry.stage, Stage::Away));
        if idle {
            self.not_due(key);
            self.keys.remove(&key);
        }
    }
}
