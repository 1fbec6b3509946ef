//! Who is in whose way.

use super::{LockRequest, Owner, Table};
use crate::options::LockMode;

impl Table {
    /// Whether the session has the lock already, in any mode.
    pub(super) fn holds(&self, request: &LockRequest) -> bool {
        self.held
            .iter()
            .any(|held| held.by.key == request.key && held.by.owner == request.owner)
    }

    /// Whether one stands in the other's way: they want the same key, not both to share it, and one of them is elsewhere or sessions
    /// exclude each other.
    pub(super) fn conflict(&self, other: &LockRequest, request: &LockRequest) -> bool {
        let shared = other.mode == LockMode::Shared && request.mode == LockMode::Shared;
        let apart = matches!(other.owner, Owner::OtherSession(_)) || self.excludes;
        other.key == request.key && other.owner != request.owner && !shared && apart
    }

    /// Those in the way of one who has so many before it in the queue. As on a server, a newcomer stands behind those who queue, also if
    /// it would get on with the holder; but who has the lock already does not stand in line.
    pub(super) fn blockers(&self, request: &LockRequest, ahead: usize) -> Vec<Owner> {
        let holders = self
            .held
            .iter()
            .filter(|held| !held.is_lost() && self.conflict(&held.by, request))
            .map(|held| held.by.owner);
        let ahead = if self.holds(request) { 0 } else { ahead };
        let before = self
            .queue
            .iter()
            .take(ahead)
            .filter(|waiting| self.conflict(&waiting.by, request))
            .map(|waiting| waiting.by.owner);
        holders.chain(before).collect()
    }

    pub(super) fn is_blocked(&self, request: &LockRequest, ahead: usize) -> bool {
        !self.blockers(request, ahead).is_empty()
    }

    /// Whether those in the way wait for this one, by whatever detours.
    pub(super) fn is_deadlock(&self, request: &LockRequest) -> bool {
        let mut found = self.blockers(request, self.queue.len());
        let mut seen = Vec::new();
        while let Some(owner) = found.pop() {
            if owner == request.owner {
                return true;
            }
            if seen.contains(&owner) {
                continue;
            }
            seen.push(owner);
            for (position, waiting) in self.queue.iter().enumerate() {
                if waiting.by.owner == owner {
                    found.extend(self.blockers(&waiting.by, position));
                }
            }
        }
        false
    }
}
