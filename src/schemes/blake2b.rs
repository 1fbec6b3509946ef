//! The keys of sqlalchemy-dlock.

use blake2::digest::consts::U8;
use blake2::{Blake2b, Digest};

use crate::{LockKey, RawLockKey};

/// BLAKE2b of eight bytes, little-endian: sqlalchemy-dlock for Python, on PostgreSQL.
///
/// Source: `PostgresqlSadLockMixin.convert` of sqlalchemy-dlock 0.9.0. Its `str` is text and its
/// `bytes` are bytes here; its integers are keys as they are: `LockKey::from(7_i64)`.
///
/// **Dangerous:** it reads the digest in the byte order of the machine; this is what x86-64 and
/// arm64 compute. Releases 0.1.1 and 0.1.2 used CRC-64. The length is a parameter of BLAKE2b, so
/// the key is not the beginning of a longer digest.
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
/// assert_eq!(schemes::sqlalchemy_dlock("PR-1234"), LockKey::from(-579_602_263_288_886_656));
/// assert_eq!(schemes::sqlalchemy_dlock(b"PR-1234"), schemes::sqlalchemy_dlock("PR-1234"));
/// ```
#[doc(alias = "create_sadlock")]
#[must_use]
pub fn sqlalchemy_dlock(key: impl AsRef<[u8]>) -> LockKey {
    let key = key.as_ref();
    let digest: [u8; 8] = Blake2b::<U8>::digest(key).into();
    LockKey::from_raw_with_text(RawLockKey::Single(i64::from_le_bytes(digest)), key)
}
