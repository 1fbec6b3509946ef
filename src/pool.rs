//! Locks on pooled connections: the traits that callers use.
//!
//! # Implementation details
//!
//! Each lock method validates the options, checks a connection out, and then does what the method
//! of the same name on a connection does. Options are validated first, because a call that cannot
//! succeed must not wait for a connection. A guard owns the pooled connection. If the session was
//! terminated, the connection is broken, and the pool discards it instead of reusing it.

#[cfg(feature = "_async")]
mod asynchronous;
mod blocking;

use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::session::{Backend, SessionError};
use crate::simulation::SimulatedLocks;

#[cfg(feature = "_async")]
pub use asynchronous::AsyncPooledAdvisoryLocking;
pub use blocking::PooledAdvisoryLocking;

/// Returns the fault that a unit test injected into the check-out of this connection.
fn injected_fault<S: ?Sized>(
    session: &mut S,
    backend: Backend,
    key: &LockKey,
) -> Result<(), SessionError> {
    let simulation = SimulatedLocks::of(session, backend);
    match simulation.and_then(|simulation| simulation.fails_checkout(key)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Converts the error of a check-out: to `Unsupported` if the pool connects to a database that the
/// crate does not support, otherwise to `Pool`.
pub(crate) fn pool_error(error: SessionError) -> LockError {
    let kind = if error.is_unsupported_backend() {
        LockErrorKind::Unsupported
    } else {
        LockErrorKind::Pool
    };
    LockError::new(kind).with_source(error.into_source())
}
