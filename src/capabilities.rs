//! Features of a backend: [`Capabilities`].

use crate::session::Backend;

/// Features of the backend of a connection.
///
/// # Examples
///
/// A program can refuse to start on a database without mutual exclusion:
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

    /// Returns the database of the connection.
    #[must_use]
    pub const fn backend(self) -> Backend {
        self.backend
    }

    /// Returns `true` on PostgreSQL, where a granted lock excludes other sessions; `false` on
    /// SQLite, where every request is granted.
    ///
    /// It sends nothing, so it is `true` also on a server that only resembles PostgreSQL. The call
    /// [`identify`](crate::AdvisoryLocking::identify) checks the server itself.
    #[must_use]
    pub const fn provides_mutual_exclusion(self) -> bool {
        self.backend.provides_mutual_exclusion()
    }
}
