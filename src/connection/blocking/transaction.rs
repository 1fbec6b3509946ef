//! A transaction around a body, with its lock.

use crate::combine_results::combine_results;
use crate::driver::blocking::{drive, in_drop, snapshot};
use crate::error::LockError;
use crate::events::{granted, log_requested, release_failed};
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::options::LockScope;
use crate::protocol::{Acquired, BeginAndAcquire, BodyOutcome, FinishTransaction, Grant};
use crate::session::LockSession;

/// Begins a transaction and takes its lock.
pub(super) fn enter<S: LockSession>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
) -> Result<Acquired, LockError> {
    log_requested(key, LockScope::Transaction);
    let snapshot = snapshot(session);
    drive(
        session,
        BeginAndAcquire::new(key.clone(), options, snapshot),
    )
}

/// Runs a body in the transaction that [`enter`] began, and ends it.
pub(super) fn run_in<S, T, E>(
    session: &mut S,
    grant: Grant,
    body: impl FnOnce(&mut S) -> Result<T, E>,
) -> Result<T, E>
where
    S: LockSession,
    E: From<LockError>,
{
    let mut scope = Scope {
        session,
        grant: Some(grant),
    };
    scope.grant.iter().for_each(granted);
    let result = body(scope.session);
    let ending = if result.is_ok() {
        BodyOutcome::Succeeded
    } else {
        BodyOutcome::Failed
    };
    combine_results(result, scope.leave(ending))
}

/// The open transaction; rolled back if the body panics.
struct Scope<'s, S: LockSession> {
    session: &'s mut S,
    grant: Option<Grant>,
}

impl<S: LockSession> Scope<'_, S> {
    fn leave(&mut self, ending: BodyOutcome) -> Result<(), LockError> {
        let Some(grant) = self.grant.take() else {
            return Ok(());
        };
        let snapshot = snapshot(self.session);
        drive(
            self.session,
            FinishTransaction::new(grant, ending, snapshot),
        )
    }
}

impl<S: LockSession> Drop for Scope<'_, S> {
    fn drop(&mut self) {
        in_drop(|| {
            if let Err(error) = self.leave(BodyOutcome::Failed) {
                release_failed(&error);
            }
        });
    }
}
