//! The keys of sqlx's `PgAdvisoryLock`.

use hmac::digest::{Key, Output};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sha2::digest::consts::U8;

use super::single;
use crate::LockKey;

/// sqlx's name for itself in the derivation.
const INFO: &[u8] = b"SQLx (Rust) Postgres advisory lock";

/// HKDF-SHA256 of the UTF-8 bytes, eight bytes, little-endian: `PgAdvisoryLock::new` of sqlx for
/// Rust.
///
/// Source: `PgAdvisoryLock` of sqlx 0.8.6 and 0.9.0; HKDF is [RFC 5869]. sqlx's
/// `PgAdvisoryLockKey::BigInt` and `IntPair` are `LockKey::from(7_i64)` and
/// `LockKey::from((1, 2))`.
///
/// **Dangerous:** nothing in the key itself, which sqlx declares stable. sqlx's migrations take
/// another: [`sqlx_migrations`](super::sqlx_migrations).
///
/// [RFC 5869]: https://www.rfc-editor.org/rfc/rfc5869
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
/// assert_eq!(schemes::sqlx("PR-1234"), LockKey::from(-8_930_202_094_952_271_303));
/// ```
#[doc(alias = "PgAdvisoryLock")]
#[must_use]
pub fn sqlx(name: &str) -> LockKey {
    // Extract, with no salt; expand, of which the first block is enough. A shorter key of an HMAC
    // is one padded with zeros, so an absent salt is a block of them.
    let pseudo_random_key = mac(&[], &[name.as_bytes()]);
    let (first, _) = mac(&pseudo_random_key, &[INFO, &[1]]).split::<U8>();
    single(i64::from_le_bytes(first.into()), name)
}

/// HMAC-SHA256 with a key that is no longer than a block.
fn mac(key: &[u8], messages: &[&[u8]]) -> Output<Hmac<Sha256>> {
    let mut block = Key::<Hmac<Sha256>>::default();
    for (padded, byte) in block.iter_mut().zip(key) {
        *padded = *byte;
    }
    let mut mac = Hmac::<Sha256>::new(&block);
    for message in messages {
        mac.update(message);
    }
    mac.finalize().into_bytes()
}
