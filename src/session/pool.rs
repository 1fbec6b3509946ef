//! The ports that pools implement.

use std::ops::DerefMut;

#[cfg(feature = "_async")]
use super::AsyncLockSession;
use super::{LockSession, SessionError};

/// A pool of connections, as the locking protocol sees it.
///
/// # Contract
///
/// For those who implement it: [`checkout`](Self::checkout) hands out a connection that nobody else uses until it is dropped, and
/// dropping a connection that was [condemned](LockSession::session_terminate) closes it, if it has a session to close.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no pool of connections with advisory locks here",
    label = "no lock pool",
    note = "enable the features for its client library and its pool in Cargo.toml: see feature-matrix.md"
)]
pub trait LockPool {
    /// A connection.
    type Session: LockSession;
    /// A connection that is checked out.
    type Connection: DerefMut<Target = Self::Session>;

    /// Checks a connection out.
    ///
    /// # Errors
    ///
    /// As the pool reports them.
    fn checkout(&self) -> Result<Self::Connection, SessionError>;
}

#[cfg(feature = "_async")]
/// An async pool of connections: the twin of [`LockPool`], with its contract.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no async pool of connections with advisory locks here",
    label = "no async lock pool",
    note = "enable the features for its client library and its pool in Cargo.toml: see feature-matrix.md"
)]
pub trait AsyncLockPool: Sync {
    /// A connection.
    type Session: AsyncLockSession;
    /// A connection that is checked out.
    type Connection: DerefMut<Target = Self::Session> + Send;

    /// Checks a connection out.
    fn checkout(&self) -> impl Future<Output = Result<Self::Connection, SessionError>> + Send;
}
