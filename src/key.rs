//! [`LockKey`], the key of a lock, and the ways to make one.

mod derive;
mod display;
mod from;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzzer looks for panics"
)]
pub(crate) mod fuzz;
mod namespace;
mod part;
mod pg_locks;

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub use display::ParseLockKeyError;
pub use namespace::KeyNamespace;
pub(crate) use part::is_unsafe_in_log;
pub use part::{KeyPart, KeyText};
pub use pg_locks::PgLocksColumns;

/// The integers that name a lock on the server: its key space and its value.
///
/// PostgreSQL has [two key spaces that do not overlap]: `pg_advisory_lock(5)` and
/// `pg_advisory_lock(0, 5)` are two locks, although their 64 bits are equal.
///
/// [two key spaces that do not overlap]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADVISORY-LOCKS
#[expect(
    clippy::exhaustive_enums,
    reason = "PostgreSQL has exactly these two key spaces"
)]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RawLockKey {
    /// One signed 64-bit number; the whole range is valid.
    Single(i64),
    /// A pair of signed 32-bit numbers; the whole range of each is valid.
    Pair(i32, i32),
}

/// The name of a lock: integers for the server, and the text that they were derived from, for logs.
///
/// Two keys are equal if their [`RawLockKey`]s are equal. The text appears only in logs and errors.
/// Only the integers are sent to a server, so every text is a valid key: empty, with NUL, megabytes
/// long, in any script. The derivation does not trim, fold or normalise: `"a"` and `"a "` are two
/// locks, and so are the composed and the decomposed `é`.
///
/// # Shape and units
///
/// | made from | key space | number |
/// |---|---|---|
/// | text: `"nightly-report"` | one `i64` | derived, see below |
/// | parts: `("sync", client_id)`, up to six, the first a text | one `i64` | derived; integers count as their decimal text |
/// | [`LockKey::from_parts`], [`LockKey::from_bytes`], [`KeyNamespace`] | one `i64` | derived |
/// | `i64`: `42_i64` | one `i64` | as it is |
/// | `(i32, i32)`: `(1, 2)` | a pair of `i32` | as they are |
/// | a function of the module `schemes` (a feature) | that of the other system | that of the other system |
///
/// A `u64` or a `u32` alone is no key. Name what the lock protects, `("sync", client_id)`, or
/// convert the number to `i64`. A part of a foreign type, such as a UUID, is its text:
/// `("order", id.to_string())`.
///
/// # The derivation
///
/// The derivation never changes, so that all releases of a service, and programs in other
/// languages, exclude each other:
///
/// 1. The hash is [BLAKE3] in derive-key mode with the context string
///    `advisory-locking 2026-11-21 lock key v1`.
/// 2. The input is, for every part, its length in bytes as a little-endian `u64`, then its bytes.
///    The length keeps `("ab", "c")` and `("a", "bc")` apart.
/// 3. The key is the first eight bytes of the output as a little-endian `i64`.
///
/// Among ten million names, the probability that some two share a key is about three in a million.
/// Two names with one key wait for each other needlessly; a collision never breaks exclusion.
///
/// [BLAKE3]: https://github.com/BLAKE3-team/BLAKE3-specs
///
/// # Examples
///
/// ```
/// use advisory_locking::{RawLockKey, LockKey};
///
/// let key = LockKey::from("driver_update_1");
/// assert_eq!(key.raw(), RawLockKey::Single(-7_798_007_558_259_134_978));
/// assert_eq!(LockKey::from(("sync", 4)), LockKey::from(("sync", "4")));
/// assert_eq!(LockKey::from((1, 2)).raw(), RawLockKey::Pair(1, 2));
/// assert_eq!(LockKey::from(42).raw(), RawLockKey::Single(42));
/// ```
#[derive(Clone)]
pub struct LockKey {
    raw: RawLockKey,
    /// Absent for keys made from integers and for redacted keys. Shortened by
    /// [`part::Label`].
    text: Option<Arc<str>>,
}

impl LockKey {
    const fn from_raw(raw: RawLockKey) -> Self {
        Self { raw, text: None }
    }

    /// A key with the text that it was derived from, for logs.
    #[cfg(feature = "schemes")]
    pub(crate) fn from_raw_with_text(raw: RawLockKey, bytes: &[u8]) -> Self {
        let mut label = part::Label::default();
        label.append(bytes);
        Self {
            raw,
            text: Some(label.into_text().into()),
        }
    }

    /// Derives the key of a sequence of parts of one type.
    ///
    /// For parts of several types, use a tuple (`("sync", 4)`) or a [`KeyNamespace`]. No parts at
    /// all are a valid key too, different from that of one empty text.
    ///
    /// # Examples
    ///
    /// ```
    /// use advisory_locking::LockKey;
    ///
    /// assert_eq!(LockKey::from_parts(["sync", "4"]), LockKey::from(("sync", 4)));
    /// assert_ne!(LockKey::from_parts(["ab", "c"]), LockKey::from_parts(["a", "bc"]));
    /// ```
    #[must_use]
    pub fn from_parts<P: KeyPart>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut derivation = derive::Derivation::new();
        for part in parts {
            derivation.add(&part);
        }
        derivation.finish()
    }

    /// Derives the key of bytes that need not be UTF-8, such as a path or a digest.
    ///
    /// Equal to the key of the same bytes given as text.
    ///
    /// # Examples
    ///
    /// ```
    /// use advisory_locking::LockKey;
    ///
    /// assert_eq!(LockKey::from_bytes(b"report"), LockKey::from("report"));
    /// assert_ne!(LockKey::from_bytes(b"\xff"), LockKey::from("\u{fffd}"));
    /// ```
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_parts([bytes])
    }

    /// Returns the integers that the server sees.
    #[must_use]
    pub const fn raw(&self) -> RawLockKey {
        self.raw
    }

    /// Returns the text that the key was derived from, for logs. `None` for keys made from integers
    /// and for [redacted](Self::redacted) keys.
    ///
    /// Parts are joined with `/`, or as another system's scheme joins them. Control characters,
    /// line separators, changes of the direction of text, quotes and back-slashes are escaped. The
    /// text is shortened to about 120 bytes.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Returns the same key without its text, so that logs, errors and reports show its number
    /// only.
    ///
    /// For texts that must not be logged, such as an e-mail address. The number is a hash without a
    /// secret: it does not show the text, but a reader who guesses the text can verify the guess.
    ///
    /// # Examples
    ///
    /// ```
    /// use advisory_locking::LockKey;
    ///
    /// let key = LockKey::from(("signup", "ann@example.org"));
    /// let redacted = key.redacted();
    /// assert_eq!(redacted, key); // the same lock
    /// assert!(key.to_string().contains("ann"));
    /// assert_eq!(redacted.text(), None);
    /// ```
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self::from_raw(self.raw)
    }
}

impl PartialEq for LockKey {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for LockKey {}

impl Hash for LockKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.hash(state);
    }
}

/// By key space, so that callers can take several locks in one order.
impl Ord for LockKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.raw.cmp(&other.raw)
    }
}

impl PartialOrd for LockKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
