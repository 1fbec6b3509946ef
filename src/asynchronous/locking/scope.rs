//! A transaction around an async body, with its lock.

use super::super::driver::{drive, situation};
use super::super::{AsyncBody, AsyncLockSession};
use crate::error::LockError;
use crate::key::LockKey;
use crate::options::LockOptions;
use crate::protocol::{Acquired, Ending, Enter, Grant, Leave, Level};
use crate::report::{asking, granted, settle};

/// Begins a transaction and takes its lock.
pub(super) async fn enter<S: AsyncLockSession>(
    session: &mut S,
    key: &LockKey,
    options: &LockOptions,
) -> Result<Acquired, LockError> {
    asking(key, Level::Transaction);
    let situation = situation(session);
    drive(session, Enter::new(key.clone(), options, situation)).await
}

/// Runs a body in the transaction that [`enter`] began, and ends it.
pub(super) async fn run_in<S, T, E, F>(session: &mut S, grant: Grant, body: F) -> Result<T, E>
where
    S: AsyncLockSession,
    for<'r> F: AsyncFnOnce(&'r mut S) -> Result<T, E>
        + AsyncBody<&'r mut S, Result<T, E>, Fut: Send>
        + Send,
    E: From<LockError> + Send,
    T: Send,
{
    let mut scope = Scope {
        session,
        open: true,
    };
    granted(&grant);
    let result = body(scope.session).await;
    scope.open = false;
    let ending = if result.is_ok() {
        Ending::Succeeded
    } else {
        Ending::Failed
    };
    let situation = situation(scope.session);
    settle(
        result,
        drive(scope.session, Leave::new(grant, ending, situation)).await,
    )
}

/// The open transaction. There is no waiting for a rollback in a drop, so a body that is dropped or panics costs the connection.
struct Scope<'s, S: AsyncLockSession> {
    session: &'s mut S,
    open: bool,
}

impl<S: AsyncLockSession> Drop for Scope<'_, S> {
    fn drop(&mut self) {
        if self.open {
            self.session.abandon();
        }
    }
}
