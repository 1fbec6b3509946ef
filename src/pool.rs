//! Locks on pooled connections: the traits that callers use.
//!
//! # Implementation details
//!
//! Each method validates the options, checks a connection out, and then does what the method of the
//! same name on a connection does. A guard owns the pooled connection. If the session was
//! terminated, the connection is broken, and the pool discards it instead of reusing it.

#[cfg(feature = "_async")]
mod asynchronous;
mod blocking;

#[cfg(feature = "_async")]
pub use asynchronous::AsyncPooledAdvisoryLocking;
pub use blocking::PooledAdvisoryLocking;
#[cfg(feature = "lock-manager")]
pub(crate) use blocking::pool_error;
