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
use crate::session::SessionError;

#[cfg(feature = "_async")]
pub use asynchronous::AsyncPooledAdvisoryLocking;
pub use blocking::PooledAdvisoryLocking;

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
