//! Keys that are a CRC-32: of snippets, symfony/lock and django-pglocks.

use super::single;
use crate::LockKey;

/// The CRC-32 of a text as zlib, PHP and Python compute it (ISO-HDLC, the reflected polynomial
/// `0xEDB88320`).
pub(super) fn checksum(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes())
}

/// The same bits, as a signed number.
pub(super) const fn signed(number: u32) -> i32 {
    i32::from_ne_bytes(number.to_ne_bytes())
}

/// The unsigned CRC-32 of the UTF-8 bytes, as one number: Django snippets, and symfony/lock.
///
/// Source: `zlib.crc32(name.encode("utf-8"))` in Python; `crc32($name)`, as in `PostgreSqlStore`
/// and `DoctrineDbalPostgreSqlStore` of symfony/lock (commit 091a6ff).
///
/// **Dangerous:** [32 bits collide](super#collisions). Every key lies between 0 and 4294967295, as
/// do table ids that other code may lock directly. A port that reads the sum as signed locks
/// another key for half of all names: see [`django_pglocks`]. The empty text is the key 0.
///
/// # Shape and units
///
/// One `i64` from 0 to 2³² − 1; 2³² keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::crc32("PR-1234"), LockKey::from(2_080_983_871));
/// // Two names, one key:
/// assert_eq!(schemes::crc32("plumless"), schemes::crc32("buckeroo"));
/// ```
#[doc(alias = "symfony")]
#[doc(alias = "PostgreSqlStore")]
#[must_use]
pub fn crc32(name: &str) -> LockKey {
    single(i64::from(checksum(name)), name)
}

/// The CRC-32 of the UTF-8 bytes, as a signed 32-bit number that is widened: django-pglocks.
///
/// Source: `advisory_lock` of django-pglocks 1.0.4 (Python). Its integers are keys as they are,
/// `LockKey::from(7_i64)`, and so are its pairs, `LockKey::from((1, 2))`. Not to be confused with
/// [`django_pglock`](super::django_pglock), another package.
///
/// **Dangerous:** [32 bits collide](super#collisions). For half of all names the key is 2³² below
/// that of [`crc32`], so a test with one name cannot tell the two apart.
///
/// # Shape and units
///
/// One `i64` from −2³¹ to 2³¹ − 1; 2³² keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::django_pglocks("sync(4)"), LockKey::from(-1_399_413_565));
/// assert_eq!(schemes::crc32("sync(4)"), LockKey::from(-1_399_413_565 + (1 << 32)));
/// ```
#[must_use]
pub fn django_pglocks(name: &str) -> LockKey {
    single(i64::from(signed(checksum(name))), name)
}
