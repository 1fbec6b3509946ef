//! Drivers of the protocol's machines: one for blocking sessions, one for async sessions.

#[cfg(feature = "_async")]
pub(crate) mod asynchronous;
pub(crate) mod blocking;
