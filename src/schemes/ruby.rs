//! The keys of the Ruby gem with_advisory_lock.

use super::{crc32, pair};
use crate::LockKey;

/// Bits that the gem keeps: the integers of a pair are signed, and the gem clears the sign bit.
const MASK: u32 = 0x7fff_ffff;

/// The CRC-32 without its highest bit, paired with a prefix: the Ruby gem with_advisory_lock.
///
/// Source: `lock_keys_for` of with_advisory_lock 7.5.0, on PostgreSQL. `prefix` is what the Ruby
/// processes have in the environment variable `WITH_ADVISORY_LOCK_PREFIX`, or `None` if it is not
/// set; it counts as Ruby's `String#to_i` reads it. Names that are numbers in Ruby:
/// [`with_advisory_lock_number`].
///
/// **Dangerous:** [31 bits collide](super#collisions). A prefix that is a word separates nothing:
/// like an absent prefix, it counts as 0.
///
/// # Shape and units
///
/// A pair of `i32`, each from 0 to 2³¹ − 1: the name, then the prefix. 2³¹ keys for one prefix.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::with_advisory_lock("PR-1234", None), LockKey::from((2_080_983_871, 0)));
/// let key = schemes::with_advisory_lock("PR-1234", Some("12abc"));
/// assert_eq!(key, LockKey::from((2_080_983_871, 12)));
/// assert_eq!(
///     schemes::with_advisory_lock("PR-1234", Some("billing")),
///     schemes::with_advisory_lock("PR-1234", None),
/// );
/// ```
#[doc(alias = "closure_tree")]
#[must_use]
pub fn with_advisory_lock(name: &str, prefix: Option<&str>) -> LockKey {
    keys(crc32::checksum(name), prefix, name)
}

/// A number as a name: the Ruby gem with_advisory_lock, where `with_advisory_lock(42)` and
/// `with_advisory_lock("42")` are two locks.
///
/// Source and prefix as with [`with_advisory_lock`]. Ruby cuts a fraction off (`to_i`), so do that
/// first.
///
/// **Dangerous:** only the lowest 31 bits count, so 0 and 2147483648 are one lock.
///
/// # Shape and units
///
/// A pair of `i32`, each from 0 to 2³¹ − 1: the number, then the prefix. 2³¹ keys for one prefix.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::with_advisory_lock_number(42, None), LockKey::from((42, 0)));
/// assert_eq!(schemes::with_advisory_lock_number(-1, None), LockKey::from((2_147_483_647, 0)));
/// ```
#[must_use]
pub fn with_advisory_lock_number(number: i64, prefix: Option<&str>) -> LockKey {
    let [a, b, c, d, ..] = number.to_le_bytes();
    keys(
        u32::from_le_bytes([a, b, c, d]),
        prefix,
        &number.to_string(),
    )
}

fn keys(first: u32, prefix: Option<&str>, text: &str) -> LockKey {
    let second = prefix.map_or(0, to_i);
    pair(
        crc32::signed(first & MASK),
        crc32::signed(second & MASK),
        text,
    )
}

/// Returns the lowest 32 bits of the number that Ruby's `String#to_i` reads: white space, a sign,
/// `0d` or not, digits with single underscores between digits. The rest is ignored. Text without
/// such a beginning is 0.
fn to_i(text: &str) -> u32 {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = match digits {
        [b'0', b'd' | b'D', digits @ ..] => digits,
        digits => digits,
    };
    let mut number = 0_u32;
    let mut may_be_underscore = false;
    for &digit in digits {
        match digit {
            b'0'..=b'9' => {
                number = number
                    .wrapping_mul(10)
                    .wrapping_add(u32::from(digit - b'0'));
                may_be_underscore = true;
            }
            b'_' if may_be_underscore => may_be_underscore = false,
            _ => break,
        }
    }
    if negative {
        number.wrapping_neg()
    } else {
        number
    }
}
