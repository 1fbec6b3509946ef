//! Many locks in one statement: the text of a [`LockBatch`](crate::session::LockBatch) and how its steps are written as numbers.
//!
//! The parameters stand once each and in order, because Diesel numbers them by itself; so they are named in `FROM`.

use crate::key::RawLockKey;
use crate::options::LockMode;
use crate::session::{BatchMode, LockOp, LockOpKind, TokenSource};

/// A step's code: bit 0 is shared mode, bit 1 a pair of numbers, bits 2 and 3 what is done, bit 4 whether a token is drawn.
pub(crate) fn step_code(step: &LockOp) -> i64 {
    let shared = i64::from(step.mode() == LockMode::Shared);
    let pair = i64::from(matches!(step.key(), RawLockKey::Pair(..)));
    let (what, with_token) = match step.kind() {
        LockOpKind::Acquire { with_token } => (0, i64::from(with_token)),
        LockOpKind::Release => (1, 0),
        LockOpKind::IssueToken => (2, 1),
    };
    16 * with_token + 4 * what + 2 * pair + shared
}

/// A step's key: the number itself, or the pair's first number in the upper half and its second in the lower.
pub(crate) fn step_number(step: &LockOp) -> i64 {
    match step.key() {
        RawLockKey::Single(number) => number,
        RawLockKey::Pair(first, second) => {
            (i64::from(first) << 32) | (i64::from(second) & 0xFFFF_FFFF)
        }
    }
}

/// The sequence to bind, if the text has a parameter for it.
pub(crate) fn round_sequence(kind: BatchMode, tokens: &TokenSource) -> Option<&str> {
    match (kind, tokens) {
        (BatchMode::Execute, TokenSource::Sequence(name)) => Some(name),
        (BatchMode::Execute, TokenSource::TransactionId) | (BatchMode::Compensate, _) => None,
    }
}

/// The session that is meant and the steps.
macro_rules! steps {
    () => {
        "(SELECT $1::pg_catalog.int4 AS pid) AS meant, \
         ROWS FROM (pg_catalog.unnest($2::pg_catalog.int8[]), pg_catalog.unnest($3::pg_catalog.int8[])) \
         WITH ORDINALITY AS step (code, number, at)"
    };
}

/// Any other session does nothing.
macro_rules! if_meant {
    () => {
        "meant.pid OPERATOR(pg_catalog.=) 0 OR meant.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
    };
}

/// The pair of numbers in one: `number`'s two halves with their signs.
macro_rules! halves {
    ($number:literal) => {
        concat!(
            "(",
            $number,
            " OPERATOR(pg_catalog.>>) 32)::pg_catalog.int4, ((",
            $number,
            " OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.>>) 32)::pg_catalog.int4"
        )
    };
}

/// Whether the bits of a step's code under `$mask` are `$bits`. Not `CASE code WHEN bits`, which looks for its `=` on the `search_path`.
macro_rules! code_is {
    ($mask:literal, $bits:literal) => {
        concat!(
            "(step.code OPERATOR(pg_catalog.&) ",
            $mask,
            ") OPERATOR(pg_catalog.=) ",
            $bits
        )
    };
}

/// Four calls, chosen by mode and key space.
macro_rules! by_code {
    ($exclusive:literal, $mask:literal, $first:literal, $second:literal, $third:literal, $fourth:literal) => {
        concat!(
            "WHEN ",
            code_is!($mask, $first),
            " THEN pg_catalog.",
            $exclusive,
            "(step.number) ",
            "WHEN ",
            code_is!($mask, $second),
            " THEN pg_catalog.",
            $exclusive,
            "_shared(step.number) ",
            "WHEN ",
            code_is!($mask, $third),
            " THEN pg_catalog.",
            $exclusive,
            "(",
            halves!("step.number"),
            ") ",
            "WHEN ",
            code_is!($mask, $fourth),
            " THEN pg_catalog.",
            $exclusive,
            "_shared(",
            halves!("step.number"),
            ") "
        )
    };
}

/// Serves the steps, in their order, then draws the tokens.
///
/// A transaction has one id, given when it is first asked for. So that is after the last grant: one given in the midst of the steps could
/// be smaller than one that another session has drawn, and given its lock back, before a later step was granted that lock. A
/// sequence is asked for each step, after its grant.
///
/// The inner query calls volatile functions, so it is not merged into the outer ones, and each function is called once for each step.
macro_rules! serve {
    ($also:literal, $may_take:literal, $from:literal, $number:literal, $second:literal) => {
        concat!(
            "SELECT done.answers, done.token, pg_catalog.pg_backend_pid() FROM (SELECT ",
            "pg_catalog.array_agg(CASE WHEN served.yes THEN ",
            $number,
            " END ORDER BY served.at) AS answers, ",
            $second,
            " FROM (SELECT step.at, step.code OPERATOR(pg_catalog.>=) 16 AS with_token, ",
            $also,
            "CASE WHEN step.code OPERATOR(pg_catalog.<) 16 OR ",
            $may_take,
            " THEN CASE ",
            by_code!("pg_try_advisory_lock", "15", "0", "1", "2", "3"),
            by_code!("pg_advisory_unlock", "15", "4", "5", "6", "7"),
            "ELSE true END END AS yes FROM ",
            steps!(),
            $from,
            " WHERE ",
            if_meant!(),
            ") AS served) AS done"
        )
    };
}

const SERVE_WITH_TRANSACTION_ID: &str = serve!(
    "",
    "true",
    "",
    "1::pg_catalog.int8",
    "CASE WHEN pg_catalog.bool_or(served.yes AND served.with_token) \
     THEN pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8 END AS token"
);

/// Numbers that a session keeps in a cache, or that start again, do not grow over all sessions.
const SERVE_WITH_SEQUENCE: &str = serve!(
    "named.sequence, kept.fit, ",
    "kept.fit",
    " CROSS JOIN (SELECT $4::pg_catalog.text::pg_catalog.regclass AS sequence) AS named \
     LEFT JOIN (SELECT seqrelid, seqcache OPERATOR(pg_catalog.=) 1 AND seqincrement OPERATOR(pg_catalog.>) 0 \
     AND NOT seqcycle AS fit FROM pg_catalog.pg_sequence) AS kept ON kept.seqrelid OPERATOR(pg_catalog.=) named.sequence",
    "CASE WHEN served.with_token THEN pg_catalog.nextval(served.sequence) ELSE 1 END",
    "pg_catalog.min(CASE WHEN served.fit THEN 1::pg_catalog.int8 ELSE 0 END) AS token"
);

/// Gives back what this session shows in `pg_locks`.
const UNDO: &str = concat!(
    "SELECT undone.answers, NULL::pg_catalog.int8, pg_catalog.pg_backend_pid() FROM (SELECT ",
    "pg_catalog.array_agg(CASE WHEN shown.yes THEN 1::pg_catalog.int8 END ORDER BY shown.at) AS answers FROM (SELECT step.at, ",
    "CASE WHEN held.granted THEN CASE ",
    by_code!("pg_advisory_unlock", "3", "0", "1", "2", "3"),
    "END END AS yes FROM ",
    steps!(),
    " LEFT JOIN pg_catalog.pg_locks AS held ON held.locktype OPERATOR(pg_catalog.=) 'advisory' AND held.granted ",
    "AND held.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() ",
    "AND held.classid::pg_catalog.int8 OPERATOR(pg_catalog.=) ",
    "((step.number OPERATOR(pg_catalog.>>) 32) OPERATOR(pg_catalog.&) 4294967295) ",
    "AND held.objid::pg_catalog.int8 OPERATOR(pg_catalog.=) (step.number OPERATOR(pg_catalog.&) 4294967295) ",
    "AND held.objsubid OPERATOR(pg_catalog.=) ",
    "CASE WHEN ",
    code_is!("2", "0"),
    " THEN 1 ELSE 2 END ",
    "AND held.mode OPERATOR(pg_catalog.=) ",
    "CASE WHEN ",
    code_is!("1", "0"),
    " THEN 'ExclusiveLock' ELSE 'ShareLock' END WHERE ",
    if_meant!(),
    ") AS shown) AS undone"
);

/// The text of a round.
pub(crate) const fn round(kind: BatchMode, tokens: &TokenSource) -> &'static str {
    match (kind, tokens) {
        (BatchMode::Execute, TokenSource::TransactionId) => SERVE_WITH_TRANSACTION_ID,
        (BatchMode::Execute, TokenSource::Sequence(_)) => SERVE_WITH_SEQUENCE,
        (BatchMode::Compensate, _) => UNDO,
    }
}
