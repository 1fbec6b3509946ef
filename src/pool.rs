//! Locks on pooled connections: the traits that callers use.
//!
//! # Implementation details
//!
//! Each lock method validates the options, checks a connection out, and then does what the method
//! of the same name on a connection does. Options are validated first, because a call that cannot
//! succeed must not wait for a connection. A guard owns the pooled connection. If the session was
//! terminated, the connection is broken, and the pool discards it instead of reusing it.
//!
//! The limit of a call begins before the checkout, and the request for the lock gets the rest. An
//! async checkout is dropped at the limit, after which its connection stays with the pool. A
//! blocking pool receives the limit as the timeout of the checkout.

#[cfg(feature = "_async")]
mod asynchronous;
mod blocking;

use std::time::{Duration, Instant};

use crate::error::{LockError, LockErrorKind};
use crate::events::RequestRecord;
use crate::key::LockKey;
use crate::options::{LockOptions, LockScope};
use crate::session::SessionError;

#[cfg(feature = "lock-manager")]
pub(crate) use asynchronous::checkout_within;
#[cfg(feature = "_async")]
pub use asynchronous::{AsyncPooledAdvisoryLockGuard, AsyncPooledAdvisoryLocking};
pub use blocking::{PooledAdvisoryLockGuard, PooledAdvisoryLocking};

/// Converts the error of a checkout: to `Unsupported` if the pool connects to a database that the
/// crate does not support, otherwise to `Pool`.
pub(crate) fn pool_error(error: SessionError) -> LockError {
    if !error.is_unsupported_backend() {
        return LockError::new(LockErrorKind::Pool).with_source(error.into_source());
    }
    let source = error.into_source();
    LockError::new(LockErrorKind::Unsupported)
        .with_context(source.to_string())
        .with_source(source)
}

/// Least time of a checkout under a limit. The limit bounds waits, and a checkout without a wait
/// may still open a connection, or check an idle one by a round trip.
pub(crate) const MIN_CHECKOUT: Duration = Duration::from_millis(100);

/// Longest checkout of the second connection of the pooler check, as most pools wait by default. A
/// pool of one connection cannot return it, and deadpool waits for it without a limit.
const SECOND_CHECKOUT: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 30 });

/// Returns the limit of a checkout. `None`: only the pool's own timeout.
fn checkout_limit(options: &LockOptions) -> Option<Duration> {
    options
        .limit()
        .filter(|limit| !limit.is_zero())
        .map(|limit| limit.max(MIN_CHECKOUT))
}

/// Request without a connection. Its events are sent if it ends there: by an error, by the drop of
/// its future or by a panic of the pool.
struct UnconnectedRequest<'c> {
    key: &'c LockKey,
    options: &'c LockOptions,
    scope: LockScope,
    began: Instant,
    has_ended: bool,
}

impl<'c> UnconnectedRequest<'c> {
    /// Begins a request. Fails if the options are not valid: a call that cannot succeed must not
    /// wait for a connection.
    fn new(
        key: &'c LockKey,
        options: &'c LockOptions,
        scope: LockScope,
    ) -> Result<Self, LockError> {
        let request = Self {
            key,
            options,
            scope,
            began: Instant::now(),
            has_ended: false,
        };
        match options.validate(key, scope) {
            Ok(()) => Ok(request),
            Err(error) => request.ended(Err(error)),
        }
    }

    /// Completes a checkout: returns the connection and the options for the rest of the call.
    fn checked_out<C>(
        self,
        checked_out: Result<C, SessionError>,
    ) -> Result<(C, LockOptions), LockError> {
        let (key, options, waited) = (self.key, self.options, self.began.elapsed());
        self.ended(match checked_out {
            Ok(conn) => Ok((conn, options.with_elapsed(waited))),
            Err(error) => {
                let error = pool_error(error).with_key(key);
                Err(match error.kind() {
                    LockErrorKind::Pool => error.with_wait(options.limit(), waited),
                    _ => error,
                })
            }
        })
    }

    /// Ends with a connection, on which the request goes on, or with an error.
    fn ended<C>(mut self, connection: Result<C, LockError>) -> Result<C, LockError> {
        self.has_ended = true;
        connection.inspect_err(|error| {
            RequestRecord::failed(self.key, self.options, self.scope, self.began, error);
        })
    }
}

impl Drop for UnconnectedRequest<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let (key, options) = (self.key, self.options);
            drop(RequestRecord::new(
                key, options, self.scope, None, self.began,
            ));
        }
    }
}

#[cfg(test)]
mod tests;
