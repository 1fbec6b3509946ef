//! Conflicts between requests and holders.

use super::{Held, LockRequest, Owner, Table};
use crate::options::LockMode;

impl Table {
    /// Returns `true` if the session holds the lock in any mode.
    pub(super) fn holds(&self, request: &LockRequest) -> bool {
        self.held_by_owner(request).next().is_some()
    }

    /// Returns `true` if the session holds the lock in the mode of the request.
    pub(in crate::testing) fn holds_in_mode(&self, request: &LockRequest) -> bool {
        self.held_by_owner(request)
            .any(|held| held.by.mode == request.mode)
    }

    fn held_by_owner(&self, request: &LockRequest) -> impl Iterator<Item = &Held> {
        self.held
            .iter()
            .filter(move |held| held.by.key == request.key && held.by.owner == request.owner)
    }

    /// Returns `true` if the two requests conflict. They must have the same key and different
    /// owners, not both be shared, and be subject to exclusion: one is outside the test, or
    /// sessions of the test exclude each other.
    pub(super) fn conflict(&self, other: &LockRequest, request: &LockRequest) -> bool {
        let shared = other.mode == LockMode::Shared && request.mode == LockMode::Shared;
        let apart = matches!(other.owner, Owner::OtherSession(_)) || self.excludes;
        other.key == request.key && other.owner != request.owner && !shared && apart
    }

    /// Returns `true` if an attempt does not find the lock free. As in PostgreSQL, it does not
    /// overtake a conflicting request in the queue, even if it is compatible with the holders. A
    /// session that holds the lock in the same mode counts one more level.
    ///
    /// A session that holds the lock in another mode is refused, too. PostgreSQL 13 and 15 refuse
    /// such an attempt, and 18 grants it (`tests/postgres/two_modes.rs`).
    pub(super) fn refuses_attempt(&self, request: &LockRequest) -> bool {
        let ahead = if self.holds_in_mode(request) {
            0
        } else {
            self.queue.len()
        };
        self.blockers(request, ahead).next().is_some()
    }

    /// Returns the owners that block a request with this position in the queue. As in PostgreSQL,
    /// it waits behind earlier conflicting requests. A session that holds the lock in any mode is
    /// put before them.
    pub(super) fn queue_blockers(
        &self,
        request: &LockRequest,
        position: usize,
    ) -> impl Iterator<Item = Owner> {
        let ahead = if self.holds(request) { 0 } else { position };
        self.blockers(request, ahead)
    }

    /// Returns the owners that block a request behind the first `ahead` requests of the queue.
    fn blockers(&self, request: &LockRequest, ahead: usize) -> impl Iterator<Item = Owner> {
        let holders = self.held.iter().filter(|held| !held.is_lost());
        let holders = holders.map(|held| &held.by);
        let before = self.queue.iter().take(ahead).map(|waiting| &waiting.by);
        holders
            .chain(before)
            .filter(move |other| self.conflict(other, request))
            .map(|other| other.owner)
    }

    /// Returns `true` if the owners that block `request` wait for it, directly or through others.
    pub(super) fn is_deadlock(&self, request: &LockRequest) -> bool {
        let mut found: Vec<_> = self.queue_blockers(request, self.queue.len()).collect();
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
                    found.extend(self.queue_blockers(&waiting.by, position));
                }
            }
        }
        false
    }
}
