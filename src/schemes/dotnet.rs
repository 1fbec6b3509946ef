//! The keys of DistributedLock for .NET.

use super::{crc32, invalid, pair, sha1, single};
use crate::{LockError, LockKey};

/// Maximum number of ASCII characters that fit into 64 bits together with their count.
const ASCII_CHARACTERS: usize = 9;

/// The key of DistributedLock for .NET: `new PostgresAdvisoryLockKey(name, allowHashing: true)`.
///
/// Source: `PostgresAdvisoryLockKey` of DistributedLock.Postgres 2.8.1. Its provider,
/// `PostgresDistributedSynchronizationProvider`, always allows hashing, so this is the usual key.
/// The forms of a name are tried in this order:
///
/// | name | key space | derivation |
/// |---|---|---|
/// | up to 9 ASCII characters | a pair | the characters themselves, 7 bits each |
/// | 16 hexadecimal digits | one number | the number |
/// | 8 hexadecimal digits, a comma, 8 more | a pair | the two numbers |
/// | any other | one number | the first eight bytes of its SHA-1, little-endian, as [`sha1_le`](super::sha1_le) |
///
/// Keys that .NET makes from integers are `LockKey::from(7_i64)` and `LockKey::from((1, 2))`.
///
/// **Dangerous:** names of 9 and of 10 characters are in different key spaces. The crate
/// distributed-lock-postgres 0.2.0, a port to Rust, derives keys that differ from .NET's for short
/// names.
///
/// # Shape and units
///
/// A pair of `i32` or one `i64`, as the table says; 2⁶⁴ keys. Those of names up to 9 ASCII
/// characters never collide with each other.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// let short = LockKey::from((-1_589_023_978, 1_289_371_647));
/// assert_eq!(schemes::distributed_lock("PR-1234"), short);
/// assert_eq!(schemes::distributed_lock("00000003,ffffffff"), LockKey::from((3, -1)));
/// assert_eq!(schemes::distributed_lock("driver_update_1"), schemes::sha1_le("driver_update_1"));
/// ```
#[doc(alias = "madelson")]
#[doc(alias = "PostgresAdvisoryLockKey")]
#[must_use]
pub fn distributed_lock(name: &str) -> LockKey {
    encoded(name).unwrap_or_else(|| single(sha1::first_eight(name), name))
}

/// The key of DistributedLock for .NET without hashing: `new PostgresAdvisoryLockKey(name)`.
///
/// The key of [`distributed_lock`] for the names that encode their number.
///
/// Source and dangers as there.
///
/// # Shape and units
///
/// A pair of `i32` or one `i64`, as the table of [`distributed_lock`] says; 2⁶⁴ keys. Two names of
/// one kind share a key only where their hexadecimal digits are the same number.
///
/// # Errors
///
/// [`InvalidKey`](crate::LockErrorKind::InvalidKey) for a name that would have to be hashed, for
/// which .NET throws a `FormatException`. Nothing is locked.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// let key = schemes::distributed_lock_unhashed("00000000deadbeef")?;
/// assert_eq!(key, LockKey::from(0xdead_beef_i64));
/// assert!(schemes::distributed_lock_unhashed("driver_update_1").is_err());
/// # Ok::<(), advisory_locking::LockError>(())
/// ```
pub fn distributed_lock_unhashed(name: &str) -> Result<LockKey, LockError> {
    encoded(name).ok_or_else(|| {
        invalid("neither up to 9 ASCII characters, nor 16 hexadecimal digits, nor 8, a comma and 8")
    })
}

fn encoded(name: &str) -> Option<LockKey> {
    ascii(name).or_else(|| hexadecimal(name))
}

/// Encodes each character in 7 bits, then a 0, then ones for the missing characters, so that names
/// of different lengths differ.
fn ascii(name: &str) -> Option<LockKey> {
    if name.len() > ASCII_CHARACTERS || !name.is_ascii() {
        return None;
    }
    let mut number = 0_u64;
    for character in name.bytes() {
        number = number << 7 | u64::from(character);
    }
    number <<= 1;
    for _ in name.len()..ASCII_CHARACTERS {
        number = number << 7 | 0x7f;
    }
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    let key = pair(
        i32::from_be_bytes([a, b, c, d]),
        i32::from_be_bytes([e, f, g, h]),
        name,
    );
    Some(key)
}

fn hexadecimal(name: &str) -> Option<LockKey> {
    let (first, rest) = name.as_bytes().split_at_checked(8)?;
    match *rest {
        [b',', ref second @ ..] if second.len() == 8 => Some(pair(
            crc32::signed(half(first)?),
            crc32::signed(half(second)?),
            name,
        )),
        ref second if second.len() == 8 => {
            let number = u64::from(half(first)?) << 32 | u64::from(half(second)?);
            Some(single(i64::from_ne_bytes(number.to_ne_bytes()), name))
        }
        _ => None,
    }
}

/// Parses a number as .NET does: hexadecimal digits, which NULs may follow.
fn half(digits: &[u8]) -> Option<u32> {
    let end = digits.iter().rposition(|&byte| byte != 0)?;
    digits.get(..=end)?.iter().try_fold(0, |number, &digit| {
        Some(number << 4 | char::from(digit).to_digit(16)?)
    })
}
