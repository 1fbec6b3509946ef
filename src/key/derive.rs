//! The derivation of a key from its parts.
//!
//! Never change it: two releases of a service would no longer exclude each other.

use super::part::Label;
use super::{KeyPart, LockKey, RawLockKey};

/// BLAKE3's key-derivation context; names the crate, the day and the version of the scheme, as
/// BLAKE3's authors advise.
const CONTEXT: &str = "advisory-locking 2026-11-21 lock key v1";

/// An unfinished derivation: the hash of the parts so far, and their text. A namespace clones it
/// to derive many keys.
#[derive(Clone, Debug)]
pub(super) struct Derivation {
    hasher: blake3::Hasher,
    label: Label,
    has_parts: bool,
}

impl Derivation {
    pub(super) fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new_derive_key(CONTEXT),
            label: Label::default(),
            has_parts: false,
        }
    }

    pub(super) fn add(&mut self, part: &(impl KeyPart + ?Sized)) {
        let bytes = part.key_bytes();
        // A length is at most `isize::MAX`, so the fallback is never taken.
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.hasher.update(&length.to_le_bytes());
        self.hasher.update(&bytes);
        if self.has_parts {
            self.label.separate();
        }
        self.has_parts = true;
        self.label.append(&bytes);
    }

    pub(super) fn finish(self) -> LockKey {
        let mut first = [0; 8];
        self.hasher.finalize_xof().fill(&mut first);
        LockKey {
            raw: RawLockKey::Single(i64::from_le_bytes(first)),
            text: Some(self.label.into_text().into()),
        }
    }
}
