//! The text form of a key, and its parser.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

use super::part::MAX_TEXT_BYTES;
use super::{LockKey, RawLockKey, is_unsafe_in_log};

/// Shows the text and the number: `"sync/4" = 5478352693262750134`. A pair shows as `(1, 2)`, and a
/// key without text as its number alone.
impl fmt::Display for LockKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.text() {
            write!(formatter, "\"{text}\" = ")?;
        }
        write!(formatter, "{}", self.raw)
    }
}

/// Shows the number: `5478352693262750134`, or `(1, 2)` for a pair.
impl fmt::Display for RawLockKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(number) => write!(formatter, "{number}"),
            Self::Pair(first, second) => write!(formatter, "({first}, {second})"),
        }
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LockKey({self})")
    }
}

/// Parses the form that `Display` prints, such as a key that was copied from a log.
///
/// The number decides which lock it is; the text before it is kept for logs and not hashed. So a
/// bare name does not parse: use [`LockKey::from`] to derive a key from it.
///
/// # Examples
///
/// ```
/// use advisory_locking::LockKey;
///
/// let logged = r#""sync/4" = 5478352693262750134"#;
/// let key: LockKey = logged.parse()?;
/// assert_eq!(key, LockKey::from(("sync", 4)));
/// assert_eq!(key.to_string(), logged);
/// assert!("sync/4".parse::<LockKey>().is_err());
/// # Ok::<(), advisory_locking::ParseLockKeyError>(())
/// ```
impl FromStr for LockKey {
    type Err = ParseLockKeyError;

    fn from_str(shown: &str) -> Result<Self, ParseLockKeyError> {
        let (text, number) = match shown.strip_prefix('"') {
            Some(quoted) => {
                let (text, rest) = split_quoted(quoted).ok_or(ParseLockKeyError(()))?;
                let number = rest.strip_prefix(" = ").ok_or(ParseLockKeyError(()))?;
                (Some(text), number)
            }
            None => (None, shown),
        };
        Ok(Self {
            raw: raw(number).ok_or(ParseLockKeyError(()))?,
            text: text.map(Into::into),
        })
    }
}

/// Splits at the closing quote. `None` if there is none, or if the text is not escaped or not cut.
fn split_quoted(quoted: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, character) in quoted.char_indices() {
        match character {
            // The printed form escapes these characters and is cut, so such a text is not one.
            _ if is_unsafe_in_log(character) || at > MAX_TEXT_BYTES => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some((quoted.get(..at)?, quoted.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

fn raw(number: &str) -> Option<RawLockKey> {
    let pair = number
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'));
    match pair {
        Some(pair) => {
            let (first, second) = pair.split_once(", ")?;
            Some(RawLockKey::Pair(integer(first)?, integer(second)?))
        }
        None => integer(number).map(RawLockKey::Single),
    }
}

/// Parses the printed form of an integer: neither `+5` nor `05`.
fn integer<N: FromStr + ToString>(text: &str) -> Option<N> {
    let number: N = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Error of parsing a [`LockKey`]: the text is not the form that a key prints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParseLockKeyError(());

impl fmt::Display for ParseLockKeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "not the printed form of a lock key, such as \"sync/4\" = 5478352693262750134 or (1, 2): \
             derive the key of a name with LockKey::from",
        )
    }
}

impl StdError for ParseLockKeyError {}
