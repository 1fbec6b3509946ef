//! Names of error kinds for metrics and filters: [`LockErrorKind::name`].

use super::LockErrorKind;

impl LockErrorKind {
    /// Returns the name in snake case, such as `held_elsewhere`. It does not change between
    /// releases.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Canceled => "canceled",
            Self::Closed => "closed",
            Self::CommitFailed => "commit_failed",
            Self::CommitUnknown => "commit_unknown",
            Self::Database => "database",
            Self::Deadlock => "deadlock",
            Self::HeldElsewhere => "held_elsewhere",
            Self::InTransaction => "in_transaction",
            Self::InvalidKey => "invalid_key",
            Self::InvalidOptions => "invalid_options",
            Self::Lost => "lost",
            Self::NoMutualExclusion => "no_mutual_exclusion",
            Self::NotHeld => "not_held",
            Self::NotInTransaction => "not_in_transaction",
            Self::Pool => "pool",
            Self::SessionChanged => "session_changed",
            Self::Standby => "standby",
            Self::TimedOut => "timed_out",
            Self::TooManyLocks => "too_many_locks",
            Self::TransactionAborted => "transaction_aborted",
            Self::TransactionPrepared => "transaction_prepared",
            Self::TransactionLeftOpen => "transaction_left_open",
            Self::Unsupported => "unsupported",
        }
    }
}
