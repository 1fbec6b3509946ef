//! Injected faults.

use crate::options::LockScope;
use crate::session::{SessionError, SqlState};

/// Fault of a lock on PostgreSQL, for [`TestLocks::inject_fault`](super::TestLocks::inject_fault).
///
/// Each fault applies once, at the point where it occurs on a server. A call for a
/// transaction-level lock in an open transaction is no holder.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fault {
    /// The server cancels the next call: [`Canceled`](crate::LockErrorKind::Canceled).
    Canceled,
    /// The next call fails with a database error: [`Database`](crate::LockErrorKind::Database), or
    /// [`TransactionAborted`](crate::LockErrorKind::TransactionAborted) for a transaction-level
    /// lock.
    Database,
    /// The next wait in the server's queue ([`WaitStrategy::Block`](crate::WaitStrategy::Block))
    /// ends as a deadlock: [`Deadlock`](crate::LockErrorKind::Deadlock). Until then the lock is
    /// contended. A call that polls runs into its limit, as two clients do on PostgreSQL that poll
    /// for each other's lock.
    Deadlock,
    /// The session ends while the next holder has the lock, and loses all its locks. A request
    /// before the release fails with [`Database`](crate::LockErrorKind::Database). The release of a
    /// session-level lock returns [`Lost`](crate::LockErrorKind::Lost). `with_advisory_xact_lock`
    /// rolls back, and returns [`CommitFailed`](crate::LockErrorKind::CommitFailed) if its body
    /// succeeded. On a server, clients that hide the SQLSTATE, such as Diesel, return
    /// [`CommitUnknown`](crate::LockErrorKind::CommitUnknown) then. The pool discards the
    /// connection, except those of rusqlite and sqlx, which have no mark for that.
    Lost,
    /// Another statement releases the next holder's session-level lock. Its release returns
    /// [`NotHeld`](crate::LockErrorKind::NotHeld).
    NotHeld,
    /// The pool returns no connection for the next call: [`Pool`](crate::LockErrorKind::Pool).
    /// Calls on a connection are not affected.
    Pool,
    /// Another session replies to the release of the next holder's session-level lock:
    /// [`SessionChanged`](crate::LockErrorKind::SessionChanged).
    SessionChanged,
    /// The limit of the next call that has one passes at once, as if another session held the lock:
    /// [`TimedOut`](crate::LockErrorKind::TimedOut). The test does not wait.
    TimedOut,
    /// The lock table is full at the next call:
    /// [`TooManyLocks`](crate::LockErrorKind::TooManyLocks).
    TooManyLocks,
}

impl Fault {
    /// Returns the server error if the fault applies to an acquire call.
    pub(super) fn acquire_error(self) -> Option<SessionError> {
        let (code, message) = match self {
            Self::Canceled => ("57014", "canceled"),
            Self::Database => ("XX000", "failed"),
            Self::TooManyLocks => ("53200", "out of shared memory"),
            Self::Deadlock
            | Self::Lost
            | Self::NotHeld
            | Self::Pool
            | Self::SessionChanged
            | Self::TimedOut => return None,
        };
        Some(server_error(code, message))
    }

    /// Returns `true` if the fault applies to a holder.
    pub(super) const fn applies_to_holder(self, scope: LockScope) -> bool {
        match self {
            Self::Lost => true,
            Self::NotHeld | Self::SessionChanged => matches!(scope, LockScope::Session),
            Self::Canceled
            | Self::Database
            | Self::Deadlock
            | Self::Pool
            | Self::TimedOut
            | Self::TooManyLocks => false,
        }
    }
}

/// Returns the error of a server. The SQLSTATE determines its kind; the text marks it as injected.
pub(super) fn server_error(code: &str, message: &str) -> SessionError {
    SessionError::new(format!("simulated lock: {message}")).with_code(SqlState::new(code))
}
