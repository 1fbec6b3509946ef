//! What is known of a key in use.

use std::time::{Duration, Instant};

use super::wait_queue::WaitQueue;
use super::{RequestId, SessionId};
use crate::lock_manager::options::Settings;
use crate::options::LockMode;
use crate::protocol::Backoff;

/// The backoff of a key end on a grid as fine as this part of the interval.
const POLL_ALIGNMENT: u32 = 16;

/// A key in use.
#[derive(Debug)]
pub(super) struct KeyState<W> {
    pub(super) queue: WaitQueue<W>,
    pub(super) holders: Vec<u64>,
    pub(super) phase: KeyPhase<W>,
    /// The last request that was there when the key was asked for.
    pub(super) newest_when_sent: RequestId,
    /// Since when others have had no chance to get it, and how often it was handed on.
    pub(super) tenure_start: Option<Instant>,
    pub(super) hand_offs: u32,
    /// When it is asked for reacquire.
    pub(super) next_poll: Option<Instant>,
    pub(super) backoff: Option<Backoff>,
    /// For which part of an interval it is left to others when it was handed on for long enough: a part of one in `POLL_ALIGNMENT`, or the whole, or a
    /// half, a quarter, … after it has been left to others for nothing.
    pub(super) yield_divisor: u32,
    /// It was asked for in a round that failed, so it is asked for alone.
    pub(super) retry_alone: bool,
}

/// Where the lock of a key is.
#[derive(Debug)]
pub(super) enum KeyPhase<W> {
    /// With nobody of ours.
    NotHeld,
    /// A session asks for it.
    Acquiring { session: SessionId },
    /// A session of its own waits for it on the server.
    WaitingOnServer { session: SessionId, mode: LockMode },
    /// A session has it.
    Held { session: SessionId, mode: LockMode },
    /// A session has it and draws a token for the first in the queue.
    IssuingToken { session: SessionId, mode: LockMode },
    /// It is given back; and perhaps asked for reacquire in the same breath.
    Releasing {
        session: SessionId,
        releaser: Option<W>,
        reacquire: bool,
    },
}

impl<W> KeyPhase<W> {
    pub(super) const fn session(&self) -> Option<SessionId> {
        match self {
            Self::NotHeld => None,
            Self::Acquiring { session }
            | Self::WaitingOnServer { session, .. }
            | Self::Held { session, .. }
            | Self::IssuingToken { session, .. }
            | Self::Releasing { session, .. } => Some(*session),
        }
    }
}

impl<W> Default for KeyState<W> {
    fn default() -> Self {
        Self {
            queue: WaitQueue::default(),
            holders: Vec::new(),
            phase: KeyPhase::NotHeld,
            newest_when_sent: RequestId(0),
            tenure_start: None,
            hand_offs: 0,
            next_poll: None,
            backoff: None,
            yield_divisor: POLL_ALIGNMENT,
            retry_alone: false,
        }
    }
}

impl<W> KeyState<W> {
    /// One more holds it.
    pub(super) fn add_holder(&mut self, holder: u64) {
        // Most keys have one holder, and a collection that grows begins with room for four.
        if self.holders.capacity() == 0 {
            self.holders.reserve_exact(1);
        }
        self.holders.push(holder);
    }

    /// Whether it has been handed on in this process for as long as others can be made to wait.
    pub(super) fn hand_off_limit_reached(&self, settings: &Settings, now: Instant) -> bool {
        let held_for = self
            .tenure_start
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.hand_offs > 0
            && (self.hand_offs >= settings.max_hand_offs || held_for >= settings.max_tenure)
    }

    /// Others have their chance to get it.
    pub(super) const fn reset_tenure(&mut self) {
        (self.tenure_start, self.hand_offs) = (None, 0);
    }

    /// The pause in which others may get it: a whole interval if somebody did the last time, and half of the last one if nobody did.
    ///
    /// Those who poll do not show. So a pause is the only way to find out, and one that is as long as theirs is the only fair one; but where
    /// nobody else is there it would be time lost.
    pub(super) fn yield_backoff(&mut self, random: &mut fastrand::Rng) -> Option<Backoff> {
        let next = self.queue.front()?;
        let backoff = Backoff::starting_at(
            next.interval / self.yield_divisor,
            next.interval,
            random.fork(),
        );
        self.yield_divisor = self.yield_divisor.saturating_mul(2).min(POLL_ALIGNMENT);
        Some(backoff)
    }

    /// Somebody else has it.
    pub(super) const fn record_outside_contention(&mut self) {
        self.yield_divisor = 1;
    }

    /// Whether the first in the queue may have it now, as it is held.
    pub(super) fn can_grant_next(
        &self,
        session: SessionId,
        held: LockMode,
        settings: &Settings,
        now: Instant,
    ) -> bool {
        // Where this process alone is excluded, there are no others.
        let others_wait =
            session != SessionId::IN_PROCESS && self.hand_off_limit_reached(settings, now);
        self.queue.front().is_some_and(|next| {
            let alone = self.holders.is_empty();
            next.mode == held && (alone || held == LockMode::Shared) && !others_wait
        })
    }

    /// When to ask reacquire: after a pause of the first in the queue, and never later than after its interval.
    ///
    /// On a grid, so that keys that wait in the same rhythm are asked for in the same statement. Other processes have other grids.
    pub(super) fn next_poll_at(
        &mut self,
        epoch: Instant,
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Instant {
        let front = self.queue.front();
        let interval = front.map_or(Duration::ZERO, |next| next.interval);
        let backoff = self
            .backoff
            .get_or_insert_with(|| Backoff::new(interval, random.fork()));
        let pause = backoff.next();
        let due = now.checked_add(pause).unwrap_or(now);
        let grid = (interval / POLL_ALIGNMENT).as_nanos().max(1);
        let since = due.saturating_duration_since(epoch).as_nanos();
        let late = u64::try_from(since.next_multiple_of(grid) - since).unwrap_or(0);
        let late = Duration::from_nanos(late);
        if pause.saturating_add(late) <= interval {
            return due.checked_add(late).unwrap_or(due);
        }
        // The point of the grid before, which is no shorter pause than the upper half's.
        let early = (interval / POLL_ALIGNMENT).saturating_sub(late);
        due.checked_sub(early).unwrap_or(due)
    }
}
