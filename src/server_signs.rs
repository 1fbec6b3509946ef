//! Signs of a server whose locks exclude no other session, or not those of its primary:
//! [`ServerSigns`].

use crate::error::LockErrorKind;

/// Signs that the locks of a server do not exclude all other sessions, as a set.
///
/// Each is a bit. No sign is 0 or 1, so an attempt returns either signs or its answer.
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
    /// Every sign.
    pub(crate) const ALL: Self = Self::STUBS.union(Self::STANDBY);

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

    /// Returns the signs that are not in the other set.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
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
