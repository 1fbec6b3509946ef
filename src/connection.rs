//! Locks on one connection: the traits that callers use, the guards, and transactions around a
//! body.
//!
//! # Implementation details
//!
//! Each trait method logs the request, takes a snapshot of the session, and hands a machine of the
//! module `protocol` to a driver. A grant becomes a guard, which owns the connection until the
//! release. The result of the body and the result of the release become one by `combine_results`.
//! Therefore no method returns while the crate holds a lock that the caller does not know of.

#[cfg(feature = "_async")]
mod async_guard;
#[cfg(feature = "_async")]
mod asynchronous;
mod blocking;
mod guard;

#[cfg(feature = "_async")]
pub use async_guard::AsyncAdvisoryLockGuard;
#[cfg(feature = "_async")]
pub use asynchronous::AsyncAdvisoryLocking;
#[cfg(feature = "_async")]
pub(crate) use asynchronous::{acquire as acquire_async, run_with_guard as run_with_guard_async};
pub use blocking::AdvisoryLocking;
pub(crate) use blocking::{acquire, run_with_guard};
pub use guard::AdvisoryLockGuard;
