//! A transaction around a body, with its lock.

use crate::error::LockError;
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::protocol::blocking::{drive, in_drop, situation};
use crate::protocol::{Acquired, Ending, Enter, Grant, Leave, Level};
use crate::report::{asking, granted, release_failed, settle};
use crate::session::LockSession;

/// Begins a transaction and takes its lock.
pub(super) fn enter<S: LockSession>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
) -> Result<Acquired, LockError> {
    asking(key, Level::Transaction);
    let situation = situation(session);
    drive(session, Enter::new(key.clone(), options, situation))
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
        Ending::Succeeded
    } else {
        Ending::Failed
    };
    settle(result, scope.leave(ending))
}

/// The open transaction; rolled back if the body panics.
struct Scope<'s, S: LockSession> {
    session: &'s mut S,
    grant: Option<Grant>,
}

impl<S: LockSession> Scope<'_, S> {
    fn leave(&mut self, ending: Ending) -> Result<(), LockError> {
        let Some(grant) = self.grant.take() else {
            return Ok(());
        };
        let situation = situation(self.session);
        drive(self.session, Leave::new(grant, ending, situation))
    }
}

impl<S: LockSession> Drop for Scope<'_, S> {
    fn drop(&mut self) {
        in_drop(|| {
            if let Err(error) = self.leave(Ending::Failed) {
                release_failed(&error);
            }
        });
    }
}
