//! Keys that begin an MD5 computed in SQL: of PormG, good_job and others.

use md5::digest::consts::U8;
use md5::{Digest, Md5};

use super::{server_text, single};
use crate::{LockError, LockKey};

/// The first eight bytes of the MD5 of the text, big-endian: PormG for Julia, n0mn0m's
/// `PostgresAdvisoryLock` for asyncio, good_job for Ruby.
///
/// Source: the SQL `('x' || substr(md5($1), 1, 16))::bit(64)::bigint` of PormG's
/// `with_advisory_lock` (commit 0615fd9), of PostgresAdvisoryLock (13cbd17) and of good_job
/// (81db22b). good_job's text is the table's name, `-`, and the job's id: `"good_jobs-0f0c…"`.
///
/// **Dangerous:** the server hashes the text in the encoding of its database, this function the
/// bytes of UTF-8. In a database that is not UTF-8, only ASCII names are the same lock. MD5 is
/// broken: a user who chooses names can construct two with one key, which costs a needless wait.
///
/// # Shape and units
///
/// One `i64`, the whole range; 2⁶⁴ keys.
///
/// # Errors
///
/// [`InvalidKey`](crate::LockErrorKind::InvalidKey) for a text with NUL, which the server refuses,
/// so that no such client can lock it. Nothing is locked.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::md5_be("driver_update_1")?, LockKey::from(-5_131_798_091_469_303_872));
/// # Ok::<(), advisory_locking::LockError>(())
/// ```
#[doc(alias = "PormG")]
#[doc(alias = "good_job")]
#[doc(alias = "n0mn0m")]
#[doc(alias = "PostgresAdvisoryLock")]
pub fn md5_be(text: &str) -> Result<LockKey, LockError> {
    let (first, _) = Md5::digest(server_text(text)?).split::<U8>();
    Ok(single(i64::from_be_bytes(first.into()), text))
}
