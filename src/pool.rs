//! Locks from a pool: the traits that callers use.

#[cfg(feature = "_async")]
mod asynchronous;
mod blocking;

#[cfg(feature = "_async")]
pub use asynchronous::AsyncPooledAdvisoryLocking;
pub use blocking::PooledAdvisoryLocking;
#[cfg(feature = "lock-manager")]
pub(crate) use blocking::pool_error;
