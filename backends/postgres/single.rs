//! One lock in one statement, for a locker: the text of a [`SingleStep`](crate::session::SingleStep).
//!
//! It tells no more than the answer, and asks first whether this is the session that was meant: so a lock is never taken in another, and a
//! pooler in between shows.

use crate::key::KeySpace;
use crate::options::LockMode;
use crate::session::{Bind, Does};

macro_rules! if_meant {
    ($function:literal, $key:literal) => {
        concat!(
            "SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) $1::pg_catalog.int4 THEN pg_catalog.",
            $function,
            "(",
            $key,
            ") END"
        )
    };
}

/// By mode and key space.
macro_rules! text {
    ($mode:expr, $key:expr, $exclusive:literal, $shared:literal) => {
        match ($mode, $key) {
            (LockMode::Exclusive, KeySpace::Single(_)) => {
                if_meant!($exclusive, "$2::pg_catalog.int8")
            }
            (LockMode::Exclusive, KeySpace::Pair(..)) => {
                if_meant!($exclusive, "$2::pg_catalog.int4, $3::pg_catalog.int4")
            }
            (LockMode::Shared, KeySpace::Single(_)) => if_meant!($shared, "$2::pg_catalog.int8"),
            (LockMode::Shared, KeySpace::Pair(..)) => {
                if_meant!($shared, "$2::pg_catalog.int4, $3::pg_catalog.int4")
            }
        }
    };
}

/// The text of a single step.
pub(crate) const fn single_step(does: Does, key: KeySpace, mode: LockMode) -> &'static str {
    match does {
        Does::Take => text!(
            mode,
            key,
            "pg_try_advisory_lock",
            "pg_try_advisory_lock_shared"
        ),
        Does::GiveBack => text!(mode, key, "pg_advisory_unlock", "pg_advisory_unlock_shared"),
    }
}

/// The values of a single step, in the order of its parameters.
pub(crate) fn single_step_binds(pid: i32, key: KeySpace) -> impl Iterator<Item = Bind> + use<> {
    let (first, second) = match key {
        KeySpace::Single(number) => (Bind::Int8(number), None),
        KeySpace::Pair(first, second) => (Bind::Int4(first), Some(Bind::Int4(second))),
    };
    [Bind::Int4(pid), first].into_iter().chain(second)
}
