//! The keys of PostgreSQL's own hash functions, computed without the server.

use super::{crc32, lookup3, pair, server_text, single};
use crate::{LockError, LockKey};

fn hash(text: &str) -> Result<i32, LockError> {
    Ok(crc32::signed(lookup3::hash(server_text(text)?, 0).1))
}

/// The key of `pg_advisory_lock(hashtext('…'))`: mpyw/laravel-database-advisory-lock for PHP, and
/// snippets in many languages.
///
/// Source: `hashtext` of PostgreSQL 15, as the PHP package calls it (commit 48424ed); its number is
/// widened with its sign.
///
/// **Dangerous:** [32 bits collide](super#collisions). PostgreSQL does not document the function,
/// and changed it between 8.3 and 8.4. The server hashes the text in the encoding of its database,
/// this function the bytes of UTF-8. In a database that is not UTF-8, only ASCII is the same lock.
/// The value differs on a big-endian server and under a nondeterministic collation.
/// `pg_advisory_lock(hashtext(NULL))` locks nothing and reports no error.
///
/// # Shape and units
///
/// One `i64` from −2³¹ to 2³¹ − 1; 2³² keys.
///
/// # Errors
///
/// [`InvalidKey`](crate::LockErrorKind::InvalidKey) for a text with NUL, which the server refuses.
/// Nothing is locked.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::hashtext("PR-1234")?, LockKey::from(-1_972_787_301));
/// # Ok::<(), advisory_locking::LockError>(())
/// ```
#[doc(alias = "laravel")]
pub fn hashtext(text: &str) -> Result<LockKey, LockError> {
    Ok(single(i64::from(hash(text)?), text))
}

/// The key of `pg_advisory_lock(hashtext('…'), hashtext('…'))`.
///
/// Source and dangers as with [`hashtext`]; the two texts do not run together.
///
/// # Shape and units
///
/// A pair of `i32`, the whole range of each; 2³² keys for one of the two texts.
///
/// # Errors
///
/// [`InvalidKey`](crate::LockErrorKind::InvalidKey) for a text with NUL, which the server refuses.
/// Nothing is locked.
///
/// # Examples
///
/// ```
/// use advisory_locking::{RawLockKey, schemes};
///
/// let key = schemes::hashtext_pair("PR-1234", "database_name")?;
/// assert_eq!(key.raw(), RawLockKey::Pair(-1_972_787_301, -1_292_586_713));
/// # Ok::<(), advisory_locking::LockError>(())
/// ```
pub fn hashtext_pair(first: &str, second: &str) -> Result<LockKey, LockError> {
    Ok(pair(
        hash(first)?,
        hash(second)?,
        &format!("{first}/{second}"),
    ))
}

/// The key of `pg_advisory_lock(hashtextextended('…', seed))`.
///
/// Source: `hashtextextended` of PostgreSQL 15. With seed 0 its low 32 bits are [`hashtext`]. The
/// dangers are those of [`hashtext`], except the collisions.
///
/// # Shape and units
///
/// One `i64`, the whole range; 2⁶⁴ keys.
///
/// # Errors
///
/// [`InvalidKey`](crate::LockErrorKind::InvalidKey) for a text with NUL, which the server refuses.
/// Nothing is locked.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::hashtextextended("PR-1234", 0)?, LockKey::from(-4_780_887_927_768_373_349));
/// # Ok::<(), advisory_locking::LockError>(())
/// ```
pub fn hashtextextended(text: &str, seed: i64) -> Result<LockKey, LockError> {
    let seed = u64::from_ne_bytes(seed.to_ne_bytes());
    let (high, low) = lookup3::hash(server_text(text)?, seed);
    let number = u64::from(high) << 32 | u64::from(low);
    Ok(single(i64::from_ne_bytes(number.to_ne_bytes()), text))
}
