//! Conflicts between requests and holders.

use super::{LockRequest, Owner, Table};
use crate::options::LockMode;

impl Table {
    /// Returns `true` if the session holds the lock in any mode.
    pub(super) fn holds(&self, request: &LockRequest) -> bool {
        self.held
            .iter()
            .any(|held| held.by.key == request.key && held.by.owner == request.owner)
    }

    /// Returns `true` if the two requests conflict. They must have the same key and different
    /// owners, not both be shared, and be subject to exclusion: one is outside the test, or
    /// sessions of the test exclude each other.
    pub(super) fn conflict(&self, other: &LockRequest, request: &LockRequest) -> bool {
        let shared = other.mode == LockMode::Shared && request.mode == LockMode::Shared;
        let apart = matches!(other.owner, Owner::OtherSession(_)) || self.excludes;
        other.key == request.key && other.owner != request.owner && !shared && apart
    }

    /// Returns the owners that block `request` when `ahead` requests are queued before it. As in
    /// PostgreSQL, a new request waits behind conflicting earlier requests, even if it is
    /// compatible with the holders. An owner that already holds the lock does not wait behind them.
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

    /// Returns `true` if the owners that block `request` wait for it, directly or through others.
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
