//! Locks on one connection: the traits that callers use, the guards, and transactions around a
//! body.
//!
//! # Implementation details
//!
//! Each trait method names a machine of the module `protocol`. A driver logs the request, takes a
//! snapshot of the session, and runs the machine. A grant becomes a guard, which owns the
//! connection until the release. `combine_results` combines the results of the body and of the
//! release. Therefore a method that runs a body never returns while its session-level lock is held
//! on the connection.

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

#[cfg(test)]
mod tests;
