//! Batches: many lock operations of a lock manager in one statement.
//!
//! # Implementation details
//!
//! The operations travel as two arrays, codes and keys, which the text unnests in order. So one
//! prepared text serves every batch. Each parameter occurs once and in order, because Diesel
//! numbers parameters itself; therefore the parameters are named in `FROM`.

use std::sync::Arc;

use super::Bind;
use super::server_signs::server_signs;
use crate::key::RawLockKey;
use crate::options::LockMode;

/// The action of a [`LockOp`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LockOpKind {
    /// Acquires the session-level lock if it is free.
    Acquire {
        /// `true` if a grant issues a fencing token.
        with_token: bool,
    },
    /// Releases one level of the session-level lock.
    Release,
    /// Issues a fencing token for a lock that is held.
    IssueToken,
}

/// One operation of a [`LockBatch`]: the action, the lock and its mode.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LockOp {
    kind: LockOpKind,
    key: RawLockKey,
    mode: LockMode,
}

impl LockOp {
    /// Returns an operation. A lock manager makes them; this is for the tests of an adapter.
    #[must_use]
    pub const fn new(kind: LockOpKind, key: RawLockKey, mode: LockMode) -> Self {
        Self { kind, key, mode }
    }

    /// Returns the action.
    #[must_use]
    pub const fn kind(&self) -> LockOpKind {
        self.kind
    }

    /// Returns the key of the lock.
    #[must_use]
    pub const fn key(&self) -> RawLockKey {
        self.key
    }

    /// Returns the mode of the lock.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    pub(super) const fn is_release(&self) -> bool {
        matches!(self.kind, LockOpKind::Release)
    }

    /// Returns whether the operation issues a fencing token. Its code is then 16 or more.
    pub(crate) const fn wants_token(&self) -> bool {
        matches!(
            self.kind,
            LockOpKind::Acquire { with_token: true } | LockOpKind::IssueToken
        )
    }

    /// Returns the operation as a number.
    ///
    /// | bit | meaning |
    /// |---|---|
    /// | 0 | shared mode |
    /// | 1 | key space of pairs |
    /// | 2, 3 | action: 0 acquires, 1 releases, 2 only issues a token |
    /// | 4 | the operation issues a fencing token |
    fn code(&self) -> i64 {
        let shared = i64::from(self.mode == LockMode::Shared);
        let pair = i64::from(matches!(self.key, RawLockKey::Pair(..)));
        let action = match self.kind {
            LockOpKind::Acquire { .. } => 0,
            LockOpKind::Release => 1,
            LockOpKind::IssueToken => 2,
        };
        16 * i64::from(self.wants_token()) + 4 * action + 2 * pair + shared
    }

    /// Returns the key as a number. A pair has its first number in the upper half.
    fn number(&self) -> i64 {
        match self.key {
            RawLockKey::Single(number) => number,
            RawLockKey::Pair(first, second) => {
                // The mask removes the sign bits of the second number from the upper half.
                (i64::from(first) << 32) | (i64::from(second) & 0xFFFF_FFFF)
            }
        }
    }
}

/// The source of fencing tokens.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum TokenSource {
    /// The id of the transaction, by [`pg_current_xact_id()`]. It needs no DDL, consumes a
    /// transaction id per batch that issues a token, and is not available on a standby.
    ///
    /// The batch also writes an empty [message] with the prefix `advisory-locking` to the WAL. So
    /// its commit waits until the id is on disk, unless [`synchronous_commit`] is off. Otherwise
    /// the server could assign the id again after a crash.
    ///
    /// [message]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
    /// [`synchronous_commit`]: https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT
    /// [`pg_current_xact_id()`]: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
    #[default]
    TransactionId,
    /// A [sequence], by its name as `regclass` reads it (`fencing`, `app.fencing`, `"Fencing"`). It
    /// must count up, with `CACHE 1` and `NO CYCLE`.
    ///
    /// [sequence]: https://www.postgresql.org/docs/current/sql-createsequence.html
    Sequence(Arc<str>),
}

/// The purpose of a [`LockBatch`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BatchMode {
    /// Runs the operations in order. Without operations, it tests whether the session is alive.
    Execute,
    /// Compensates a batch that failed at an unknown operation. It releases one level of every
    /// named lock that `pg_locks` shows for this session, and logs no warning for the others. Each
    /// lock is named once.
    Compensate,
}

/// Lock operations that run in one [`Statement`](super::Statement).
///
/// The reply is a [`BatchReply`](super::BatchReply).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LockBatch {
    mode: BatchMode,
    pid: i32,
    ops: Arc<[LockOp]>,
    tokens: TokenSource,
}

impl LockBatch {
    /// Returns a batch. A lock manager makes them; this is for the tests of an adapter.
    ///
    /// `pid` is the process id of the expected session, or 0 for any. In
    /// [`Compensate`](BatchMode::Compensate) mode, `ops` names each lock once.
    #[must_use]
    pub fn new(
        mode: BatchMode,
        pid: i32,
        ops: impl Into<Arc<[LockOp]>>,
        tokens: TokenSource,
    ) -> Self {
        Self {
            mode,
            pid,
            ops: ops.into(),
            tokens,
        }
    }

    /// Returns the purpose.
    #[must_use]
    pub const fn mode(&self) -> BatchMode {
        self.mode
    }

    /// Returns the process id of the expected session; any other session does nothing. 0 expects no
    /// particular session.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the operations, in order.
    #[must_use]
    pub fn ops(&self) -> &[LockOp] {
        &self.ops
    }

    /// Returns the source of fencing tokens.
    #[must_use]
    pub const fn tokens(&self) -> &TokenSource {
        &self.tokens
    }

    /// The only operation, if a shorter text can run it: it wants no token, and the session is
    /// known.
    ///
    /// The shorter text does not return the process id, so [`BatchReply`](super::BatchReply) fills
    /// in the expected one.
    pub(super) fn single_op(&self) -> Option<&LockOp> {
        match (self.mode, &*self.ops) {
            // A process id of 0 matches no session, so the shorter text would acquire nothing.
            (BatchMode::Execute, [op]) if self.pid != 0 && !op.wants_token() => Some(op),
            _ => None,
        }
    }

    /// The number of the text among those of batches.
    pub(super) const fn text_id(&self) -> u8 {
        match (self.mode, &self.tokens) {
            (BatchMode::Execute, TokenSource::TransactionId) => 0,
            (BatchMode::Execute, TokenSource::Sequence(_)) => 1,
            (BatchMode::Compensate, _) => 2,
        }
    }

    /// Returns the text.
    pub(super) fn text(&self) -> String {
        match (self.mode, &self.tokens) {
            (BatchMode::Execute, TokenSource::TransactionId) => execute_with_transaction_id(),
            (BatchMode::Execute, TokenSource::Sequence(_)) => execute_with_sequence(),
            (BatchMode::Compensate, _) => compensate(),
        }
    }
}

/// The values to bind: the session, the codes, the keys and the name of the sequence.
pub(super) fn binds(batch: &LockBatch) -> Vec<Bind> {
    let codes = batch.ops.iter().map(LockOp::code).collect();
    let numbers = batch.ops.iter().map(LockOp::number).collect();
    let mut binds = vec![
        Bind::Int4(batch.pid),
        Bind::Int8Array(codes),
        Bind::Int8Array(numbers),
    ];
    if let (BatchMode::Execute, TokenSource::Sequence(name)) = (batch.mode, &batch.tokens) {
        binds.push(Bind::Text(Arc::clone(name)));
    }
    binds
}

/// The expected session and the operations.
const OPS: &str = "(SELECT $1::pg_catalog.int4 AS pid) AS expected, \
     ROWS FROM (pg_catalog.unnest($2::pg_catalog.int8[]), \
     pg_catalog.unnest($3::pg_catalog.int8[])) WITH ORDINALITY AS op (code, number, ordinal)";

/// The condition that stops any other session.
const PID_MATCHES: &str = "expected.pid OPERATOR(pg_catalog.=) 0 \
     OR expected.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()";

/// The pair of numbers in `op.number`: its two halves with their signs.
const HALVES: &str = "(op.number OPERATOR(pg_catalog.>>) 32)::pg_catalog.int4, \
     ((op.number OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.>>) 32)::pg_catalog.int4";

/// Returns the condition that the bits of an operation's code under `mask` are `bits`.
///
/// `CASE code WHEN bits` would look for its `=` on the `search_path`.
fn code_is(mask: u8, bits: u8) -> String {
    format!("(op.code OPERATOR(pg_catalog.&) {mask}) OPERATOR(pg_catalog.=) {bits}")
}

/// Returns the four calls of a function, by mode and key space. The bits of their codes count from
/// `first`.
fn by_code(function: &str, mask: u8, first: u8) -> String {
    let call = |bits: u8, suffix: &str, key: &str| {
        let condition = code_is(mask, bits);
        format!("WHEN {condition} THEN pg_catalog.{function}{suffix}({key}) ")
    };
    [
        call(first, "", "op.number"),
        call(first + 1, "_shared", "op.number"),
        call(first + 2, "", HALVES),
        call(first + 3, "_shared", HALVES),
    ]
    .concat()
}

/// Returns the text that runs the operations in order and then issues the tokens.
///
/// A transaction gets its id when a statement first asks for it. So the text asks after the last
/// grant. If it asked earlier, another session could issue a greater token for a lock and release
/// that lock. A later operation of this batch would then acquire it with the smaller token.
///
/// A sequence issues a token per operation, after the grant of that operation.
///
/// The inner query calls [volatile functions], so the planner does not merge it into the outer
/// ones, and each function is called once per operation.
///
/// [volatile functions]: https://www.postgresql.org/docs/current/xfunc-volatility.html
fn execute_batch(also: &str, may_acquire: &str, from: &str, number: &str, token: &str) -> String {
    let signs = server_signs();
    let acquire = by_code("pg_try_advisory_lock", 15, 0);
    let release = by_code("pg_advisory_unlock", 15, 4);
    format!(
        "SELECT result.answers, result.token, pg_catalog.pg_backend_pid(), {signs} \
         FROM (SELECT \
         pg_catalog.array_agg(CASE WHEN op.granted THEN {number} END ORDER BY op.ordinal) \
         AS answers, {token} AS token \
         FROM (SELECT op.ordinal, op.code OPERATOR(pg_catalog.>=) 16 AS with_token, {also}\
         CASE WHEN op.code OPERATOR(pg_catalog.<) 16 OR {may_acquire} \
         THEN CASE {acquire}{release}ELSE true END END AS granted \
         FROM {OPS}{from} WHERE {PID_MATCHES}) AS op) AS result"
    )
}

/// Returns the text with the id of the transaction as the token.
///
/// A commit waits for the disk, and for a synchronous standby, only if its transaction [wrote] to
/// the WAL before. An id alone writes nothing, and after a crash the server assigned it again (seen
/// with 15.18). So the text writes a message. One `CASE` is in the other, because `AND` promises no
/// order.
///
/// [wrote]: https://github.com/postgres/postgres/blob/master/src/backend/access/transam/xact.c
fn execute_with_transaction_id() -> String {
    execute_batch(
        "",
        "true",
        "",
        "1::pg_catalog.int8",
        // Through `text`, because PostgreSQL has no cast from `xid8` to `int8`.
        "CASE WHEN pg_catalog.bool_or(op.granted AND op.with_token) \
         THEN CASE WHEN pg_catalog.pg_logical_emit_message(\
         true, 'advisory-locking'::pg_catalog.text, ''::pg_catalog.text) IS NOT NULL \
         THEN pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8 END END",
    )
}

/// Returns the text with a number of a sequence as the token.
///
/// Numbers that a session keeps in a [cache], or that start again, do not grow over all sessions.
///
/// [cache]: https://www.postgresql.org/docs/current/sql-createsequence.html#SQL-CREATESEQUENCE-NOTES
fn execute_with_sequence() -> String {
    execute_batch(
        "seq.sequence, definition.valid, ",
        "definition.valid",
        " CROSS JOIN (SELECT $4::pg_catalog.text::pg_catalog.regclass AS sequence) AS seq \
         LEFT JOIN (SELECT seqrelid, seqcache OPERATOR(pg_catalog.=) 1 \
         AND seqincrement OPERATOR(pg_catalog.>) 0 AND NOT seqcycle AS valid \
         FROM pg_catalog.pg_sequence) AS definition \
         ON definition.seqrelid OPERATOR(pg_catalog.=) seq.sequence",
        "CASE WHEN op.with_token THEN pg_catalog.nextval(op.sequence) ELSE 1 END",
        "pg_catalog.min(CASE WHEN op.valid THEN 1::pg_catalog.int8 ELSE 0 END)",
    )
}

/// Returns the text that releases the named locks that [`pg_locks`] shows for this session.
///
/// An operation without a row there has a null `held.granted`, so its `CASE` calls nothing.
/// `classid` and `objid` are unsigned halves of the key. The masks make the halves of a negative
/// key unsigned, too.
///
/// [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
fn compensate() -> String {
    let release = by_code("pg_advisory_unlock", 3, 0);
    let (is_single, is_exclusive) = (code_is(2, 0), code_is(1, 0));
    format!(
        "SELECT result.answers, NULL::pg_catalog.int8, pg_catalog.pg_backend_pid() FROM (SELECT \
         pg_catalog.array_agg(CASE WHEN op.released THEN 1::pg_catalog.int8 END \
         ORDER BY op.ordinal) AS answers FROM (SELECT op.ordinal, \
         CASE WHEN held.granted THEN CASE {release}END END AS released FROM {OPS} \
         LEFT JOIN pg_catalog.pg_locks AS held \
         ON held.locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND held.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
         AND held.classid::pg_catalog.int8 OPERATOR(pg_catalog.=) \
         ((op.number OPERATOR(pg_catalog.>>) 32) OPERATOR(pg_catalog.&) 4294967295) \
         AND held.objid::pg_catalog.int8 OPERATOR(pg_catalog.=) \
         (op.number OPERATOR(pg_catalog.&) 4294967295) \
         AND held.objsubid OPERATOR(pg_catalog.=) CASE WHEN {is_single} THEN 1 ELSE 2 END \
         AND held.mode OPERATOR(pg_catalog.=) \
         CASE WHEN {is_exclusive} THEN 'ExclusiveLock' ELSE 'ShareLock' END \
         WHERE {PID_MATCHES}) AS op) AS result"
    )
}
