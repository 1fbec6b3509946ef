//! What a connection can do: [`Capabilities`].

use crate::session::Backend;

/// What a connection's backend can do, for a program that wants to know before it relies on it.
///
/// # Examples
///
/// Refusing to start in production on a database that excludes nobody:
///
/// ```
/// # #[cfg(feature = "rusqlite")] {
/// use advisory_locking::AdvisoryLocking;
///
/// let mut conn = rusqlite::Connection::open_in_memory().unwrap();
/// assert!(!conn.capabilities().provides_mutual_exclusion());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capabilities {
    backend: Backend,
}

impl Capabilities {
    pub(crate) const fn of(backend: Backend) -> Self {
        Self { backend }
    }

    /// Which database answers.
    #[must_use]
    pub const fn backend(self) -> Backend {
        self.backend
    }

    /// Whether a granted lock keeps anybody out. `false` on SQLite, where the body always runs.
    #[must_use]
    pub const fn provides_mutual_exclusion(self) -> bool {
        match self.backend {
            Backend::Postgres => true,
            Backend::Sqlite => false,
        }
    }
}
