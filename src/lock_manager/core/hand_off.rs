//! Held keys: grants to waiters, hand-off between them, release.
//!
//! # Implementation details
//!
//! [`Core::grant_waiters`] runs when a key is granted, when a holder releases it and when a request
//! arrives or leaves. It grants the lock to the first waiters without the server and emits
//! [`Command::Granted`](super::Command::Granted), which wakes them. A hand-off therefore costs no
//! round trip. The releaser receives its response after the next reply of the session, which proves
//! that the session was alive until the hand-off.
//!
//! A hand-off limit (count and time) bounds this. When it is reached, the key is released and
//! acquired again in one batch. If the first waiter polls, the acquire follows after a pause,
//! because the server does not show clients that poll. Consequence for users: a hot key costs one
//! round trip for many holders, and other processes have a chance at each hand-off limit.

use std::time::Instant;

use super::key_state::{KeyEvent, KeyPhase};
use super::{Core, RequestId, SessionId};
use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::options::LockMode;
use crate::session::{LockOp, LockOpKind};

impl<W> Core<W> {
    /// Handles a grant: the key is held, so its waiters are granted.
    pub(super) fn on_granted(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        mode: LockMode,
        token: Option<i64>,
        now: Instant,
    ) {
        // The grant answers the poll, and the next contention starts with short pauses again.
        self.cancel_poll(key);
        if let Some(key_state) = self.keys.get_mut(&key) {
            key_state.apply(KeyEvent::Granted { session, mode });
            key_state.hand_offs_since.get_or_insert(now);
            key_state.granted_since_acquire = false;
            key_state.backoff = None;
        }
        self.grant_waiters(key, token, None, now);
    }

    /// Grants the first waiters of a held key, then releases the key if it has no holder.
    ///
    /// `token` is the fencing token for the first waiter that needs one. `releaser` receives
    /// its response as soon as a reply proves that the lock was held until now.
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
            let KeyPhase::Held { session, mode } = key_state.phase() else {
                return;
            };
            if !key_state.can_grant_next(session, mode, &self.options, now) {
                break session;
            }
            let fenced = key_state.queue.front().is_some_and(|next| next.fenced);
            if fenced && token.is_none() && session != SessionId::IN_PROCESS {
                key_state.apply(KeyEvent::TokenRequested);
                // The reply to this operation also acknowledges the release. Requests that do not
                // wait are decided after it, because they may share the lock.
                self.ack_with_next_batch(session, releaser);
                let op = LockOp::new(LockOpKind::IssueToken, key, mode);
                return self.enqueue_ops(session, &[op], false);
            }
            if fenced && token.is_none() {
                // In the process there is no server to issue the token.
                token = Some(self.process_token());
            } else if let Some(next) = key_state.queue.pop() {
                // The first grant after an acquire came from the server.
                self.counters.hand_offs += u64::from(key_state.granted_since_acquire);
                key_state.hand_offs = key_state.hand_offs.saturating_add(1);
                let token = if next.fenced { token.take() } else { None };
                let holder = self.grant(next, Some(session), token);
                if let Some(key_state) = self.keys.get_mut(&key) {
                    key_state.add_holder(holder, now);
                }
                self.arm_connection_check(session, now);
            }
        };
        let is_free = self
            .keys
            .get(&key)
            .is_some_and(|key_state| key_state.holders.is_empty());
        if is_free {
            // The lock is free for a first request that does not wait: it was granted in the mode
            // of a request that has left since. So an acquire of its own decides.
            self.start_release(key, releaser, now);
        } else {
            self.fail_no_wait(key);
            self.ack_with_next_batch(session, releaser);
        }
    }

    /// Handles the release by one holder.
    pub(super) fn on_holder_released(
        &mut self,
        key: RawLockKey,
        session: SessionId,
        releaser: Option<W>,
        now: Instant,
    ) {
        match self.keys.get(&key).map(|key_state| key_state.phase()) {
            Some(KeyPhase::Held { .. }) => self.grant_waiters(key, None, releaser, now),
            // Another operation of the key is in flight; its reply decides about the waiters.
            Some(_) | None => self.ack_with_next_batch(session, releaser),
        }
    }

    /// Releases the lock on the server.
    ///
    /// If waiters are left, the same batch acquires the lock again for the first of them. While the
    /// key yields to other processes, a later poll does so.
    fn start_release(&mut self, key: RawLockKey, releaser: Option<W>, now: Instant) {
        let newest = RequestId(self.last_id);
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        let KeyPhase::Held { session, mode } = key_state.phase() else {
            return;
        };
        if session == SessionId::IN_PROCESS {
            key_state.apply(KeyEvent::Released);
            self.reply(releaser, Ok(()));
            return self.send_acquire(key, now);
        }
        let limit_reached = key_state.hand_off_limit_reached(&self.options, now);
        // The server grants the lock to sessions in its queue before it grants it to this session
        // again. Polling clients are not in that queue, so they need a pause.
        let next = key_state.queue.front();
        let polls = next.is_some_and(|next| next.no_wait.is_none() && !next.blocks());
        let yields = limit_reached && polls;
        let next = next.filter(|_| !yields);
        let acquire = next.map(|next| {
            let with_token = next.fenced;
            LockOp::new(LockOpKind::Acquire { with_token }, key, next.mode)
        });
        let reacquire = acquire.is_some();
        if limit_reached || !reacquire {
            key_state.reset_hand_offs();
        }
        if yields {
            key_state.begin_to_yield(&mut self.random);
        }
        key_state.newest_when_sent = newest;
        key_state.releaser = releaser;
        key_state.apply(KeyEvent::ReleaseSent { reacquire });
        // The release comes before the acquire, so that the server first grants the lock to a
        // session in its queue.
        let mut ops = vec![LockOp::new(LockOpKind::Release, key, mode)];
        ops.extend(acquire);
        self.enqueue_ops(session, &ops, false);
        if yields {
            self.poll_later(key, now);
            // They are behind a waiter that polls.
            self.fail_no_wait(key);
        }
    }

    /// Handles the reply to a release.
    pub(super) fn on_released(&mut self, key: RawLockKey, held: bool, now: Instant) {
        let Some(key_state) = self.keys.get_mut(&key) else {
            return;
        };
        let KeyPhase::Releasing { reacquire, .. } = key_state.phase() else {
            return;
        };
        key_state.apply(KeyEvent::Released);
        let releaser = key_state.releaser.take();
        let yields = key_state.next_poll.is_some();
        // `held` is false if the server reports that the session did not hold the lock.
        let result = if held {
            Ok(())
        } else {
            Err(LockErrorKind::NotHeld)
        };
        self.reply(releaser, result);
        // With `reacquire` the acquire is the next answer of the same batch. While the key yields,
        // the poll timer sends it.
        if !reacquire && !yields {
            self.send_acquire(key, now);
        }
    }
}
