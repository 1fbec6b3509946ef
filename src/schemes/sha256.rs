//! Keys that begin a SHA-256: of snippets, django-pglock and the npm package advisory-lock.

use sha2::digest::consts::U8;
use sha2::{Digest, Sha256};

use super::{invalid, pair, single};
use crate::{KeyPart, LockError, LockKey, RawLockKey};

fn first_eight(bytes: &[u8]) -> [u8; 8] {
    let (first, _) = Sha256::digest(bytes).split::<U8>();
    first.into()
}

/// The first eight bytes of the SHA-256 of parts joined with `-`, big-endian: Python snippets with
/// `int.from_bytes(…, byteorder="big", signed=True)`.
///
/// Source: `acquire_advisory_lock(session, *ids)` of the article “Postgres advisory locks for
/// python developers” (leontrolski, 2020), which joins `str(id)` of each. Text and integers are the
/// same here as in Python. Of other types give the text that Python's `str` makes: `"True"`,
/// `"None"`, `"1.0"`, `"b'bytes'"`.
///
/// **Dangerous:** the join is not unique: `("a-b", "c")` and `("a", "b-c")` are one lock, and no
/// parts at all are the lock of one empty part.
///
/// # Shape and units
///
/// One `i64`, the whole range; 2⁶⁴ keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{KeyPart, LockKey, schemes};
///
/// let signup = schemes::sha256_be_joined(["SIGNUP-EMAIL", "a@b.c"]);
/// assert_eq!(signup, LockKey::from(-2_004_191_643_861_057_014));
/// assert_eq!(schemes::sha256_be_joined([123]), LockKey::from(-6_456_573_788_065_484_899));
///
/// // Parts of several types:
/// let parts: [&dyn KeyPart; 2] = [&"x", &-7];
/// assert_eq!(schemes::sha256_be_joined(parts), LockKey::from(-15_659_094_443_264_406));
/// ```
#[doc(alias = "leontrolski")]
#[must_use]
pub fn sha256_be_joined<P: KeyPart>(ids: impl IntoIterator<Item = P>) -> LockKey {
    let mut text = Vec::new();
    for (index, id) in ids.into_iter().enumerate() {
        if index > 0 {
            text.push(b'-');
        }
        text.extend_from_slice(&id.key_bytes());
    }
    LockKey::from_raw_with_text(
        RawLockKey::Single(i64::from_be_bytes(first_eight(&text))),
        &text,
    )
}

/// The first eight bytes of the SHA-256 of the UTF-8 bytes, little-endian: django-pglock.
///
/// Source: `_cast_lock_id` of django-pglock 1.8.0 (Python). Its integers are keys as they are:
/// `LockKey::from(7_i64)`. Its decorator without an id takes `"module.function"`. Not to be
/// confused with [`django_pglocks`](super::django_pglocks), another package.
///
/// **Dangerous:** the same eight bytes are another lock as a pair: [`npm_advisory_lock`].
///
/// # Shape and units
///
/// One `i64`, the whole range; 2⁶⁴ keys.
///
/// # Errors
///
/// [`InvalidKey`](crate::LockErrorKind::InvalidKey) for the empty text, which django-pglock
/// refuses. Nothing is locked.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::django_pglock("PR-1234")?, LockKey::from(-3_064_990_143_825_377_525));
/// assert!(schemes::django_pglock("").is_err());
/// # Ok::<(), advisory_locking::LockError>(())
/// ```
#[doc(alias = "pglock")]
pub fn django_pglock(name: &str) -> Result<LockKey, LockError> {
    if name.is_empty() {
        return Err(invalid("django-pglock refuses the empty text"));
    }
    Ok(single(
        i64::from_le_bytes(first_eight(name.as_bytes())),
        name,
    ))
}

/// The first eight bytes of the SHA-256 of the UTF-8 bytes, as two little-endian numbers: the npm
/// package advisory-lock.
///
/// Source: `strToKey` of advisory-lock 2.0.0 (binded, Node.js).
///
/// **Dangerous:** the same eight bytes are another lock as a single number: [`django_pglock`].
///
/// # Shape and units
///
/// A pair of `i32`, the whole range of each; 2⁶⁴ keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::npm_advisory_lock("PR-1234"), LockKey::from((87_492_363, -713_623_628)));
/// ```
#[doc(alias = "binded")]
#[doc(alias = "strToKey")]
#[must_use]
pub fn npm_advisory_lock(name: &str) -> LockKey {
    let [a, b, c, d, e, f, g, h] = first_eight(name.as_bytes());
    pair(
        i32::from_le_bytes([a, b, c, d]),
        i32::from_le_bytes([e, f, g, h]),
        name,
    )
}
