//! The parts of a key, and their text form in logs.

use std::borrow::Cow;

/// A part of a key: text, bytes, or an integer (which counts as its decimal text).
///
/// Implement it for your own identifiers by returning the bytes that identify them. Keep the bytes
/// stable: two programs exclude each other only if they use the same bytes.
///
/// # Examples
///
/// ```
/// use std::borrow::Cow;
/// use advisory_locking::{KeyPart, LockKey};
///
/// struct ClientId(u32);
///
/// impl KeyPart for ClientId {
///     fn key_bytes(&self) -> Cow<'_, [u8]> {
///         Cow::Owned(self.0.to_string().into_bytes())
///     }
/// }
///
/// assert_eq!(LockKey::from(("sync", ClientId(4))), LockKey::from(("sync", 4)));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a lock's key",
    label = "neither text, nor bytes, nor an integer",
    note = "for a type of your own, implement `advisory_locking::KeyPart`: hand out the bytes that identify it",
    note = "for a type of another crate, such as a UUID, use its text: `(\"order\", id.to_string())`"
)]
pub trait KeyPart {
    /// Returns the bytes of this part.
    fn key_bytes(&self) -> Cow<'_, [u8]>;
}

/// Text that can be a whole key, or the first part of a tuple.
///
/// Integers are not, so that `(1, 2)` is a pair of numbers and never two parts.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the first part of a lock's key",
    label = "not text",
    note = "begin the tuple with a name: `(\"order\", id)`; a pair of numbers is `(i32, i32)`"
)]
pub trait KeyText: KeyPart {}

macro_rules! text {
    ($($type:ty),*) => {$(
        impl KeyPart for $type {
            fn key_bytes(&self) -> Cow<'_, [u8]> {
                Cow::Borrowed(self.as_bytes())
            }
        }
        impl KeyText for $type {}
    )*};
}
text!(str, String, Cow<'_, str>);

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl KeyPart for $type {
            fn key_bytes(&self) -> Cow<'_, [u8]> {
                Cow::Owned(self.to_string().into_bytes())
            }
        }
    )*};
}
integer!(
    i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize
);

impl KeyPart for [u8] {
    fn key_bytes(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

/// Such as the bytes of a UUID. Its text is a better part, because logs show it.
impl<const N: usize> KeyPart for [u8; N] {
    fn key_bytes(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

impl KeyPart for Vec<u8> {
    fn key_bytes(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

impl<P: KeyPart + ?Sized> KeyPart for &P {
    fn key_bytes(&self) -> Cow<'_, [u8]> {
        (**self).key_bytes()
    }
}

impl<T: KeyText + ?Sized> KeyText for &T {}

/// Longest remembered text, so that a key made from megabytes costs and logs a line.
const LABEL_BYTES: usize = 120;

/// Longest text of a [`Label`]: the character at the bound may be escaped, and `…` may follow.
pub(super) const MAX_TEXT_BYTES: usize = LABEL_BYTES + 10;

/// Text form of a key, for logs: escaped, so that a log line stays one line and in order. Cut at
/// [`LABEL_BYTES`].
#[derive(Clone, Debug, Default)]
pub(super) struct Label {
    text: String,
    is_cut: bool,
}

impl Label {
    /// Appends a separator of parts.
    pub(super) fn separate(&mut self) {
        if self.text.len() > LABEL_BYTES {
            self.cut();
        }
        if !self.is_cut {
            self.text.push('/');
        }
    }

    /// Appends a part.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        // The label never shows more bytes than this, however they are escaped.
        let (head, rest) = bytes.split_at(character_boundary(bytes));
        for character in String::from_utf8_lossy(head).chars() {
            if self.text.len() >= LABEL_BYTES {
                self.cut();
            }
            if self.is_cut {
                return;
            }
            match character {
                '"' | '\\' => self.text.extend(['\\', character]),
                _ if is_unsafe_in_log(character) => self.text.extend(character.escape_default()),
                _ => self.text.push(character),
            }
        }
        if !rest.is_empty() {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if !std::mem::replace(&mut self.is_cut, true) {
            self.text.push('…');
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Returns the number of bytes that a label may show, without a part of a character.
fn character_boundary(bytes: &[u8]) -> usize {
    let continues = |at: &usize| matches!(bytes.get(*at), Some(0x80..=0xbf));
    let mut boundaries = (LABEL_BYTES - 3..=LABEL_BYTES).rev();
    let boundary = boundaries.find(|at| !continues(at)).unwrap_or(LABEL_BYTES);
    boundary.min(bytes.len())
}

/// Returns `true` for a character that may control a terminal, begin a line, or change the
/// [direction] of the text after it.
///
/// [direction]: https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
pub(crate) fn is_unsafe_in_log(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}
