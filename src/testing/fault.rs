//! Faults on demand.

use crate::options::LockScope;
use crate::session::{SessionError, SqlState};

/// Something that goes wrong with a lock on PostgreSQL, for [`TestLocks::inject_fault`](super::TestLocks::inject_fault).
///
/// Each strikes where it does on a server, and then is used up.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fault {
    /// The next call is cancelled: [`Canceled`](crate::LockErrorKind::Canceled).
    Canceled,
    /// The next call fails for a reason of the database's: [`Database`](crate::LockErrorKind::Database).
    Database,
    /// The next wait in the server's queue ([`WaitStrategy::Block`](crate::WaitStrategy::Block)) is ended as a deadlock:
    /// [`Deadlock`](crate::LockErrorKind::Deadlock). Until then the lock is busy, so a call that polls runs into its limit, as two that
    /// poll for each other's lock do on PostgreSQL.
    Deadlock,
    /// The session ends while the next holder has the lock. The release of a session-level lock reports
    /// [`Lost`](crate::LockErrorKind::Lost), a transaction of `with_advisory_xact_lock`
    /// [`CommitFailed`](crate::LockErrorKind::CommitFailed) if its body succeeded; it is rolled back. The connection is condemned.
    Lost,
    /// Something else gives back the next holder's session-level lock: its release reports
    /// [`NotHeld`](crate::LockErrorKind::NotHeld).
    NotHeld,
    /// A pool gives no connection for the next call: [`Pool`](crate::LockErrorKind::Pool). Calls on a connection are not touched.
    Pool,
    /// Another session answers the release of the next holder's session-level lock:
    /// [`SessionChanged`](crate::LockErrorKind::SessionChanged).
    SessionChanged,
    /// The lock table is full at the next call: [`TooManyLocks`](crate::LockErrorKind::TooManyLocks).
    TooManyLocks,
}

impl Fault {
    /// Whether it strikes a call that asks; with its code.
    pub(super) fn acquire_error(self) -> Option<SessionError> {
        let (code, what) = match self {
            Self::Canceled => ("57014", "canceled"),
            Self::Database => ("XX000", "failed"),
            Self::TooManyLocks => ("53200", "out of shared memory"),
            Self::Deadlock | Self::Lost | Self::NotHeld | Self::Pool | Self::SessionChanged => {
                return None;
            }
        };
        Some(server_error(code, what))
    }

    /// Whether it strikes a holder.
    pub(super) const fn applies_to_holder(self, scope: LockScope) -> bool {
        match self {
            Self::Lost => true,
            Self::NotHeld | Self::SessionChanged => matches!(scope, LockScope::Session),
            Self::Canceled | Self::Database | Self::Deadlock | Self::Pool | Self::TooManyLocks => {
                false
            }
        }
    }
}

/// As a server would report it. The code alone tells what it is; the text says that a test request it.
pub(super) fn server_error(code: &str, what: &str) -> SessionError {
    SessionError::new(format!("the test's locks: {what}")).with_code(SqlState::new(code))
}
