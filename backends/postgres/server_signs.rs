//! Signs of a server whose locks exclude no other session, or not those of its primary.
//!
//! # Implementation details
//!
//! The signs are settings that PostgreSQL does not have, and [`pg_is_in_recovery`]. They travel
//! with every attempt, so a failover to another server is noticed by the next one. The statement
//! evaluates them before it calls the lock function. So a refused attempt leaves nothing to
//! release, also in a transaction.
//!
//! [`pg_is_in_recovery`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-CONTROL

use crate::error::LockErrorKind;
use crate::options::AcceptedServers;

/// The sign of a server that grants every lock, as a number in a statement. Null: none.
///
/// CockroachDB shows its version in a setting. YugabyteDB without advisory locks refuses them,
/// unless a setting silences that error. Its newer releases have locks, and a setting for that.
macro_rules! stub_sign {
    () => {
        "CASE WHEN pg_catalog.current_setting('crdb_version', true) IS NOT NULL THEN 2 \
         WHEN pg_catalog.current_setting('yb_silence_advisory_locks_not_supported_error', true) \
         OPERATOR(pg_catalog.=) 'on' AND COALESCE(\
         pg_catalog.current_setting('yb_enable_advisory_locks', true), 'off') \
         OPERATOR(pg_catalog.<>) 'on' THEN 4 END"
    };
}
pub(super) use stub_sign;

/// The sign of a standby, as a number in a statement. Null: none.
macro_rules! standby_sign {
    () => {
        "CASE WHEN pg_catalog.pg_is_in_recovery() THEN 8 END"
    };
}
pub(super) use standby_sign;

/// The signs as a number, in a statement. 0: none.
macro_rules! server_signs {
    () => {
        concat!("COALESCE(", stub_sign!(), ", ", standby_sign!(), ", 0)")
    };
}
pub(super) use server_signs;

/// Signs that the locks of a server do not exclude all other sessions, as a set.
///
/// Each is a bit. No set is 0 or 1, so an attempt returns either a set or its answer.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ServerSigns(i32);

impl ServerSigns {
    /// No sign.
    pub const NONE: Self = Self(0);
    /// CockroachDB, which grants every session-level lock to every session.
    pub const COCKROACH_DB: Self = Self(2);
    /// YugabyteDB without advisory locks, whose error about that is silenced. It grants every lock
    /// to every session.
    pub const SILENCED_YUGABYTE_DB: Self = Self(4);
    /// The servers that grant every lock to every session.
    pub(crate) const STUBS: Self = Self::COCKROACH_DB.union(Self::SILENCED_YUGABYTE_DB);
    /// A hot standby, whose locks are not those of its primary.
    pub const STANDBY: Self = Self(8);

    /// Returns the signs that the options refuse.
    pub(crate) const fn refused(accepted: AcceptedServers) -> Self {
        let mut refused = Self::NONE;
        if !accepted.trusted {
            refused = refused.union(Self::STUBS);
        }
        if !accepted.standby {
            refused = refused.union(Self::STANDBY);
        }
        refused
    }

    /// Returns the set of these bits.
    pub(crate) const fn from_bits(bits: i32) -> Self {
        Self(bits)
    }

    /// Returns the set as bits.
    pub(crate) const fn bits(self) -> i32 {
        self.0
    }

    /// Returns the signs of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the signs of both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the kind and the context of the error about a refused server. `None` without signs.
    pub(crate) fn error(self) -> Option<(LockErrorKind, &'static str)> {
        let has = |sign| self.intersection(sign) != Self::NONE;
        if has(Self::COCKROACH_DB) {
            Some((
                LockErrorKind::NoMutualExclusion,
                "CockroachDB grants every session-level lock to every session; \
                 use another server, or set `trust_server` for locks that are known to work",
            ))
        } else if has(Self::SILENCED_YUGABYTE_DB) {
            Some((
                LockErrorKind::NoMutualExclusion,
                "this YugabyteDB grants every lock to every session, because \
                 yb_silence_advisory_locks_not_supported_error is on; \
                 enable its advisory locks (yb_enable_advisory_locks)",
            ))
        } else if has(Self::STANDBY) {
            Some((
                LockErrorKind::Standby,
                "connect to the primary, or set `allow_standby` \
                 if only sessions of this standby use the lock",
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_has_an_error() {
        assert_eq!(ServerSigns::NONE.error(), None);
        for (signs, kind) in [
            (ServerSigns::COCKROACH_DB, LockErrorKind::NoMutualExclusion),
            (
                ServerSigns::SILENCED_YUGABYTE_DB,
                LockErrorKind::NoMutualExclusion,
            ),
            (ServerSigns::STANDBY, LockErrorKind::Standby),
        ] {
            assert_eq!(signs.error().map(|(kind, _)| kind), Some(kind));
        }
    }
}
