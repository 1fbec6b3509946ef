//! Log events of lock operations, sent through [`tracing`](https://docs.rs/tracing).

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::LockError;
use crate::key::LockKey;
use crate::options::{LockMode, LockScope};

/// Runs a log call and ignores a panic of the subscriber. Events are sent between a grant and its
/// release, and during a panic, where a second panic would abort the process.
pub(crate) fn log(event: impl FnOnce()) {
    // The panic hook has already reported the panic.
    let _ = catch_unwind(AssertUnwindSafe(event));
}

/// Logs a lock request, before anything is sent.
pub(crate) fn requested(key: &LockKey, scope: LockScope) {
    log(|| tracing::debug!(%key, ?scope, "requesting an advisory lock"));
}

/// Logs a grant.
pub(crate) fn granted(key: &LockKey, mode: LockMode, pid: Option<i32>) {
    log(|| tracing::debug!(%key, ?mode, pid, "an advisory lock is granted"));
}

/// Logs a grant by the lock manager.
#[cfg(feature = "lock-manager")]
pub(crate) fn granted_by_lock_manager(key: &LockKey, mode: LockMode) {
    log(|| tracing::debug!(%key, ?mode, "an advisory lock is granted by a lock manager"));
}

/// Logs a successful release.
pub(crate) fn released(key: &LockKey) {
    log(|| tracing::debug!(%key, "an advisory lock is released"));
}

/// Logs a failed release that no caller receives, with its chain of causes.
pub(crate) fn release_failed(error: &LockError) {
    log(|| {
        tracing::error!(
            error = error as &(dyn StdError + 'static),
            "the release of an advisory lock failed"
        )
    });
}
