//! SQLite: the policy of a backend without locks, written down once. **Nothing is excluded here.**

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::error::{LockError, LockErrorKind};
use crate::events::log;
use crate::key::{LockKey, RawLockKey};
use crate::options::OnMissingLock;

/// How many keys are warned about before the ledger is full; as many as in PormG.
const WARNED_KEYS: usize = 64;

/// What a warning says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Warning {
    /// This key, for the first time.
    Key,
    /// This key, for the first time, and it is the last: the ledger is full.
    LastKey,
    /// Nothing: this key was warned about, or the ledger is full.
    None,
}

/// The keys that were warned about in this process. Bounded, because keys are often made from unbounded data.
#[derive(Debug)]
struct Ledger {
    warned: Mutex<Option<HashSet<RawLockKey>>>,
    limit: usize,
}

impl Ledger {
    const fn new(limit: usize) -> Self {
        Self {
            warned: Mutex::new(None),
            limit,
        }
    }

    fn enter(&self, key: RawLockKey) -> Warning {
        // Nothing in here can panic half-way, so a poisoned ledger is as good as any.
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let warned = warned.get_or_insert_default();
        if warned.len() >= self.limit || !warned.insert(key) {
            Warning::None
        } else if warned.len() == self.limit {
            Warning::LastKey
        } else {
            Warning::Key
        }
    }
}

static LEDGER: Ledger = Ledger::new(WARNED_KEYS);

/// Lets the caller in without a lock, as its policy says.
pub(crate) fn admit(key: &LockKey, policy: OnMissingLock) -> Result<(), LockError> {
    match policy {
        OnMissingLock::Error => {
            return Err(LockError::new(LockErrorKind::NoMutualExclusion).with_key(key));
        }
        OnMissingLock::Ignore => {}
        OnMissingLock::Warn => {
            let warning = LEDGER.enter(key.raw());
            if warning != Warning::None {
                log(
                    || tracing::warn!(%key, "SQLite has no advisory locks: running without mutual exclusion"),
                );
            }
            if warning == Warning::LastKey {
                log(|| {
                    tracing::warn!(
                        keys = WARNED_KEYS,
                        "no further keys are warned about in this process, though they are not locked either"
                    );
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_warned_about_once_and_the_last_one_says_so() {
        let ledger = Ledger::new(2);
        assert_eq!(ledger.enter(RawLockKey::Single(1)), Warning::Key);
        assert_eq!(ledger.enter(RawLockKey::Single(1)), Warning::None);
        assert_eq!(ledger.enter(RawLockKey::Pair(0, 1)), Warning::LastKey);
        assert_eq!(ledger.enter(RawLockKey::Single(3)), Warning::None);
        assert_eq!(ledger.enter(RawLockKey::Single(1)), Warning::None);
    }

    #[test]
    fn only_error_refuses() {
        let key = LockKey::from("only_error_refuses");
        assert!(admit(&key, OnMissingLock::Warn).is_ok());
        assert!(admit(&key, OnMissingLock::Ignore).is_ok());
        let error = admit(&key, OnMissingLock::Error).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::NoMutualExclusion);
        assert_eq!(error.key(), Some(&key));
    }
}
