//! PostgreSQL: every statement that is ever sent, and what its error codes mean.
//!
//! Names are written with their schema, functions and operators alike, so that objects of the same name elsewhere on the
//! `search_path` are never called instead. The only values are integers, bound or written out.

mod rounds;
mod single;

use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::options::LockMode;
#[cfg(any(test, feature = "_postgres"))]
use crate::session::SessionError;
use crate::session::{
    Bind, PoolerCheckStep, ScriptKind, SqlState, StatementKind, TransactionContext,
};

pub(crate) use rounds::{round, round_sequence, step_code, step_number};
pub(crate) use single::{single_step, single_step_binds};

/// What every statement tells besides its answer: the session, and when its transaction began. Outside a transaction each statement
/// is one of its own, so two that began at the same time are one transaction. `CURRENT_TIMESTAMP` is a keyword, so no
/// `search_path` changes it.
macro_rules! session_columns {
    () => {
        ", pg_catalog.pg_backend_pid(), CURRENT_TIMESTAMP"
    };
}

/// Chooses one of four texts made by `$text!`: by mode (function suffix, lock mode in `pg_locks`) and by key space (parameters
/// of the key, `objsubid`).
///
/// Parameters stand in the text once each and in order, because Diesel numbers them by itself.
macro_rules! by_mode_and_space {
    ($mode:expr, $key:expr, $text:ident, $single:literal, $pair:literal) => {
        match ($mode, $key) {
            (LockMode::Exclusive, RawLockKey::Single(_)) => {
                $text!("", "ExclusiveLock", $single, "1")
            }
            (LockMode::Exclusive, RawLockKey::Pair(..)) => $text!("", "ExclusiveLock", $pair, "2"),
            (LockMode::Shared, RawLockKey::Single(_)) => {
                $text!("_shared", "ShareLock", $single, "1")
            }
            (LockMode::Shared, RawLockKey::Pair(..)) => $text!("_shared", "ShareLock", $pair, "2"),
        }
    };
}
use by_mode_and_space;

macro_rules! try_session {
    ($suffix:literal, $shown:literal, $key:literal, $objsubid:literal) => {
        concat!(
            "SELECT pg_catalog.pg_try_advisory_lock",
            $suffix,
            "(",
            $key,
            ")",
            session_columns!()
        )
    };
}

macro_rules! try_in_transaction {
    ($suffix:literal, $shown:literal, $key:literal, $objsubid:literal) => {
        concat!(
            "SELECT pg_catalog.pg_try_advisory_xact_lock",
            $suffix,
            "(",
            $key,
            ")",
            session_columns!()
        )
    };
}

macro_rules! release {
    ($suffix:literal, $shown:literal, $key:literal, $objsubid:literal) => {
        concat!(
            "SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) $1::pg_catalog.int4 ",
            "AND CURRENT_TIMESTAMP OPERATOR(pg_catalog.<>) $2::pg_catalog.timestamptz ",
            "THEN pg_catalog.pg_advisory_unlock",
            $suffix,
            "(",
            $key,
            ") END",
            session_columns!()
        )
    };
}

/// This session's own granted lock in `pg_locks`. A session has locks of one database only, so that is not asked: whoever reads
/// `pg_database`, which all databases share, needs room in the lock table, and it may be full.
macro_rules! from_pg_locks {
    ($shown:literal, $classid:literal, $objid:literal, $objsubid:literal) => {
        concat!(
            " FROM pg_catalog.pg_locks AS held WHERE held.locktype OPERATOR(pg_catalog.=) 'advisory' ",
            "AND held.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() ",
            "AND held.classid OPERATOR(pg_catalog.=) ",
            $classid,
            "::pg_catalog.int8::pg_catalog.oid ",
            "AND held.objid OPERATOR(pg_catalog.=) ",
            $objid,
            "::pg_catalog.int8::pg_catalog.oid ",
            "AND held.objsubid OPERATOR(pg_catalog.=) ",
            $objsubid,
            " AND held.mode OPERATOR(pg_catalog.=) '",
            $shown,
            "' AND held.granted"
        )
    };
}

macro_rules! give_back {
    ($suffix:literal, $shown:literal, $key:literal, "1") => {
        give_back!($suffix, $key, from_pg_locks!($shown, "$2", "$3", "1"))
    };
    ($suffix:literal, $shown:literal, $key:literal, "2") => {
        give_back!($suffix, $key, from_pg_locks!($shown, "$3", "$4", "2"))
    };
    ($suffix:literal, $key:literal, $from:expr) => {
        concat!(
            "SELECT (SELECT pg_catalog.pg_advisory_unlock",
            $suffix,
            "(",
            $key,
            ")",
            $from,
            ")",
            session_columns!()
        )
    };
}

macro_rules! shows {
    ($suffix:literal, $shown:literal, $key:literal, $objsubid:tt) => {
        concat!(
            "SELECT EXISTS (SELECT",
            from_pg_locks!($shown, "$1", "$2", $objsubid),
            ")",
            session_columns!()
        )
    };
}

/// The text of a statement.
pub(crate) fn statement(kind: StatementKind, key: RawLockKey, mode: LockMode) -> &'static str {
    match kind {
        StatementKind::TryAcquire => by_mode_and_space!(
            mode,
            key,
            try_session,
            "$1::pg_catalog.int8",
            "$1::pg_catalog.int4, $2::pg_catalog.int4"
        ),
        StatementKind::TryAcquireXact => by_mode_and_space!(
            mode,
            key,
            try_in_transaction,
            "$1::pg_catalog.int8",
            "$1::pg_catalog.int4, $2::pg_catalog.int4"
        ),
        StatementKind::Release { .. } => by_mode_and_space!(
            mode,
            key,
            release,
            "$3::pg_catalog.int8",
            "$3::pg_catalog.int4, $4::pg_catalog.int4"
        ),
        StatementKind::ReleaseIfHeld => by_mode_and_space!(
            mode,
            key,
            give_back,
            "$1::pg_catalog.int8",
            "$1::pg_catalog.int4, $2::pg_catalog.int4"
        ),
        StatementKind::IsHeld => by_mode_and_space!(mode, key, shows, "", ""),
    }
}

/// The values of a statement, in the order of its parameters.
pub(crate) fn binds(kind: StatementKind, key: RawLockKey) -> impl Iterator<Item = Bind> + use<> {
    let (classid, objid, _) = key.pg_locks_columns();
    let columns = [
        Some(Bind::Int8(classid.into())),
        Some(Bind::Int8(objid.into())),
    ];
    let numbers = numbers(key);
    let (before, after) = match kind {
        StatementKind::TryAcquire | StatementKind::TryAcquireXact => ([None; 2], numbers),
        StatementKind::Release {
            pid,
            transaction_began,
        } => {
            let began = Bind::Timestamptz(transaction_began.unwrap_or(NEVER));
            ([Some(Bind::Int4(pid)), Some(began)], numbers)
        }
        StatementKind::ReleaseIfHeld => (numbers, columns),
        StatementKind::IsHeld => (columns, [None; 2]),
    };
    before.into_iter().chain(after).flatten()
}

/// A key as the lock functions take it.
const fn numbers(key: RawLockKey) -> [Option<Bind>; 2] {
    match key {
        RawLockKey::Single(number) => [Some(Bind::Int8(number)), None],
        RawLockKey::Pair(first, second) => [Some(Bind::Int4(first)), Some(Bind::Int4(second))],
    }
}

/// The text of a batch.
pub(crate) fn batch(kind: ScriptKind, key: RawLockKey, mode: LockMode) -> String {
    let call = |function: &str| call(function, key, mode);
    match kind {
        ScriptKind::RevealSqlState => guarded(&format!(
            "IF {} THEN PERFORM {}; END IF;",
            call("pg_try_advisory_lock"),
            call("pg_advisory_unlock")
        )),
        ScriptKind::PoolerCheck(step) => probe(step, key, mode),
        ScriptKind::ReleaseOrTerminate {
            pid,
            transaction_began,
            nonce,
        } => format!(
            // As a text, the time would depend on settings; as the bytes in which it is sent, it is what the try told.
            "SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) {pid} THEN NULL \
             WHEN pg_catalog.encode(pg_catalog.timestamptz_send(CURRENT_TIMESTAMP), 'hex') \
             OPERATOR(pg_catalog.=) '{:016x}' THEN NULL \
             ELSE CASE WHEN {} IS NOT NULL THEN pg_catalog.set_config({RELEASED}, '{nonce}', false) END END",
            transaction_began.unwrap_or(NEVER),
            call("pg_advisory_unlock")
        ),
        ScriptKind::RollBackWait => {
            format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}; RELEASE SAVEPOINT {SAVEPOINT}")
        }
        ScriptKind::Wait {
            in_transaction,
            place,
            limit_ms,
        } => {
            let function = if in_transaction {
                "pg_advisory_xact_lock"
            } else {
                "pg_advisory_lock"
            };
            let wait = format!(
                "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {limit_ms}; {}",
                guarded(&format!("PERFORM {};", call(function)))
            );
            match place {
                TransactionContext::Autocommit => wait,
                TransactionContext::InTransaction => format!(
                    "SAVEPOINT {SAVEPOINT}; {SAVE_SETTINGS}; {wait}; {RESTORE_SETTINGS}; RELEASE SAVEPOINT {SAVEPOINT}"
                ),
            }
        }
    }
}

/// A step of a probe. Not prepared, and without parameters, so that it goes through every pooler.
fn probe(step: PoolerCheckStep, key: RawLockKey, mode: LockMode) -> String {
    let code = PoolerCheckStep::CHECK_FAILED_SQLSTATE;
    let unless = |found: &str, otherwise: &str| {
        guarded(&format!(
            "IF NOT COALESCE({found}, false) THEN {otherwise}RAISE EXCEPTION USING ERRCODE = '{code}', \
             MESSAGE = 'advisory-locking: a probe found a contradiction'; END IF;"
        ))
    };
    match step {
        PoolerCheckStep::SetMarker { mark } => {
            format!("SELECT pg_catalog.set_config({MARK}, '{mark}', false)")
        }
        PoolerCheckStep::CheckMarker { mark } => unless(
            &format!("pg_catalog.current_setting({MARK}, true) OPERATOR(pg_catalog.=) '{mark}'"),
            "",
        ),
        PoolerCheckStep::AcquireTestLock => unless(&call("pg_try_advisory_lock", key, mode), ""),
        PoolerCheckStep::ExpectContention => unless(
            &format!("NOT {}", call("pg_try_advisory_lock", key, mode)),
            &format!("PERFORM {}; ", call("pg_advisory_unlock", key, mode)),
        ),
        PoolerCheckStep::ReleaseTestLock => unless(&call("pg_advisory_unlock", key, mode), ""),
    }
}

/// When no transaction ever began: `-infinity`, as PostgreSQL sends it.
const NEVER: i64 = i64::MIN;

/// The setting that a probe leaves in a session.
const MARK: &str = "'advisory_locking.mark'";

/// The setting in which a release that nobody waits for says that it went through.
const RELEASED: &str = "'advisory_locking.released'";

/// What follows a release that nobody waits for: ends the session if the release did not go through.
///
/// It may have failed in an aborted transaction that the client does not know of. There, `BEGIN` is refused and `ROLLBACK` leaves it;
/// anywhere else the two do nothing, and without the warning that a bare `ROLLBACK` writes. The last is sent twice, because a cancel
/// meant for something else may hit one.
pub(crate) fn end_unless_released(pid: i32, nonce: u64) -> [String; 4] {
    let end = format!(
        "SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) {pid} THEN NULL \
         WHEN COALESCE(pg_catalog.current_setting({RELEASED}, true), '') OPERATOR(pg_catalog.<>) '{nonce}' \
         THEN pg_catalog.pg_terminate_backend({pid}) END"
    );
    ["BEGIN".to_owned(), "ROLLBACK".to_owned(), end.clone(), end]
}

/// Commits a transaction that we began. In an aborted transaction a bare `COMMIT` rolls back and succeeds, and outside one it only
/// warns; a savepoint is refused in both.
#[cfg(feature = "_postgres")]
pub(crate) const COMMIT: &str = "SAVEPOINT advisory_locking; COMMIT";

const SAVEPOINT: &str = "advisory_locking";

/// `SET LOCAL` survives `RELEASE SAVEPOINT`, so inside a transaction the settings are put back by hand.
const SAVE_SETTINGS: &str = "SELECT \
    pg_catalog.set_config('advisory_locking.statement_timeout', pg_catalog.current_setting('statement_timeout'), true), \
    pg_catalog.set_config('advisory_locking.lock_timeout', pg_catalog.current_setting('lock_timeout'), true)";
const RESTORE_SETTINGS: &str = "SELECT \
    pg_catalog.set_config('statement_timeout', pg_catalog.current_setting('advisory_locking.statement_timeout'), true), \
    pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('advisory_locking.lock_timeout'), true)";

/// What condemns a session, to be sent one after the other whatever the answers: the first ends it, unless the session is
/// in an aborted transaction, which the second leaves first. The third is for a server that forbids the others: it frees
/// every lock of the session, which nobody may use again.
#[cfg(any(test, feature = "_postgres"))]
pub(crate) const TERMINATE_STATEMENTS: [&str; 3] = [
    "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())",
    "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())",
    "SELECT pg_catalog.pg_advisory_unlock_all()",
];

/// Sends what [condemns](TERMINATE_STATEMENTS) until one statement has gone through: a cancel meant for something else may hit any of them.
#[cfg(any(test, feature = "_postgres"))]
#[derive(Debug, Default)]
pub(crate) struct TerminateSequence {
    sent: usize,
}

#[cfg(any(test, feature = "_postgres"))]
impl TerminateSequence {
    /// Far more than one has ever been seen to need under a rain of cancels; a server that refuses everything is given up.
    const ROUNDS: usize = 16;

    /// The next statement, after what became of the one before. `None`: the session has ended, or holds nothing.
    pub(crate) fn next(&mut self, last: Option<Result<(), SessionError>>) -> Option<&'static str> {
        let done = match last {
            None => false,
            // The end of a session arrives as an error. So only the last of a round has anything to succeed with.
            Some(Ok(())) => self.sent % TERMINATE_STATEMENTS.len() == 0,
            Some(Err(error)) => error.is_disconnected(),
        };
        let next = TERMINATE_STATEMENTS
            .iter()
            .cycle()
            .take(Self::ROUNDS * TERMINATE_STATEMENTS.len());
        let next = next.copied().nth(self.sent).filter(|_| !done);
        self.sent += 1;
        next
    }
}

/// A block that runs `body` and raises any error again with its code in the constraint name, which clients show that hide
/// the code itself. The text and the code stay what they were.
///
/// `OTHERS` leaves out `query_canceled`, so that is named too. Raising it again as a deadlock or a time-out keeps the code,
/// by which the server logs it and other clients tell it.
fn guarded(body: &str) -> String {
    let prefix = SqlState::CONSTRAINT_PREFIX;
    format!(
        "DO $advisory_locking$ BEGIN {body} EXCEPTION WHEN OTHERS OR query_canceled THEN \
         RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM, \
         CONSTRAINT = pg_catalog.concat('{prefix}', SQLSTATE); END $advisory_locking$"
    )
}

/// A call with the key written out. A quoted number with its type, because a bare `-9223372036854775808` is not an `int8`.
fn call(function: &str, key: RawLockKey, mode: LockMode) -> String {
    let suffix = match mode {
        LockMode::Exclusive => "",
        LockMode::Shared => "_shared",
    };
    match key {
        RawLockKey::Single(number) => {
            format!("pg_catalog.{function}{suffix}('{number}'::pg_catalog.int8)")
        }
        RawLockKey::Pair(first, second) => {
            format!(
                "pg_catalog.{function}{suffix}('{first}'::pg_catalog.int4, '{second}'::pg_catalog.int4)"
            )
        }
    }
}

/// What a code means for a lock statement; codes that say nothing about locks are [`LockErrorKind::Database`].
pub(crate) fn classify(code: Option<SqlState>) -> LockErrorKind {
    match code.as_ref().map(SqlState::as_str) {
        Some("25P02") => LockErrorKind::TransactionAborted,
        Some("40P01") => LockErrorKind::Deadlock,
        Some("53200") => LockErrorKind::TooManyLocks,
        Some("55P03") => LockErrorKind::TimedOut,
        Some("57014") => LockErrorKind::Canceled,
        // Undefined function, feature not supported: a server that speaks the protocol but has no such locks.
        Some("42883" | "0A000") => LockErrorKind::Unsupported,
        _ => LockErrorKind::Database,
    }
}

#[cfg(test)]
mod tests;
