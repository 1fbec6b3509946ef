//! Transaction with a lock around a body.

use crate::combine_results::combine_results;
use crate::driver::blocking::{drive_acquire, drive_release};
use crate::driver::run_in_drop;
use crate::error::LockError;
use crate::events::release_failed;
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::protocol::{BeginAndAcquire, FinishTransaction, Grant};
use crate::session::LockSession;

/// Begins a transaction and acquires its transaction-level lock.
pub(super) fn begin_and_acquire<S: LockSession>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
) -> Result<Grant, LockError> {
    let scope = LockScope::Transaction;
    drive_acquire(session, key, options, scope, BeginAndAcquire::new)
}

/// Runs a body in the transaction that [`begin_and_acquire`] began, then commits or rolls back.
pub(super) fn run_in_transaction<S, T, E>(
    session: &mut S,
    grant: Grant,
    body: impl FnOnce(&mut S) -> Result<T, E>,
) -> Result<T, E>
where
    S: LockSession,
    E: From<LockError>,
{
    let span = grant.span();
    let mut scope = TransactionScope {
        session,
        grant: Some(grant),
    };
    let result = span.in_scope(|| body(scope.session));
    drop(span);
    let ended = scope.finish(result.is_ok());
    combine_results(result, ended)
}

/// Drop guard of the open transaction, which rolls it back if the body panics.
struct TransactionScope<'s, S: LockSession> {
    session: &'s mut S,
    grant: Option<Grant>,
}

impl<S: LockSession> TransactionScope<'_, S> {
    fn finish(&mut self, commits: bool) -> Result<(), LockError> {
        let Some(mut grant) = self.grant.take() else {
            return Ok(());
        };
        if !FinishTransaction::releases(&grant, commits) {
            // The outer transaction holds the lock until it ends, which the crate does not see.
            grant.record = None;
        }
        drive_release(self.session, grant, |grant, snapshot| {
            FinishTransaction::new(grant, commits, snapshot)
        })
    }
}

impl<S: LockSession> Drop for TransactionScope<'_, S> {
    fn drop(&mut self) {
        run_in_drop(|| {
            if let Err(error) = self.finish(false) {
                release_failed(&error);
            }
        });
    }
}
