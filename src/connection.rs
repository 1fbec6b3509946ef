//! Locks on one connection: the traits that callers use, the guards, and the transactions around a body.

#[cfg(feature = "_async")]
mod async_body;
#[cfg(feature = "_async")]
mod async_guard;
#[cfg(feature = "_async")]
mod asynchronous;
mod blocking;
mod guard;

#[cfg(feature = "_async")]
pub use async_body::AsyncBody;
#[cfg(feature = "_async")]
pub use async_guard::AsyncAdvisoryLockGuard;
#[cfg(feature = "_async")]
pub use asynchronous::AsyncAdvisoryLocking;
#[cfg(feature = "_async")]
pub(crate) use asynchronous::{acquire as acquire_async, run_with_guard as run_with_guard_async};
pub use blocking::AdvisoryLocking;
pub(crate) use blocking::{acquire, run_with_guard};
pub use guard::AdvisoryLockGuard;
