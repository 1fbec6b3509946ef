//! SQLite: the policy of a backend without locks. **It provides no mutual exclusion.**

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::error::{LockError, LockErrorKind};
use crate::events;
use crate::key::{LockKey, RawLockKey};
use crate::options::OnMissingLock;

/// The number of keys that are warned about, which bounds the memory of the set.
const MAX_WARNED_KEYS: usize = 64;

/// The warning for a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Warning {
    /// This key, for the first time.
    Key,
    /// This key, for the first time; it is the last key that is warned about.
    LastKey,
    /// No warning: this key was warned about before, or the limit is reached.
    None,
}

/// The keys that were warned about in this process. Bounded, because keys are often derived from
/// unbounded data.
#[derive(Debug)]
struct WarnedKeys {
    keys: Mutex<Option<HashSet<RawLockKey>>>,
    limit: usize,
}

impl WarnedKeys {
    const fn new(limit: usize) -> Self {
        Self {
            keys: Mutex::new(None),
            limit,
        }
    }

    fn insert(&self, key: RawLockKey) -> Warning {
        // No code under the mutex panics, so a poisoned set is consistent.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = keys.get_or_insert_default();
        // The limit is tested first, so that a full set does not grow.
        if keys.len() >= self.limit || !keys.insert(key) {
            Warning::None
        } else if keys.len() == self.limit {
            Warning::LastKey
        } else {
            Warning::Key
        }
    }
}

static WARNED_KEYS: WarnedKeys = WarnedKeys::new(MAX_WARNED_KEYS);

/// Applies the policy of a call on a backend without locks: fails, or lets the call proceed.
pub(crate) fn apply_missing_lock_policy(
    key: &LockKey,
    policy: OnMissingLock,
) -> Result<(), LockError> {
    match policy {
        OnMissingLock::Error => {
            return Err(LockError::new(LockErrorKind::NoMutualExclusion)
                .with_context(
                    "SQLite has no locks, and OnMissingLock::Error refuses to run without one: \
                     connect to PostgreSQL, or set another LockOptions::on_missing_lock",
                )
                .with_key(key));
        }
        OnMissingLock::Ignore => {}
        OnMissingLock::Warn => {
            let warning = WARNED_KEYS.insert(key.raw());
            if warning != Warning::None {
                events::runs_without_exclusion(key);
            }
            if warning == Warning::LastKey {
                events::no_more_warnings(MAX_WARNED_KEYS);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_warned_about_once() {
        let warned = WarnedKeys::new(2);
        assert_eq!(warned.insert(RawLockKey::Single(1)), Warning::Key);
        assert_eq!(warned.insert(RawLockKey::Single(1)), Warning::None);
        assert_eq!(warned.insert(RawLockKey::Pair(0, 1)), Warning::LastKey);
        assert_eq!(warned.insert(RawLockKey::Single(3)), Warning::None);
        assert_eq!(warned.insert(RawLockKey::Single(1)), Warning::None);
    }

    #[test]
    fn only_the_error_policy_fails() {
        let key = LockKey::from("only_the_error_policy_fails");
        assert!(apply_missing_lock_policy(&key, OnMissingLock::Warn).is_ok());
        assert!(apply_missing_lock_policy(&key, OnMissingLock::Ignore).is_ok());
        let error = apply_missing_lock_policy(&key, OnMissingLock::Error).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::NoMutualExclusion);
        assert_eq!(error.key(), Some(&key));
        let text = error.to_string();
        assert!(
            text.contains("PostgreSQL") && text.contains("on_missing_lock"),
            "{text}"
        );
    }
}
