//! The texts about one lock: those of a connection, and single operations of a lock manager.

use super::server_signs::{standby_sign, stub_sign};
use super::{Bind, Binds, LockOp, NEGATIVE_INFINITY, ServerSigns, StatementKind};
use crate::key::{PgLocksColumns, RawLockKey};
use crate::options::{LockMode, LockScope};

/// The columns after the answer: the session and the start of its transaction.
///
/// Outside a transaction each statement is a transaction of its own, so two statements with equal
/// starts ran in one transaction. [`CURRENT_TIMESTAMP`] is a keyword, so no `search_path` changes
/// it.
///
/// [`CURRENT_TIMESTAMP`]: https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT
macro_rules! session_columns {
    () => {
        ", pg_catalog.pg_backend_pid(), CURRENT_TIMESTAMP"
    };
}

/// Chooses one of four texts made by `$text!`, whose first argument may be the name of a function.
///
/// The mode decides the suffix of the function and the mode in `pg_locks`. The key space decides
/// the parameters of the key and `objsubid`.
///
/// Each parameter occurs once and in order, because Diesel numbers parameters itself.
macro_rules! by_mode_and_space {
    ($mode:expr, $key:expr, $text:ident $(($function:literal))?, $single:literal, $pair:literal) => {
        match ($mode, $key) {
            (LockMode::Exclusive, RawLockKey::Single(_)) => {
                $text!($($function,)? "", "ExclusiveLock", $single, "1")
            }
            (LockMode::Exclusive, RawLockKey::Pair(..)) => {
                $text!($($function,)? "", "ExclusiveLock", $pair, "2")
            }
            (LockMode::Shared, RawLockKey::Single(_)) => {
                $text!($($function,)? "_shared", "ShareLock", $single, "1")
            }
            (LockMode::Shared, RawLockKey::Pair(..)) => {
                $text!($($function,)? "_shared", "ShareLock", $pair, "2")
            }
        }
    };
}

/// The text that calls `$function` unless the server shows a refused sign, which it returns then.
///
/// `$1` and `$2` are 0 if the signs of a stub and of a standby are accepted. [`COALESCE`] evaluates
/// its last argument, the call, only if the others are null.
///
/// [`COALESCE`]: https://www.postgresql.org/docs/current/functions-conditional.html#FUNCTIONS-COALESCE-NVL-IFNULL
macro_rules! unless_refused {
    ($function:literal, $suffix:literal, $pg_locks_mode:literal, $key:literal, $objsubid:literal) => {
        concat!(
            "SELECT COALESCE(CASE WHEN $1::pg_catalog.int4 OPERATOR(pg_catalog.<>) 0 THEN ",
            stub_sign!(),
            " END, CASE WHEN $2::pg_catalog.int4 OPERATOR(pg_catalog.<>) 0 THEN ",
            standby_sign!(),
            " END, pg_catalog.",
            $function,
            $suffix,
            "(",
            $key,
            ")::pg_catalog.int4)",
            session_columns!()
        )
    };
}

/// The condition that no transaction with uncommitted work is open, for a grant outside any
/// transaction.
///
/// [`txid_current_if_assigned`] is the name that every supported version has. Outside a transaction
/// it is null, because a statement that releases a lock writes nothing.
///
/// [`txid_current_if_assigned`]: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
macro_rules! nothing_uncommitted {
    () => {
        "pg_catalog.txid_current_if_assigned() IS NULL"
    };
}
pub(super) use nothing_uncommitted;

/// The text that releases the lock on the expected session, outside any transaction that the client
/// does not know of.
///
/// [`CASE`] evaluates the call only if the conditions hold. The conditions and the release are in
/// one statement, so that a pooler cannot send them to two sessions.
///
/// [`CASE`]: https://www.postgresql.org/docs/current/functions-conditional.html#FUNCTIONS-CASE
macro_rules! release {
    ($suffix:literal, $pg_locks_mode:literal, $key:literal, "1") => {
        release!($suffix, $key, "$3")
    };
    ($suffix:literal, $pg_locks_mode:literal, $key:literal, "2") => {
        release!($suffix, $key, "$4")
    };
    ($suffix:literal, $key:literal, $began:literal) => {
        concat!(
            "SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) $1::pg_catalog.int4 ",
            "AND (granted.began OPERATOR(pg_catalog.=) '-infinity'::pg_catalog.timestamptz ",
            "OR (CURRENT_TIMESTAMP OPERATOR(pg_catalog.<>) granted.began AND ",
            nothing_uncommitted!(),
            ")) THEN pg_catalog.pg_advisory_unlock",
            $suffix,
            "(",
            $key,
            ") END",
            session_columns!(),
            // Each parameter occurs once, and the start is needed twice.
            " FROM (SELECT ",
            $began,
            "::pg_catalog.timestamptz AS began) AS granted"
        )
    };
}

/// The row of [`pg_locks`] for the lock, if this session holds it.
///
/// A session holds locks of one database only, so the text does not compare the database. Reading
/// `pg_database`, which all databases share, would need room in the lock table, which may be full.
/// Nor does it compare `granted`: a session that runs a statement waits for no lock.
///
/// [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
macro_rules! from_pg_locks {
    ($pg_locks_mode:literal, $classid:literal, $objid:literal, $objsubid:literal) => {
        from_pg_locks!(
            "held.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()",
            $pg_locks_mode,
            $classid,
            $objid,
            $objsubid
        )
    };
    ($holder:literal, $pg_locks_mode:literal, $classid:literal, $objid:literal, $objsubid:literal) => {
        concat!(
            " FROM pg_catalog.pg_locks AS held WHERE held.locktype OPERATOR(pg_catalog.=) 'advisory' AND ",
            $holder,
            " AND held.classid OPERATOR(pg_catalog.=) ",
            $classid,
            "::pg_catalog.int8::pg_catalog.oid ",
            "AND held.objid OPERATOR(pg_catalog.=) ",
            $objid,
            "::pg_catalog.int8::pg_catalog.oid ",
            "AND held.objsubid OPERATOR(pg_catalog.=) ",
            $objsubid,
            " AND held.mode OPERATOR(pg_catalog.=) '",
            $pg_locks_mode,
            "'"
        )
    };
}

/// The text that releases the lock if `pg_locks` shows it for the expected session, or for any if
/// that is 0.
///
/// The key occurs twice: first as the parameters of the function, then as columns of `pg_locks`.
/// So the numbers of the later parameters depend on the key space.
macro_rules! release_if_held {
    ($suffix:literal, $pg_locks_mode:literal, $key:literal, "1") => {
        release_if_held!(
            $suffix,
            $key,
            from_pg_locks!($pg_locks_mode, "$2", "$3", "1"),
            "$4"
        )
    };
    ($suffix:literal, $pg_locks_mode:literal, $key:literal, "2") => {
        release_if_held!(
            $suffix,
            $key,
            from_pg_locks!($pg_locks_mode, "$3", "$4", "2"),
            "$5"
        )
    };
    ($suffix:literal, $key:literal, $from:expr, $pid:literal) => {
        concat!(
            "SELECT (SELECT pg_catalog.pg_advisory_unlock",
            $suffix,
            "(",
            $key,
            ")",
            $from,
            " AND ",
            $pid,
            "::pg_catalog.int4 OPERATOR(pg_catalog.=) ANY (ARRAY[0, held.pid]))",
            session_columns!()
        )
    };
}

/// The condition that `pg_locks` shows the lock for this session.
macro_rules! held_by_session {
    ($suffix:literal, $pg_locks_mode:literal, $key:literal, $objsubid:tt) => {
        concat!(
            "EXISTS (SELECT",
            from_pg_locks!($pg_locks_mode, "$1", "$2", $objsubid),
            ")"
        )
    };
}

/// The text that returns whether `pg_locks` shows the lock.
macro_rules! is_held {
    ($suffix:literal, $pg_locks_mode:literal, $key:literal, $objsubid:tt) => {
        concat!(
            "SELECT ",
            held_by_session!($suffix, $pg_locks_mode, $key, $objsubid),
            session_columns!()
        )
    };
}

/// The text that returns whether a [prepared transaction] holds the lock, which has no process id.
///
/// [prepared transaction]: https://www.postgresql.org/docs/current/sql-prepare-transaction.html
macro_rules! held_by_prepared_transaction {
    ($suffix:literal, $pg_locks_mode:literal, $key:literal, $objsubid:tt) => {
        concat!(
            "SELECT EXISTS (SELECT",
            from_pg_locks!(
                "held.pid IS NULL AND held.database OPERATOR(pg_catalog.=) (SELECT current.oid \
                 FROM pg_catalog.pg_database AS current \
                 WHERE current.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())",
                $pg_locks_mode,
                "$1",
                "$2",
                $objsubid
            ),
            ")",
            session_columns!()
        )
    };
}

/// Returns the condition that `pg_locks` shows the lock for this session, with the key written out.
pub(super) fn held_by_session(key: RawLockKey, mode: LockMode) -> String {
    let PgLocksColumns { classid, objid, .. } = key.pg_locks();
    // A simple query has no parameters. The values are integers, so the text contains no quote.
    by_mode_and_space!(mode, key, held_by_session, "", "")
        .replace("$1", &format!("'{classid}'"))
        .replace("$2", &format!("'{objid}'"))
}

/// Returns the text of a statement of a connection.
pub(super) const fn sql(kind: StatementKind, key: RawLockKey, mode: LockMode) -> &'static str {
    match kind {
        StatementKind::TryAcquire {
            scope: LockScope::Session,
            ..
        } => by_mode_and_space!(
            mode,
            key,
            unless_refused("pg_try_advisory_lock"),
            "$3::pg_catalog.int8",
            "$3::pg_catalog.int4, $4::pg_catalog.int4"
        ),
        StatementKind::TryAcquire {
            scope: LockScope::Transaction,
            ..
        } => by_mode_and_space!(
            mode,
            key,
            unless_refused("pg_try_advisory_xact_lock"),
            "$3::pg_catalog.int8",
            "$3::pg_catalog.int4, $4::pg_catalog.int4"
        ),
        StatementKind::Release { .. } => by_mode_and_space!(
            mode,
            key,
            release,
            "$2::pg_catalog.int8",
            "$2::pg_catalog.int4, $3::pg_catalog.int4"
        ),
        StatementKind::ReleaseIfHeld { .. } => by_mode_and_space!(
            mode,
            key,
            release_if_held,
            "$1::pg_catalog.int8",
            "$1::pg_catalog.int4, $2::pg_catalog.int4"
        ),
        StatementKind::IsHeld => by_mode_and_space!(mode, key, is_held, "", ""),
        StatementKind::IsHeldByPreparedTransaction => {
            by_mode_and_space!(mode, key, held_by_prepared_transaction, "", "")
        }
    }
}

/// Returns the values of a statement of a connection, in the order of its parameters.
pub(super) fn binds(kind: StatementKind, key: RawLockKey) -> Binds {
    let PgLocksColumns { classid, objid, .. } = key.pg_locks();
    let columns = || [classid, objid].map(|column| Some(Bind::Int8(column.into())));
    let [first, second] = key_binds(key);
    match kind {
        StatementKind::TryAcquire { refuses, .. } => {
            let refused = |signs| Some(Bind::Int4(refuses.intersection(signs).bits()));
            let [stubs, standby] = [ServerSigns::STUBS, ServerSigns::STANDBY].map(refused);
            [stubs, standby, first, second, None]
        }
        StatementKind::Release {
            pid,
            transaction_began,
        } => {
            let pid = Some(Bind::Int4(pid));
            let began = Bind::Timestamptz(transaction_began.unwrap_or(NEGATIVE_INFINITY));
            // A key of one number has one parameter only.
            match second {
                Some(_) => [pid, first, second, Some(began), None],
                None => [pid, first, Some(began), None, None],
            }
        }
        StatementKind::ReleaseIfHeld { pid } => {
            let [classid, objid] = columns();
            // No session has the process id 0.
            let pid = Some(Bind::Int4(pid.unwrap_or(0)));
            // A key of one number has one parameter only.
            match second {
                Some(_) => [first, second, classid, objid, pid],
                None => [first, classid, objid, pid, None],
            }
        }
        StatementKind::IsHeld | StatementKind::IsHeldByPreparedTransaction => {
            let [classid, objid] = columns();
            [classid, objid, None, None, None]
        }
    }
}

/// Returns the key as the lock functions take it: one `int8` or two `int4`.
pub(super) const fn key_binds(key: RawLockKey) -> [Option<Bind>; 2] {
    match key {
        RawLockKey::Single(number) => [Some(Bind::Int8(number)), None],
        RawLockKey::Pair(first, second) => [Some(Bind::Int4(first)), Some(Bind::Int4(second))],
    }
}

/// The text of a single operation. It does nothing on another session than the expected one, and
/// returns null there. So no lock is acquired on a session that the lock manager does not know.
///
/// The operations need no columns of `pg_locks`, which [`by_mode_and_space`] passes to each text.
macro_rules! if_pid_matches {
    ($function:literal, $suffix:literal, $pg_locks_mode:literal, $key:literal, $objsubid:literal) => {
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

/// Returns the text of a single operation, which issues no token.
pub(super) const fn single_op_sql(op: &LockOp) -> &'static str {
    if op.is_release() {
        by_mode_and_space!(
            op.mode(),
            op.key(),
            if_pid_matches("pg_advisory_unlock"),
            "$2::pg_catalog.int8",
            "$2::pg_catalog.int4, $3::pg_catalog.int4"
        )
    } else {
        by_mode_and_space!(
            op.mode(),
            op.key(),
            if_pid_matches("pg_try_advisory_lock"),
            "$2::pg_catalog.int8",
            "$2::pg_catalog.int4, $3::pg_catalog.int4"
        )
    }
}
