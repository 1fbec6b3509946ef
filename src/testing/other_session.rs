//! Locks of simulated sessions outside the test.

use super::TestLocks;
use crate::key::LockKey;
use crate::options::LockMode;

/// Lock that another session holds until this is dropped. See
/// [`TestLocks::hold_from_other_session`].
#[must_use = "the other session releases the lock when this is dropped"]
#[derive(Debug)]
pub struct OtherSessionLock {
    locks: TestLocks,
    key: LockKey,
    number: i32,
}

impl OtherSessionLock {
    pub(super) fn new(locks: &TestLocks, key: LockKey, mode: LockMode) -> Self {
        let mut table = locks.table.lock();
        Self {
            number: table.hold_from_other_session(key.clone(), mode),
            locks: locks.clone(),
            key,
        }
    }

    /// Returns the key of the lock.
    #[must_use]
    pub const fn key(&self) -> &LockKey {
        &self.key
    }
}

impl Drop for OtherSessionLock {
    fn drop(&mut self) {
        self.locks.table.release_other_session(self.number);
    }
}
