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
