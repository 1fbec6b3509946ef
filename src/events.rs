//! Log events of locks.

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::LockError;
use crate::key::LockKey;
use crate::options::LockScope;
use crate::protocol::Grant;

/// Whatever a log sink does, a panic included, has no effect on a lock: events are sent between a grant and its release, and while a
/// panic unwinds, where a second one would end the process.
pub(crate) fn log(event: impl FnOnce()) {
    // The panic hook has told of it.
    let _ = catch_unwind(AssertUnwindSafe(event));
}

/// Logs that a lock is about to be asked for.
pub(crate) fn requested(key: &LockKey, scope: LockScope) {
    log(|| tracing::debug!(%key, ?scope, "requesting an advisory lock"));
}

/// Logs a grant.
pub(crate) fn granted(grant: &Grant) {
    let Grant { key, mode, pid, .. } = grant;
    log(|| tracing::debug!(%key, ?mode, pid, "an advisory lock is granted"));
}

/// Logs a grant by a locker.
#[cfg(feature = "lock-manager")]
pub(crate) fn granted_by_lock_manager(key: &LockKey, mode: crate::options::LockMode) {
    log(|| tracing::debug!(%key, ?mode, "an advisory lock is granted by a lock manager"));
}

/// Logs a release in order.
pub(crate) fn released(key: &LockKey) {
    log(|| tracing::debug!(%key, "an advisory lock is released"));
}

/// Logs a release that failed where nobody can be told, with the chain of its causes.
pub(crate) fn release_failed(error: &LockError) {
    log(|| {
        tracing::error!(
            error = error as &(dyn StdError + 'static),
            "an advisory lock was not released in order"
        )
    });
}
