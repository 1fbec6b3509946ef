//! Arguments that name a lock.

use advisory_locking::{LockKey, RawLockKey};
use clap::Args;

use crate::failure::Failure;
use crate::scheme::Scheme;

/// The lock: a name, or the integers of its key.
#[derive(Args, Clone, Debug)]
pub(crate) struct LockName {
    /// Name of the lock, as the library derives its key: LockKey::from("NAME")
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    pub(crate) name: Option<String>,
    /// Further part of the key; several in order. LockKey::from(("NAME", 4)) has the part 4
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "key",
        allow_hyphen_values = true
    )]
    part: Vec<String>,
    /// Key as integers, or as a log shows it: -5, "1,2" or '"NAME" = 42'
    #[arg(long, value_name = "KEY", value_parser = parse_key, allow_hyphen_values = true)]
    key: Option<LockKey>,
    /// Derivation of the key
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        conflicts_with = "key"
    )]
    scheme: Scheme,
    /// Application or prefix, in the schemes pals and with-advisory-lock(-number)
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    prefix: Option<String>,
}

impl LockName {
    /// Derives the key.
    pub(crate) fn key(&self) -> Result<LockKey, Failure> {
        match (&self.key, &self.name) {
            (Some(key), _) => Ok(key.clone()),
            (None, Some(name)) => self.scheme.derive(name, &self.part, self.prefix.as_deref()),
            (None, None) => Err(Failure::usage("a lock needs NAME or --key")),
        }
    }

    /// Returns the parts and the prefix, for another scheme.
    pub(crate) fn derive_with(&self, scheme: Scheme) -> Option<LockKey> {
        let name = self.name.as_deref()?;
        let derived = scheme.derive(name, &self.part, self.prefix.as_deref());
        derived.ok()
    }

    /// Returns the text that names the lock in messages.
    pub(crate) fn shown(&self, key: &LockKey) -> String {
        let text = self.name.as_deref().map(|name| {
            let parts = std::iter::once(name).chain(self.part.iter().map(String::as_str));
            parts.collect::<Vec<_>>().join("/")
        });
        text.or_else(|| key.text().map(str::to_owned))
            .unwrap_or_else(|| numbers(key.raw()))
    }
}

/// Returns the integers of a key: `-5` or `1,2`.
pub(crate) fn numbers(key: RawLockKey) -> String {
    match key {
        RawLockKey::Single(number) => number.to_string(),
        RawLockKey::Pair(first, second) => format!("{first},{second}"),
    }
}

/// Parses integers, or the form that the library logs.
fn parse_key(text: &str) -> Result<LockKey, String> {
    let text = text.trim();
    let pair = text.split_once(',').and_then(|(first, second)| {
        let logged = format!("({}, {})", first.trim(), second.trim());
        logged.parse().ok()
    });
    pair.map_or_else(|| text.parse(), Ok).map_err(|_| {
        "a key is a 64-bit integer, two 32-bit integers such as 1,2, or the form in logs such \
             as '\"NAME\" = 42'"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_parsed_from_integers_and_from_logs() {
        for (text, raw) in [
            ("-5", RawLockKey::Single(-5)),
            ("-9223372036854775808", RawLockKey::Single(i64::MIN)),
            ("1,2", RawLockKey::Pair(1, 2)),
            ("-1,-2147483648", RawLockKey::Pair(-1, i32::MIN)),
            ("(1, 2)", RawLockKey::Pair(1, 2)),
            ("\"sync/4\" = 42", RawLockKey::Single(42)),
        ] {
            assert_eq!(parse_key(text).unwrap().raw(), raw, "{text}");
        }
        for text in [
            "",
            "name",
            "1,2,3",
            "99999999999999999999",
            "1,99999999999",
            "+5",
            "1,+2",
        ] {
            assert!(parse_key(text).is_err(), "{text}");
        }
    }
}
