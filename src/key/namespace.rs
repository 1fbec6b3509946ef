//! Keys that share their first parts.

use super::derive::Derivation;
use super::{KeyPart, LockKey};

/// First parts that many keys share, such as the name of a service, of a tenant, or of a test.
///
/// All locks of a database share its two key spaces. A namespace keeps the names of one service
/// apart from those of another, and of one test from those of another that runs beside it. It is
/// nothing but a first part: `KeyNamespace::new("billing").key("report")` equals
/// `LockKey::from(("billing", "report"))`.
///
/// # Examples
///
/// ```
/// use advisory_locking::{KeyNamespace, LockKey};
///
/// let billing = KeyNamespace::new("billing");
/// assert_eq!(billing.key("report"), LockKey::from(("billing", "report")));
/// assert_eq!(billing.within("eu").key(7), LockKey::from(("billing", "eu", 7)));
/// ```
#[derive(Clone, Debug)]
pub struct KeyNamespace {
    derivation: Derivation,
}

impl KeyNamespace {
    /// Returns a namespace of one part.
    #[must_use]
    pub fn new(name: impl KeyPart) -> Self {
        Self {
            derivation: Derivation::new(),
        }
        .within(name)
    }

    /// Returns the namespace with one more part.
    #[must_use]
    pub fn within(&self, name: impl KeyPart) -> Self {
        let mut derivation = self.derivation.clone();
        derivation.add(&name);
        Self { derivation }
    }

    /// Returns the key of `name` in this namespace.
    #[must_use]
    pub fn key(&self, name: impl KeyPart) -> LockKey {
        self.within(name).derivation.finish()
    }
}
