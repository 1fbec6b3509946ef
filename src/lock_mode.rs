//! [`LockMode`].

/// Lock mode: exclusive or shared. Names and meaning are those of [PostgreSQL's
/// functions](https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS).
#[expect(
    clippy::exhaustive_enums,
    reason = "PostgreSQL has exactly these two modes"
)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum LockMode {
    /// No other session holds the lock in any mode.
    #[default]
    Exclusive,
    /// Other sessions may hold the lock in shared mode, and none in exclusive mode.
    Shared,
}

impl LockMode {
    /// Returns the name in logs and metrics: `exclusive` or `shared`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}
