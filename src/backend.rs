//! [`Backend`].

/// Database behind a session.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Backend {
    /// PostgreSQL, which has advisory locks.
    Postgres,
    /// SQLite, which has no locks; see [`OnMissingLock`](crate::OnMissingLock).
    Sqlite,
}

impl Backend {
    /// Returns `true` if a granted lock excludes other sessions.
    pub(crate) const fn provides_mutual_exclusion(self) -> bool {
        match self {
            Self::Postgres => true,
            Self::Sqlite => false,
        }
    }
}
