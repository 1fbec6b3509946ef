//! What the protocol asks a session to run. The text is [`backends::postgres`](crate::backends::postgres)'s.

use std::time::Duration;

use crate::backends::postgres;
use crate::key::{LockKey, RawLockKey};
use crate::options::LockMode;

/// Where the statement runs, which decides how it must leave the session.
#[expect(
    clippy::exhaustive_enums,
    reason = "a session is in a transaction or it is not"
)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TransactionContext {
    /// Outside a transaction: the statement is a transaction of its own, and its settings go with it.
    Autocommit,
    /// Inside a transaction of the application's or of a test's: a savepoint shields it, and settings are put back by hand.
    InTransaction,
}

/// What a [`Statement`] does.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum StatementKind {
    /// Takes the session-level lock if it is free. True: granted.
    TryAcquire,
    /// Takes the transaction-level lock if it is free. True: granted.
    TryAcquireXact,
    /// Gives back one level of the session-level lock, if the session is `pid` and the transaction in which the lock was taken is
    /// over. True: given back. False: it was not held. Null: one of the two conditions failed, and nothing was done.
    Release {
        /// The session that was granted the lock.
        pid: i32,
        /// The [`LockReply::transaction_began`] of the grant; `None` if it was granted in a transaction that the client knows of, in
        /// which it may be given back.
        transaction_began: Option<i64>,
    },
    /// Gives back one level if this session shows the lock, without the warning that releasing what is not held writes to
    /// the server's log. True: given back. Null: it was not there.
    ReleaseIfHeld,
    /// Asks whether this session shows the lock.
    IsHeld,
}

/// A prepared statement that returns one [`LockReply`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Statement {
    kind: StatementKind,
    key: RawLockKey,
    mode: LockMode,
}

impl Statement {
    pub(crate) const fn new(kind: StatementKind, key: &LockKey, mode: LockMode) -> Self {
        Self::of_space(kind, key.raw(), mode)
    }

    pub(crate) const fn of_space(kind: StatementKind, key: RawLockKey, mode: LockMode) -> Self {
        Self { kind, key, mode }
    }

    /// What it does.
    #[must_use]
    pub const fn kind(&self) -> StatementKind {
        self.kind
    }

    /// The lock it is about.
    #[must_use]
    pub const fn key(&self) -> RawLockKey {
        self.key
    }

    /// The mode it is about.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    /// The text for PostgreSQL, with `$1`, `$2`, … for the [`binds`](Self::binds). One of a few, so it can be prepared.
    ///
    /// It returns the columns of a [`LockReply`]: a nullable `bool`, an `int4` and a `timestamptz`.
    #[must_use]
    pub fn sql(&self) -> &'static str {
        postgres::statement(self.kind, self.key, self.mode)
    }

    /// The values, in order.
    pub fn binds(&self) -> impl Iterator<Item = Bind> + use<> {
        postgres::binds(self.kind, self.key)
    }
}

/// A value to bind. Nothing but integers is ever sent.
#[expect(
    clippy::exhaustive_enums,
    reason = "the lock functions take two types, and a time is told back"
)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bind {
    /// An `int4`.
    Int4(i32),
    /// An `int8`.
    Int8(i64),
    /// A `timestamptz` as a [`LockReply`] told it: in microseconds since the beginning of 2000 in UTC.
    Timestamptz(i64),
}

/// What a [`Statement`] answers.
#[expect(
    clippy::exhaustive_structs,
    reason = "adapters build it from the three columns"
)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LockReply {
    /// The first column; its meaning is in [`StatementKind`].
    pub answer: Option<bool>,
    /// The second column: the process id of the session that answered.
    pub pid: i32,
    /// The third column: when the transaction began in which the statement ran, which is its own if no other was open. In
    /// microseconds since the beginning of 2000 in UTC, the number that PostgreSQL sends for a `timestamptz` in its binary format.
    pub transaction_began: i64,
}

/// What a [`Script`] does.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ScriptKind {
    /// Asks for the session-level lock and gives it back, to learn with which code the server refuses it.
    RevealSqlState,
    /// One step of a probe, which looks for a pooler with two connections.
    PoolerCheck(PoolerCheckStep),
    /// Gives back one level of the session-level lock as [`StatementKind::Release`] does, or ends the session if it cannot. For a
    /// guard that is dropped, when nobody waits for the answer; so it is several [messages](Script::messages).
    ReleaseOrTerminate {
        /// The session that was granted the lock.
        pid: i32,
        /// As for the [statement](StatementKind::Release).
        transaction_began: Option<i64>,
        /// Different for each release, by which the last message knows whether the first went through.
        nonce: u64,
    },
    /// Undoes a failed [`Wait`](Self::Wait) inside a transaction, which goes on.
    RollBackWait,
    /// Waits for the session-level lock, or inside a transaction for either level.
    Wait {
        /// `true` for the transaction-level lock.
        in_transaction: bool,
        /// Inside or outside a transaction.
        place: TransactionContext,
        /// The server's limit in milliseconds, 1 to `i32::MAX`; 0 waits without limit.
        limit_ms: i32,
    },
}

/// What a probe asks of one connection.
///
/// A step that does not find what it looks for fails with the code [`CHECK_FAILED_SQLSTATE`](Self::CHECK_FAILED_SQLSTATE).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PoolerCheckStep {
    /// Leaves a mark in the session.
    SetMarker {
        /// Which.
        mark: u64,
    },
    /// Looks for the mark that this connection has left.
    CheckMarker {
        /// Which.
        mark: u64,
    },
    /// Takes the session-level lock, without waiting.
    AcquireTestLock,
    /// Asks for the session-level lock, to be refused. It is given back if it was granted.
    ExpectContention,
    /// Gives the session-level lock back.
    ReleaseTestLock,
}

impl PoolerCheckStep {
    /// The code of a step that does not find what it looks for. Classes from `I` to `Z` are left to implementations by the SQL standard, and
    /// PostgreSQL uses none that begins with `Z`.
    pub const CHECK_FAILED_SQLSTATE: &str = "ZAL01";
}

/// Statements that return nothing, sent as one message and never prepared.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Script {
    kind: ScriptKind,
    key: RawLockKey,
    mode: LockMode,
}

impl Script {
    pub(crate) const fn new(kind: ScriptKind, key: &LockKey, mode: LockMode) -> Self {
        Self::of_space(kind, key.raw(), mode)
    }

    pub(crate) const fn of_space(kind: ScriptKind, key: RawLockKey, mode: LockMode) -> Self {
        Self { kind, key, mode }
    }

    /// The server's limit for a wait: rounded up to whole milliseconds, because PostgreSQL takes zero for "no limit", and at
    /// most `i32::MAX`, because it refuses more. `None` is no limit.
    pub(crate) fn limit_ms(limit: Option<Duration>) -> i32 {
        limit.map_or(0, |limit| {
            i32::try_from(limit.as_nanos().div_ceil(1_000_000))
                .unwrap_or(i32::MAX)
                .max(1)
        })
    }

    /// What it does.
    #[must_use]
    pub const fn kind(&self) -> ScriptKind {
        self.kind
    }

    /// The lock it is about.
    #[must_use]
    pub const fn key(&self) -> RawLockKey {
        self.key
    }

    /// The mode it is about.
    #[must_use]
    pub const fn mode(&self) -> LockMode {
        self.mode
    }

    /// The text for PostgreSQL.
    #[must_use]
    pub fn sql(&self) -> String {
        postgres::batch(self.kind, self.key, self.mode)
    }

    /// What to queue, one message after the other, when nobody waits for the answers: the text, and what makes up for its failure.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let mut messages = vec![self.sql()];
        if let ScriptKind::ReleaseOrTerminate { pid, nonce, .. } = self.kind {
            messages.extend(postgres::end_unless_released(pid, nonce));
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_round_up_and_never_reach_zero() {
        let limit = |limit| Script::limit_ms(Some(limit));
        assert_eq!(limit(Duration::ZERO), 1);
        assert_eq!(limit(Duration::from_nanos(1)), 1);
        assert_eq!(limit(Duration::from_micros(400)), 1);
        assert_eq!(limit(Duration::from_millis(1)), 1);
        assert_eq!(limit(Duration::from_nanos(1_000_001)), 2);
        assert_eq!(limit(Duration::from_secs(10)), 10_000);
        assert_eq!(limit(Duration::from_millis(i32::MAX as u64)), i32::MAX);
        assert_eq!(limit(Duration::from_secs(25 * 86_400)), i32::MAX);
        assert_eq!(limit(Duration::MAX), i32::MAX);
        assert_eq!(Script::limit_ms(None), 0);
    }
}
