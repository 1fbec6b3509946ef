//! What is known of a key in use.

use std::time::{Duration, Instant};

use super::line::Line;
use super::{RequestId, SessionId};
use crate::lock_manager::options::Settings;
use crate::options::LockMode;
use crate::protocol::Backoff;

/// The pauses of a key end on a grid as fine as this part of the interval.
const GRID: u32 = 16;

/// A key in use.
#[derive(Debug)]
pub(super) struct Entry<W> {
    pub(super) line: Line<W>,
    pub(super) holders: Vec<u64>,
    pub(super) stage: Stage<W>,
    /// The last request that was there when the key was asked for.
    pub(super) asked: RequestId,
    /// Since when others have had no chance to get it, and how often it was handed on.
    pub(super) since: Option<Instant>,
    pub(super) turns: u32,
    /// When it is asked for again.
    pub(super) due: Option<Instant>,
    pub(super) pauses: Option<Backoff>,
    /// For which part of an interval it is left to others when it was handed on for long enough: a part of one in `GRID`, or the whole, or a
    /// half, a quarter, … after it has been left to others for nothing.
    pub(super) yields: u32,
    /// It was asked for in a round that failed, so it is asked for alone.
    pub(super) alone: bool,
}

/// Where the lock of a key is.
#[derive(Debug)]
pub(super) enum Stage<W> {
    /// With nobody of ours.
    Away,
    /// A session asks for it.
    Asking { session: SessionId },
    /// A session of its own waits for it on the server.
    Waiting { session: SessionId, mode: LockMode },
    /// A session has it.
    Held { session: SessionId, mode: LockMode },
    /// A session has it and draws a token for the first in the queue.
    Drawing { session: SessionId, mode: LockMode },
    /// It is given back; and perhaps asked for again in the same breath.
    Leaving {
        session: SessionId,
        releaser: Option<W>,
        again: bool,
    },
}

impl<W> Stage<W> {
    pub(super) const fn session(&self) -> Option<SessionId> {
        match self {
            Self::Away => None,
            Self::Asking { session }
            | Self::Waiting { session, .. }
            | Self::Held { session, .. }
            | Self::Drawing { session, .. }
            | Self::Leaving { session, .. } => Some(*session),
        }
    }
}

impl<W> Default for Entry<W> {
    fn default() -> Self {
        Self {
            line: Line::default(),
            holders: Vec::new(),
            stage: Stage::Away,
            asked: RequestId(0),
            since: None,
            turns: 0,
            due: None,
            pauses: None,
            yields: GRID,
            alone: false,
        }
    }
}

impl<W> Entry<W> {
    /// One more holds it.
    pub(super) fn admit(&mut self, holder: u64) {
        // Most keys have one holder, and a collection that grows begins with room for four.
        if self.holders.capacity() == 0 {
            self.holders.reserve_exact(1);
        }
        self.holders.push(holder);
    }

    /// Whether it has been handed on in this process for as long as others can be made to wait.
    pub(super) fn is_overdue(&self, settings: &Settings, now: Instant) -> bool {
        let held_for = self
            .since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.turns > 0 && (self.turns >= settings.turns || held_for >= settings.tenure)
    }

    /// Others have their chance to get it.
    pub(super) const fn end_turns(&mut self) {
        (self.since, self.turns) = (None, 0);
    }

    /// The pause in which others may get it: a whole interval if somebody did the last time, and half of the last one if nobody did.
    ///
    /// Those who poll do not show. So a pause is the only way to find out, and one that is as long as theirs is the only fair one; but where
    /// nobody else is there it would be time lost.
    pub(super) fn yields_for(&mut self, random: &mut fastrand::Rng) -> Option<Backoff> {
        let next = self.line.front()?;
        let pauses = Backoff::from(next.interval / self.yields, next.interval, random.fork());
        self.yields = self.yields.saturating_mul(2).min(GRID);
        Some(pauses)
    }

    /// Somebody else has it.
    pub(super) const fn is_wanted_elsewhere(&mut self) {
        self.yields = 1;
    }

    /// Whether the first in the queue may have it now, as it is held.
    pub(super) fn admits_next(
        &self,
        session: SessionId,
        held: LockMode,
        settings: &Settings,
        now: Instant,
    ) -> bool {
        // Where this process alone is excluded, there are no others.
        let others_wait = session != SessionId::PROCESS && self.is_overdue(settings, now);
        self.line.front().is_some_and(|next| {
            let alone = self.holders.is_empty();
            next.mode == held && (alone || held == LockMode::Shared) && !others_wait
        })
    }

    /// When to ask again: after a pause of the first in the queue, and never later than after its interval.
    ///
    /// On a grid, so that keys that wait in the same rhythm are asked for in the same statement. Other processes have other grids.
    pub(super) fn next_due(
        &mut self,
        epoch: Instant,
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Instant {
        let front = self.line.front();
        let interval = front.map_or(Duration::ZERO, |next| next.interval);
        let pauses = self
            .pauses
            .get_or_insert_with(|| Backoff::new(interval, random.fork()));
        let pause = pauses.next();
        let due = now.checked_add(pause).unwrap_or(now);
        let grid = (interval / GRID).as_nanos().max(1);
        let since = due.saturating_duration_since(epoch).as_nanos();
        let late = u64::try_from(since.next_multiple_of(grid) - since).unwrap_or(0);
        let late = Duration::from_nanos(late);
        if pause.saturating_add(late) <= interval {
            return due.checked_add(late).unwrap_or(due);
        }
        // The point of the grid before, which is no shorter pause than the upper half's.
        let early = (interval / GRID).saturating_sub(late);
        due.checked_sub(early).unwrap_or(due)
    }
}
