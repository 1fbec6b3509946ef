//! The texts about one lock: those of a connection, and single operations of a lock manager.
//!
//! Each parameter occurs once and in order, because Diesel numbers parameters itself.

use std::iter;

use super::server_signs::{STANDBY_SIGN, STUB_SIGN};
use super::{Bind, LockOp, NEGATIVE_INFINITY, ServerSigns, StatementKind};
use crate::key::{PgLocksColumns, RawLockKey};
use crate::options::{LockMode, LockScope};

/// The columns after the answer: the session and the start of its transaction.
///
/// Outside a transaction each statement is a transaction of its own, so two statements with equal
/// starts ran in one transaction. [`CURRENT_TIMESTAMP`] is a keyword, so no `search_path` changes
/// it.
///
/// [`CURRENT_TIMESTAMP`]: https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT
const SESSION_COLUMNS: &str = "pg_catalog.pg_backend_pid(), CURRENT_TIMESTAMP";

/// The condition that no transaction with uncommitted work is open, for a grant outside any
/// transaction.
///
/// [`txid_current_if_assigned`] is the name that every supported version has. Outside a transaction
/// it is null, because a statement that releases a lock writes nothing.
///
/// [`txid_current_if_assigned`]: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
pub(super) const NOTHING_UNCOMMITTED: &str = "pg_catalog.txid_current_if_assigned() IS NULL";

/// Returns the end of a function's name.
pub(super) const fn suffix(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Exclusive => "",
        LockMode::Shared => "_shared",
    }
}

/// Returns a call of a lock function. The parameters of the key have the numbers from `first`.
fn call(function: &str, key: RawLockKey, mode: LockMode, first: u8) -> String {
    let (suffix, second) = (suffix(mode), first + 1);
    match key {
        RawLockKey::Single(_) => {
            format!("pg_catalog.{function}{suffix}(${first}::pg_catalog.int8)")
        }
        RawLockKey::Pair(..) => format!(
            "pg_catalog.{function}{suffix}(${first}::pg_catalog.int4, ${second}::pg_catalog.int4)"
        ),
    }
}

/// Returns the text that attempts the lock unless the server shows a refused sign, which it returns
/// then.
///
/// `$1` and `$2` are 0 if the signs of a stub and of a standby are accepted. [`COALESCE`] evaluates
/// its last argument, the call, only if the others are null.
///
/// [`COALESCE`]: https://www.postgresql.org/docs/current/functions-conditional.html#FUNCTIONS-COALESCE-NVL-IFNULL
fn unless_refused(scope: LockScope, key: RawLockKey, mode: LockMode) -> String {
    let function = match scope {
        LockScope::Session => "pg_try_advisory_lock",
        LockScope::Transaction => "pg_try_advisory_xact_lock",
    };
    let attempt = call(function, key, mode, 3);
    format!(
        "SELECT COALESCE(\
         CASE WHEN $1::pg_catalog.int4 OPERATOR(pg_catalog.<>) 0 THEN {STUB_SIGN} END, \
         CASE WHEN $2::pg_catalog.int4 OPERATOR(pg_catalog.<>) 0 THEN {STANDBY_SIGN} END, \
         {attempt}::pg_catalog.int4), {SESSION_COLUMNS}"
    )
}

/// Returns the text that releases the lock on the expected session, outside any transaction that
/// the client does not know of.
///
/// [`CASE`] evaluates the call only if the conditions hold. The conditions and the release are in
/// one statement, so that a pooler cannot send them to two sessions.
///
/// [`CASE`]: https://www.postgresql.org/docs/current/functions-conditional.html#FUNCTIONS-CASE
fn release(key: RawLockKey, mode: LockMode) -> String {
    let unlock = call("pg_advisory_unlock", key, mode, 2);
    let began = match key {
        RawLockKey::Single(_) => "$3",
        RawLockKey::Pair(..) => "$4",
    };
    // Each parameter occurs once, and the start is needed twice.
    format!(
        "SELECT CASE \
         WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) $1::pg_catalog.int4 \
         AND (granted.began OPERATOR(pg_catalog.=) '-infinity'::pg_catalog.timestamptz \
         OR (CURRENT_TIMESTAMP OPERATOR(pg_catalog.<>) granted.began AND {NOTHING_UNCOMMITTED})) \
         THEN {unlock} END, {SESSION_COLUMNS} \
         FROM (SELECT {began}::pg_catalog.timestamptz AS began) AS granted"
    )
}

/// The condition on a row of `pg_locks` that this session holds the lock.
const BY_SESSION: &str = "held.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()";

/// The condition that a [prepared transaction] of this database holds the lock. It has no process
/// id.
///
/// [prepared transaction]: https://www.postgresql.org/docs/current/sql-prepare-transaction.html
const BY_PREPARED_TRANSACTION: &str = "held.pid IS NULL AND held.database \
     OPERATOR(pg_catalog.=) (SELECT current.oid FROM pg_catalog.pg_database AS current \
     WHERE current.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())";

/// Returns the clause that finds the row of [`pg_locks`] for the lock, with this holder.
///
/// A session holds locks of one database only, so [`BY_SESSION`] does not compare the database.
/// Reading `pg_database`, which all databases share, would need room in the lock table, which may
/// be full. Nor does the text compare `granted`: a session that runs a statement waits for no lock.
///
/// [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
fn from_pg_locks(
    holder: &str,
    [classid, objid]: [&str; 2],
    key: RawLockKey,
    mode: LockMode,
) -> String {
    let objsubid = key.pg_locks().objsubid;
    let mode = match mode {
        LockMode::Exclusive => "ExclusiveLock",
        LockMode::Shared => "ShareLock",
    };
    format!(
        "FROM pg_catalog.pg_locks AS held WHERE held.locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND {holder} \
         AND held.classid OPERATOR(pg_catalog.=) {classid}::pg_catalog.int8::pg_catalog.oid \
         AND held.objid OPERATOR(pg_catalog.=) {objid}::pg_catalog.int8::pg_catalog.oid \
         AND held.objsubid OPERATOR(pg_catalog.=) {objsubid} \
         AND held.mode OPERATOR(pg_catalog.=) '{mode}'"
    )
}

/// Returns the text that releases the lock if `pg_locks` shows it for the expected session, or for
/// any if that is 0.
///
/// The key occurs twice: first as the parameters of the function, then as columns of `pg_locks`.
/// So the numbers of the later parameters depend on the key space.
fn release_if_held(key: RawLockKey, mode: LockMode) -> String {
    let unlock = call("pg_advisory_unlock", key, mode, 1);
    let (columns, pid) = match key {
        RawLockKey::Single(_) => (["$2", "$3"], "$4"),
        RawLockKey::Pair(..) => (["$3", "$4"], "$5"),
    };
    let from = from_pg_locks(BY_SESSION, columns, key, mode);
    format!(
        "SELECT (SELECT {unlock} {from} \
         AND {pid}::pg_catalog.int4 OPERATOR(pg_catalog.=) ANY (ARRAY[0, held.pid])), \
         {SESSION_COLUMNS}"
    )
}

/// Returns the condition that `pg_locks` shows the lock for this holder.
fn is_held_by(holder: &str, columns: [&str; 2], key: RawLockKey, mode: LockMode) -> String {
    let from = from_pg_locks(holder, columns, key, mode);
    format!("EXISTS (SELECT {from})")
}

/// Returns the text that returns whether `pg_locks` shows the lock for this holder.
fn is_held(holder: &str, key: RawLockKey, mode: LockMode) -> String {
    let is_held = is_held_by(holder, ["$1", "$2"], key, mode);
    format!("SELECT {is_held}, {SESSION_COLUMNS}")
}

/// Returns the condition that `pg_locks` shows the lock for this session, with the key written out.
pub(super) fn held_by_session(key: RawLockKey, mode: LockMode) -> String {
    let PgLocksColumns { classid, objid, .. } = key.pg_locks();
    // A simple query has no parameters. The values are integers, so the text contains no quote.
    let [classid, objid] = [classid, objid].map(|column| format!("'{column}'"));
    is_held_by(BY_SESSION, [&classid, &objid], key, mode)
}

/// Returns the text of a statement of a connection.
pub(super) fn sql(kind: StatementKind, key: RawLockKey, mode: LockMode) -> String {
    match kind {
        StatementKind::TryAcquire { scope, .. } => unless_refused(scope, key, mode),
        StatementKind::Release { .. } => release(key, mode),
        StatementKind::ReleaseIfHeld { .. } => release_if_held(key, mode),
        StatementKind::IsHeld => is_held(BY_SESSION, key, mode),
        StatementKind::IsHeldByPreparedTransaction => is_held(BY_PREPARED_TRANSACTION, key, mode),
    }
}

/// Returns the values of a statement of a connection, in the order of its parameters.
pub(super) fn binds(kind: StatementKind, key: RawLockKey) -> Vec<Bind> {
    let PgLocksColumns { classid, objid, .. } = key.pg_locks();
    let columns = [classid, objid].map(|column| Bind::Int8(column.into()));
    let key = key_binds(key);
    match kind {
        StatementKind::TryAcquire { refuses, .. } => {
            let refused = |signs| Bind::Int4(refuses.intersection(signs).bits());
            let signs = [ServerSigns::STUBS, ServerSigns::STANDBY].map(refused);
            signs.into_iter().chain(key).collect()
        }
        StatementKind::Release {
            pid,
            transaction_began,
        } => {
            let pid = iter::once(Bind::Int4(pid));
            let began = Bind::Timestamptz(transaction_began.unwrap_or(NEGATIVE_INFINITY));
            pid.chain(key).chain([began]).collect()
        }
        StatementKind::ReleaseIfHeld { pid } => {
            // No session has the process id 0.
            let pid = Bind::Int4(pid.unwrap_or(0));
            key.chain(columns).chain([pid]).collect()
        }
        StatementKind::IsHeld | StatementKind::IsHeldByPreparedTransaction => Vec::from(columns),
    }
}

/// Returns the key as the lock functions take it: one `int8` or two `int4`.
pub(super) fn key_binds(key: RawLockKey) -> impl Iterator<Item = Bind> {
    let binds = match key {
        RawLockKey::Single(number) => [Some(Bind::Int8(number)), None],
        RawLockKey::Pair(first, second) => [Some(Bind::Int4(first)), Some(Bind::Int4(second))],
    };
    binds.into_iter().flatten()
}

/// Returns the text of a single operation, which issues no token.
///
/// It does nothing on another session than the expected one, and returns null there. So no lock is
/// acquired on a session that the lock manager does not know.
pub(super) fn single_op_sql(op: &LockOp) -> String {
    let function = if op.is_release() {
        "pg_advisory_unlock"
    } else {
        "pg_try_advisory_lock"
    };
    let call = call(function, op.key(), op.mode(), 2);
    format!(
        "SELECT CASE \
         WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) $1::pg_catalog.int4 \
         THEN {call} END"
    )
}
