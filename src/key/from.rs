//! `From` text, integers and tuples, so that call sites read `("sync", client_id)`.

use std::borrow::Cow;

use super::derive::Derivation;
use super::{KeyPart, KeyText, LockKey, RawLockKey};

macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl From<$type> for LockKey {
            fn from(text: $type) -> Self {
                Self::from_parts([text])
            }
        }
    )*};
}
from_text!(&str, &String, String, Cow<'_, str>);

/// The number as it is.
impl From<i64> for LockKey {
    fn from(number: i64) -> Self {
        Self::from_raw(RawLockKey::Single(number))
    }
}

mod integer {
    /// An integer that is a key by itself. No type implements it: `i64` has an impl of its own.
    ///
    /// It makes the compiler name the remedy for every other integer.
    #[expect(unnameable_types, reason = "only a message of the compiler names it")]
    #[diagnostic::on_unimplemented(
        message = "an integer other than `i64` is not a lock's key",
        label = "put a name before it: `(\"order\", id)`",
        note = "the number of a lock on the server is an `i64`, or a pair of `i32`"
    )]
    pub trait IntegerKey {}
}

macro_rules! not_from_integer {
    ($($type:ty),*) => {$(
        // Higher-ranked, because the compiler rejects a plain bound that is never met.
        #[doc(hidden)]
        impl From<$type> for LockKey
        where
            for<'n> &'n $type: integer::IntegerKey,
        {
            fn from(number: $type) -> Self {
                Self::from_parts([number])
            }
        }
    )*};
}
not_from_integer!(i8, i16, i32, i128, isize, u8, u16, u32, u64, u128, usize);

/// The pair as it is.
impl From<(i32, i32)> for LockKey {
    fn from((first, second): (i32, i32)) -> Self {
        Self::from_raw(RawLockKey::Pair(first, second))
    }
}

impl From<RawLockKey> for LockKey {
    fn from(raw: RawLockKey) -> Self {
        Self::from_raw(raw)
    }
}

impl From<&Self> for LockKey {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}

macro_rules! from_tuple {
    ($($part:ident)*) => {
        /// Derived from the parts in order.
        impl<T: KeyText, $($part: KeyPart),*> From<(T, $($part),*)> for LockKey {
            fn from((first, $($part),*): (T, $($part),*)) -> Self {
                let mut derivation = Derivation::new();
                derivation.add(&first);
                $(derivation.add(&$part);)*
                derivation.finish()
            }
        }
    };
}

#[expect(non_snake_case, reason = "the macro names a variable after its type")]
mod tuples {
    use super::{Derivation, KeyPart, KeyText, LockKey};

    from_tuple!(A);
    from_tuple!(A B);
    from_tuple!(A B C);
    from_tuple!(A B C D);
    from_tuple!(A B C D E);
}
