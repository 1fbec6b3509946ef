//! SQLite: the policy of a backend without locks. **It provides no mutual exclusion.**

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::error::{LockError, LockErrorKind};
use crate::events;
use crate::key::{LockKey, RawLockKey};
use crate::options::OnMissingLock;

/// The number of keys that are warned about, which bounds the memory of the set.
const MAX_WARNED_KEYS: usize = 64;

/// The keys that were warned about in this process. Bounded, because keys are often derived from
/// unbounded data.
static WARNED_KEYS: Mutex<BTreeSet<RawLockKey>> = Mutex::new(BTreeSet::new());

/// Adds a key, and returns the number of keys that are warned about then. `None`: there is no
/// warning, because this key was warned about before, or the limit is reached.
fn add_warned_key(
    warned: &Mutex<BTreeSet<RawLockKey>>,
    limit: usize,
    key: RawLockKey,
) -> Option<usize> {
    // No code under the mutex panics, so a poisoned set is consistent.
    let mut keys = warned.lock().unwrap_or_else(PoisonError::into_inner);
    // The limit is tested first, so that a full set does not grow.
    let is_new = keys.len() < limit && keys.insert(key);
    is_new.then_some(keys.len())
}

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
            let count = add_warned_key(&WARNED_KEYS, MAX_WARNED_KEYS, key.raw());
            if count.is_some() {
                events::runs_without_exclusion(key);
            }
            if count == Some(MAX_WARNED_KEYS) {
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
        let warned = Mutex::default();
        for (key, count) in [
            (RawLockKey::Single(1), Some(1)),
            (RawLockKey::Single(1), None),
            (RawLockKey::Pair(0, 1), Some(2)),
            (RawLockKey::Single(3), None),
            (RawLockKey::Single(1), None),
        ] {
            assert_eq!(add_warned_key(&warned, 2, key), count, "{key}");
        }
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
