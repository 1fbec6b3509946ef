//! One lock in one statement, for a locker: the text of a [`SingleOp`](crate::session::SingleOp).
//!
//! It tells no more than the answer, and asks first whether this is the session that was meant: so a lock is never taken in another, and a
//! pooler in between shows.

use super::{by_mode_and_space, numbers};
use crate::key::RawLockKey;
use crate::options::LockMode;
use crate::session::{Bind, LockOp, LockOpKind};

macro_rules! if_meant {
    ($function:literal, $suffix:literal, $key:literal) => {
        concat!(
            "SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) $1::pg_catalog.int4 THEN pg_catalog.",
            $function,
            $suffix,
            "(",
            $key,
            ") END"
        )
    };
}

macro_rules! take {
    ($suffix:literal, $shown:literal, $key:literal, $objsubid:literal) => {
        if_meant!("pg_try_advisory_lock", $suffix, $key)
    };
}

macro_rules! give_back {
    ($suffix:literal, $shown:literal, $key:literal, $objsubid:literal) => {
        if_meant!("pg_advisory_unlock", $suffix, $key)
    };
}

/// The text of a single step.
pub(crate) const fn single_step(step: &LockOp) -> &'static str {
    match step.kind() {
        LockOpKind::Release => by_mode_and_space!(
            step.mode(),
            step.key(),
            give_back,
            "$2::pg_catalog.int8",
            "$2::pg_catalog.int4, $3::pg_catalog.int4"
        ),
        // A single step draws nothing.
        LockOpKind::Acquire { .. } | LockOpKind::IssueToken => by_mode_and_space!(
            step.mode(),
            step.key(),
            take,
            "$2::pg_catalog.int8",
            "$2::pg_catalog.int4, $3::pg_catalog.int4"
        ),
    }
}

/// The values of a single step, in the order of its parameters.
pub(crate) fn single_step_binds(pid: i32, key: RawLockKey) -> impl Iterator<Item = Bind> + use<> {
    std::iter::once(Bind::Int4(pid)).chain(numbers(key).into_iter().flatten())
}
