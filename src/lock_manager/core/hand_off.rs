//! One key that is held: who has it next, and when it is given back.

use std::time::Instant;

use super::key_state::{KeyPhase, KeyState};
use super::{Core, RequestId, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::options::{LockMode, WaitStrategy};
use crate::session::{LockOp, LockOpKind};

impl<W> Core<W> {
    /// It was granted: the queue is served.
    pub(super) fn on_granted(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        mode: LockMode,
        token: Option<i64>,
        now: Instant,
    ) {
        self.cancel_poll(key);
        if let Some(key_state) = self.keys.get_mut(&key) {
            key_state.phase = KeyPhase::Held { session, mode };
            key_state.tenure_start.get_or_insert(now);
            key_state.backoff = None;
            key_state.retry_alone = false;
        }
        self.grant_waiters(key, token, None, now);
    }

    /// The lock is held: whoever may have it next gets it; with nobody left, it is given back. `releaser` is told when it is certain that
    /// it was held until now.
    pub(super) fn grant_waiters(
        &mut self,
        key: RawLockKey,
        mut token: Option<i64>,
        releaser: Option<W>,
        now: Instant,
    ) {
        let session = loop {
            let Some(key_state) = self.keys.get_mut(&key) else {
                return;
            };
            let KeyPhase::Held { session, mode } = key_state.phase else {
                return;
            };
            if !key_state.can_grant_next(session, mode, &self.settings, now) {
                break session;
            }
            let fenced = key_state.queue.front().is_some_and(|next| next.fenced);
            if fenced && token.is_none() && session != SessionId::IN_PROCESS {
                key_state.phase = KeyPhase::IssuingToken { session, mode };
                // The answer to the draw is the releaser's too. Those who do not wait may be let in after it.
                self.ack_with_next_batch(session, releaser);
                let draw = LockOp::new(LockOpKind::IssueToken, key, mode);
                return self.enqueue_ops(session, &[draw], false, now);
            }
            if fenced && token.is_none() {
                token = Some(self.process_token());
            } else if let Some(next) = key_state.queue.pop() {
                key_state.hand_offs = key_state.hand_offs.saturating_add(1);
                let token = if next.fenced { token.take() } else { None };
                let id = self.grant(next, Some(session), token);
                self.keys.entry(key).or_default().add_holder(id);
            }
        };
        self.fail_no_wait(key);
        let free = self
            .keys
            .get(&key)
            .is_some_and(|key_state| key_state.holders.is_empty());
        if free {
            self.start_release(key, releaser, now);
        } else {
            self.ack_after_next_reply(session, releaser, now);
        }
    }

    /// A holder has given the lock up.
    pub(super) fn on_holder_released(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        releaser: Option<W>,
        now: Instant,
    ) {
        match self.keys.get(&key).map(|key_state| &key_state.phase) {
            Some(KeyPhase::Held { .. }) => self.grant_waiters(key, None, releaser, now),
            Some(_) | None => self.ack_after_next_reply(session, releaser, now),
        }
    }

    /// Nobody holds it: it is given back, and asked for reacquire at once if somebody waits whose turn it is.
    fn start_release(&mut self, key: RawLockKey, releaser: Option<W>, now: Instant) {
        let asked = RequestId(self.last_id);
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        let KeyPhase::Held { session, mode } = key_state.phase else {
            return;
        };
        if session == SessionId::IN_PROCESS {
            key_state.phase = KeyPhase::NotHeld;
            self.reply(releaser, Ok(()));
            return self.send_acquire(key, now);
        }
        let overdue = key_state.hand_off_limit_reached(&self.settings, now);
        // A server that has a queue gives it to the others who wait there, before it gives it to us reacquire. Those who poll need time.
        let polls = |key_state: &KeyState<W>| {
            let next = key_state.queue.front();
            next.is_some_and(|next| next.strategy != WaitStrategy::Block)
        };
        let yields =
            (overdue && polls(key_state)).then(|| key_state.yield_backoff(&mut self.random));
        let yields = yields.flatten();
        let next = key_state.queue.front();
        let pauses = yields.is_some();
        let reacquire = next.filter(|_| !pauses).map(|next| {
            let (kind, mode) = (
                LockOpKind::Acquire {
                    with_token: next.fenced,
                },
                next.mode,
            );
            LockOp::new(kind, key, mode)
        });
        if overdue || reacquire.is_none() {
            key_state.reset_tenure();
        }
        if pauses {
            key_state.backoff = yields;
        }
        key_state.newest_when_sent = asked;
        key_state.phase = KeyPhase::Releasing {
            session,
            releaser,
            reacquire: reacquire.is_some(),
        };
        let mut ops = vec![LockOp::new(LockOpKind::Release, key, mode)];
        ops.extend(reacquire);
        self.enqueue_ops(session, &ops, false, now);
        if pauses {
            self.poll_later(key, now);
        }
    }

    /// It is given back.
    pub(super) fn on_released(&mut self, key: RawLockKey, held: bool, now: Instant) {
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        let phase = std::mem::replace(&mut key_state.phase, KeyPhase::NotHeld);
        let KeyPhase::Releasing {
            session,
            releaser,
            reacquire,
        } = phase
        else {
            key_state.phase = phase;
            return;
        };
        if reacquire {
            key_state.phase = KeyPhase::Acquiring { session };
        }
        let waits_for_its_turn = key_state.next_poll.is_some();
        let result = if held {
            Ok(())
        } else {
            Err(LockErrorKind::NotHeld)
        };
        self.reply(releaser, result);
        if !reacquire && !waits_for_its_turn {
            self.send_acquire(key, now);
        }
    }
}
