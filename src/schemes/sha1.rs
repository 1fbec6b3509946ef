//! Keys that begin a SHA-1: of snippets, and of PALs.

use sha1::digest::consts::U8;
use sha1::{Digest, Sha1};

use super::single;
use crate::LockKey;

/// The first eight bytes of the SHA-1 of a text, read as little-endian.
pub(super) fn first_eight(text: &str) -> i64 {
    let (first, _) = Sha1::digest(text).split::<U8>();
    i64::from_le_bytes(first.into())
}

/// The first eight bytes of the SHA-1 of the UTF-8 bytes, little-endian: Python snippets with
/// `struct.unpack('q', …)`.
///
/// Source: `struct.unpack("q", hashlib.sha1(name.encode()).digest()[:8])`, as published in
/// articles. [`pals`] without an application name is the same, and so are the names that
/// [`distributed_lock`](super::distributed_lock) hashes.
///
/// **Dangerous:** `'q'` is the byte order of the machine; this is what x86-64 and arm64 compute.
/// SHA-1 is broken: a user who chooses names can construct two with one key, which costs a needless
/// wait.
///
/// # Shape and units
///
/// One `i64`, the whole range; 2⁶⁴ keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::sha1_le("PR-1234"), LockKey::from(4_944_533_737_389_450_435));
/// ```
#[must_use]
pub fn sha1_le(name: &str) -> LockKey {
    single(first_eight(name), name)
}

/// The key of [`sha1_le`] of an application's name, a full stop, and the lock's name: PALs for
/// Python.
///
/// Source: the method `lock` of PALs 0.4.0. `None` is Python's `None`: then the name stands alone.
///
/// **Dangerous:** the join is not unique: `("a.b", "c")` and `("a", "b.c")` are one lock. For the
/// rest see [`sha1_le`].
///
/// # Shape and units
///
/// One `i64`, the whole range; 2⁶⁴ keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::pals(Some("myapp"), "PR-1234"), LockKey::from(167_214_667_428_853_422));
/// assert_eq!(schemes::pals(None, "PR-1234"), schemes::sha1_le("PR-1234"));
/// assert_eq!(schemes::pals(Some("a.b"), "c"), schemes::pals(Some("a"), "b.c"));
/// ```
#[must_use]
pub fn pals(app_name: Option<&str>, name: &str) -> LockKey {
    match app_name {
        Some(app_name) => sha1_le(&format!("{app_name}.{name}")),
        None => sha1_le(name),
    }
}
