//! One key that is held: who has it next, and when it is given back.

use std::time::Instant;

use super::entry::{Entry, Stage};
use super::{Core, RequestId, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::options::{LockMode, WaitStrategy};
use crate::session::{LockOp, LockOpKind};

impl<W> Core<W> {
    /// It was granted: the queue is served.
    pub(super) fn taken(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        mode: LockMode,
        token: Option<i64>,
        now: Instant,
    ) {
        self.not_due(key);
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.stage = Stage::Held { session, mode };
            entry.since.get_or_insert(now);
            entry.pauses = None;
            entry.alone = false;
        }
        self.settle(key, token, None, now);
    }

    /// The lock is held: whoever may have it next gets it; with nobody left, it is given back. `releaser` is told when it is certain that
    /// it was held until now.
    pub(super) fn settle(
        &mut self,
        key: RawLockKey,
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
            if !entry.admits_next(session, mode, &self.settings, now) {
                break session;
            }
            let fenced = entry.line.front().is_some_and(|next| next.fenced);
            if fenced && token.is_none() && session != SessionId::PROCESS {
                entry.stage = Stage::Drawing { session, mode };
                // The answer to the draw is the releaser's too. Those who do not wait may be let in after it.
                self.confirm_with_next(session, releaser);
                let draw = LockOp::new(LockOpKind::IssueToken, key, mode);
                return self.push(session, &[draw], false, now);
            }
            if fenced && token.is_none() {
                token = Some(self.process_token());
            } else if let Some(next) = entry.line.pop() {
                entry.turns = entry.turns.saturating_add(1);
                let token = if next.fenced { token.take() } else { None };
                let id = self.grant(next, Some(session), token);
                self.keys.entry(key).or_default().admit(id);
            }
        };
        self.refuse_impatient(key);
        let free = self
            .keys
            .get(&key)
            .is_some_and(|entry| entry.holders.is_empty());
        if free {
            self.leave(key, releaser, now);
        } else {
            self.confirm(session, releaser, now);
        }
    }

    /// A holder has given the lock up.
    pub(super) fn given_up(
        &mut self,
        key: RawLockKey,
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
    fn leave(&mut self, key: RawLockKey, releaser: Option<W>, now: Instant) {
        let asked = RequestId(self.next);
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        let Stage::Held { session, mode } = entry.stage else {
            return;
        };
        if session == SessionId::PROCESS {
            entry.stage = Stage::Away;
            self.reply(releaser, Ok(()));
            return self.ask(key, now);
        }
        let overdue = entry.is_overdue(&self.settings, now);
        // A server that has a queue gives it to the others who wait there, before it gives it to us again. Those who poll need time.
        let polls = |entry: &Entry<W>| {
            let next = entry.line.front();
            next.is_some_and(|next| next.strategy != WaitStrategy::Block)
        };
        let yields = (overdue && polls(entry)).then(|| entry.yields_for(&mut self.random));
        let yields = yields.flatten();
        let next = entry.line.front();
        let pauses = yields.is_some();
        let again = next.filter(|_| !pauses).map(|next| {
            let (kind, mode) = (
                LockOpKind::Acquire {
                    with_token: next.fenced,
                },
                next.mode,
            );
            LockOp::new(kind, key, mode)
        });
        if overdue || again.is_none() {
            entry.end_turns();
        }
        if pauses {
            entry.pauses = yields;
        }
        entry.asked = asked;
        entry.stage = Stage::Leaving {
            session,
            releaser,
            again: again.is_some(),
        };
        let mut steps = vec![LockOp::new(LockOpKind::Release, key, mode)];
        steps.extend(again);
        self.push(session, &steps, false, now);
        if pauses {
            self.ask_later(key, now);
        }
    }

    /// It is given back.
    pub(super) fn left(&mut self, key: RawLockKey, held: bool, now: Instant) {
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
        if again {
            entry.stage = Stage::Asking { session };
        }
        let waits_for_its_turn = entry.due.is_some();
        let result = if held {
            Ok(())
        } else {
            Err(LockErrorKind::NotHeld)
        };
        self.reply(releaser, result);
        if !again && !waits_for_its_turn {
            self.ask(key, now);
        }
    }
}
