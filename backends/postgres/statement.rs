//! Prepared statements: their meaning, the number of the text, and the values to bind.

use std::iter;
use std::sync::{Arc, OnceLock};

use super::ServerSigns;
use super::batch::{self, LockBatch};
use super::lock;
use super::report;
#[cfg(any(feature = "_sqlx-postgres", feature = "_rust-postgres"))]
use super::script::{TRANSACTION_BEGAN_HEX, iso_8601};
use super::server_identity;
use crate::key::{LockKey, RawLockKey};
use crate::options::{LockMode, LockScope};

/// The action of a [`Statement`] about one lock. The reply is a [`LockReply`](super::LockReply).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum StatementKind {
    /// Acquires the lock if it is free. True: granted. Null: the server shows a refused sign, and
    /// the statement did nothing.
    TryAcquire {
        /// The scope of the lock.
        scope: LockScope,
        /// The signs because of which the lock is not acquired.
        refuses: ServerSigns,
    },
    /// Releases one level of the session-level lock, if the session is `pid` and the transaction
    /// that acquired the lock has ended.
    ///
    /// A release in another transaction that has written, and that the client does not know of,
    /// would come before the commit. So it is a condition that there is none.
    ///
    /// True: released. False: not held. Null: a condition failed, and the statement did nothing.
    Release {
        /// The session that was granted the lock.
        pid: i32,
        /// The [`transaction_began`](super::LockReply::transaction_began) of the grant. `None` if
        /// the client knows of the transaction of the grant, so that a release inside it is valid.
        transaction_began: Option<i64>,
    },
    /// Releases one level if `pg_locks` shows the lock for the session `pid`. Unlike
    /// [`Release`](Self::Release), it never writes a warning to the server's log.
    ///
    /// True: released. Null: not held, or another session.
    ReleaseIfHeld {
        /// The session that may hold the lock. Any other session keeps its lock, which may be that
        /// of another client of a pooler. `None`: any session.
        pid: Option<i32>,
    },
    /// Returns whether `pg_locks` shows the lock for this session.
    IsHeld,
    /// Returns whether `pg_locks` shows the lock for a transaction that was prepared for two-phase
    /// commit.
    IsHeldByPreparedTransaction,
}

/// The number of a text among the four for both key spaces and both modes.
const fn variant(key: RawLockKey, mode: LockMode) -> u8 {
    let pair = matches!(key, RawLockKey::Pair(..)) as u8;
    let shared = matches!(mode, LockMode::Shared) as u8;
    2 * pair + shared
}

/// A prepared statement that returns one [`Row`](super::Row).
///
/// An adapter runs the [text](Self::sql). The variants are its meaning, for a session that has no
/// SQL: a test kit or a model.
///
/// The sender of a statement reads the row as a [`LockReply`](super::LockReply) or, for a
/// [batch](Self::Batch), as a [`BatchReply`](super::BatchReply). The row of a report or of an
/// identity is one [`Cell::Texts`](super::Cell::Texts).
///
/// # Examples
///
/// A batch of one operation without a fencing token is a statement of its own, which costs the
/// server less than half of the work:
///
/// ```
/// use advisory_locking::session::{BatchMode, Bind, LockBatch, LockOp, LockOpKind, Statement};
/// use advisory_locking::session::TokenSource;
/// use advisory_locking::{LockKey, LockMode};
///
/// let key = LockKey::from(42).raw();
/// let acquire = LockOpKind::Acquire { with_token: false };
/// let acquire = LockOp::new(acquire, key, LockMode::Exclusive);
/// let release = LockOp::new(LockOpKind::Release, key, LockMode::Exclusive);
/// let batch = |ops: &[LockOp]| {
///     LockBatch::new(BatchMode::Execute, 7, ops, TokenSource::default())
/// };
///
/// let one = Statement::Batch(batch(&[acquire]));
/// assert!(one.binds().eq([Bind::Int4(7), Bind::Int8(42)]));
///
/// let two = Statement::Batch(batch(&[acquire, release]));
/// assert_eq!(two.binds().last(), Some(Bind::Int8Array(vec![42, 42])));
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Statement {
    /// One lock of a connection.
    Lock {
        /// The action.
        kind: StatementKind,
        /// The key of the lock.
        key: RawLockKey,
        /// The mode of the lock.
        mode: LockMode,
    },
    /// Operations of a lock manager.
    ///
    /// One operation without a fencing token has a short text, if the batch names its session.
    /// Otherwise the text is that of any batch.
    Batch(LockBatch),
    /// The sessions that hold or await locks. The reply is one array of texts.
    Report {
        /// The key of the lock. `None` for every lock of the database.
        key: Option<RawLockKey>,
        /// `false` for the holders only.
        with_waiters: bool,
    },
    /// The identity of the server. The reply is one array of texts.
    Identity {
        /// The key of a transaction-level lock to try. `None` reads the version only.
        key: Option<i64>,
    },
}

impl Statement {
    /// The number of different texts.
    pub const COUNT: u8 = 39;

    // After six kinds, each for two key spaces and two modes.
    const FIRST_SINGLE: u8 = 24;
    // After an acquire and a release, each for two key spaces and two modes. Three batches follow,
    // two reports and two identities.
    const FIRST_BATCH: u8 = 32;
    const FIRST_REPORT: u8 = 35;
    const FIRST_IDENTITY: u8 = 37;

    pub(crate) const fn new(kind: StatementKind, key: &LockKey, mode: LockMode) -> Self {
        let key = key.raw();
        Self::Lock { kind, key, mode }
    }

    /// Returns the statement that reports the sessions that hold or await a lock, or all locks of
    /// the database.
    pub(crate) const fn report(key: Option<RawLockKey>) -> Self {
        let with_waiters = true;
        Self::Report { key, with_waiters }
    }

    /// Returns the statement that reports the sessions that hold a lock.
    pub(crate) const fn holders(key: RawLockKey) -> Self {
        let (key, with_waiters) = (Some(key), false);
        Self::Report { key, with_waiters }
    }

    /// Returns the number of the text, less than [`COUNT`](Self::COUNT): equal numbers, equal
    /// texts.
    ///
    /// The numbers are dense, so that a client with a statement cache can use one type for each.
    #[must_use]
    pub fn id(&self) -> u8 {
        match self {
            Self::Lock { kind, key, mode } => {
                let kind = match kind {
                    StatementKind::TryAcquire { scope, .. } => {
                        u8::from(*scope == LockScope::Transaction)
                    }
                    StatementKind::Release { .. } => 2,
                    StatementKind::ReleaseIfHeld { .. } => 3,
                    StatementKind::IsHeld => 4,
                    StatementKind::IsHeldByPreparedTransaction => 5,
                };
                4 * kind + variant(*key, *mode)
            }
            Self::Batch(batch) => match batch.single_op() {
                Some(op) => {
                    let release = 4 * u8::from(op.is_release());
                    Self::FIRST_SINGLE + release + variant(op.key(), op.mode())
                }
                None => Self::FIRST_BATCH + batch.text_id(),
            },
            Self::Report { key, .. } => Self::FIRST_REPORT + u8::from(key.is_none()),
            Self::Identity { key } => Self::FIRST_IDENTITY + u8::from(key.is_none()),
        }
    }

    /// Returns the action on one lock. `None` for a batch, a report or an identity.
    #[must_use]
    pub const fn kind(&self) -> Option<StatementKind> {
        match self {
            Self::Lock { kind, .. } => Some(*kind),
            Self::Batch(_) | Self::Report { .. } | Self::Identity { .. } => None,
        }
    }

    /// Returns the text for PostgreSQL, with `$1`, `$2`, … for the [`binds`](Self::binds).
    ///
    /// It returns one row of at most four columns. Their types are `bool`, `int4`, `int8`,
    /// `timestamptz`, `int8[]` and `text[]`, in the binary format. Each may be null.
    #[must_use]
    pub fn sql(&self) -> &'static str {
        // An id is less than `COUNT`, so the fallback is never used.
        let text = TEXTS.get(usize::from(self.id()));
        text.map_or("", |text| text.get_or_init(|| self.text()).as_str())
    }

    /// Returns the text, which is built by each call.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Lock { kind, key, mode } => lock::sql(*kind, *key, *mode),
            Self::Batch(batch) => match batch.single_op() {
                Some(op) => lock::single_op_sql(op),
                None => batch.text(),
            },
            Self::Report { key, .. } => report::sql(*key),
            Self::Identity { key: Some(_) } => server_identity::with_lock(),
            Self::Identity { key: None } => server_identity::VERSION_ONLY.to_owned(),
        }
    }

    /// Returns `true` for a text that the client prepares once per connection. Any other text is
    /// prepared for each call.
    ///
    /// [`IsHeld`](StatementKind::IsHeld) follows an error. The cause may be that the session has
    /// lost its prepared statements, by [`DISCARD ALL`] or behind a transaction pooler.
    ///
    /// [`DISCARD ALL`]: https://www.postgresql.org/docs/current/sql-discard.html
    #[must_use]
    pub const fn is_cacheable(&self) -> bool {
        !matches!(self.kind(), Some(StatementKind::IsHeld))
    }

    /// Returns the values to bind, in the order of the parameters.
    pub fn binds(&self) -> impl Iterator<Item = Bind> + use<> {
        let binds = match self {
            Self::Lock { kind, key, .. } => lock::binds(*kind, *key),
            Self::Batch(batch) => match batch.single_op() {
                Some(op) => {
                    let pid = iter::once(Bind::Int4(batch.pid()));
                    pid.chain(lock::key_binds(op.key())).collect()
                }
                None => batch::binds(batch),
            },
            Self::Report { key, with_waiters } => report::binds(*key, *with_waiters),
            Self::Identity { key } => key.map(Bind::Int8).into_iter().collect(),
        };
        binds.into_iter()
    }

    /// Returns the text of a statement about one lock with the values written out, for a
    /// [simple query] whose reply is text.
    ///
    /// The start of the transaction is the `bigint` of its binary format, in hexadecimal digits:
    /// the text of a time depends on settings.
    ///
    /// [simple query]: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SIMPLE-QUERY
    #[cfg(any(feature = "_sqlx-postgres", feature = "_rust-postgres"))]
    pub(crate) fn simple_sql(&self) -> String {
        let mut text = self.sql().to_owned();
        for (index, bind) in self.binds().enumerate() {
            let value = match bind {
                Bind::Int4(number) => format!("'{number}'"),
                Bind::Int8(number) => format!("'{number}'"),
                Bind::Timestamptz(micros) => format!("'{}'", iso_8601(micros)),
                // No statement about one lock has one of these.
                Bind::Int8Array(_) | Bind::Text(_) => "NULL".to_owned(),
            };
            text = text.replace(&format!("${}", index + 1), &value);
        }
        // The last column, and not the start that a release compares.
        let columns = |began| format!("pg_catalog.pg_backend_pid(), {began}");
        text.replace(
            &columns("CURRENT_TIMESTAMP"),
            &columns(TRANSACTION_BEGAN_HEX),
        )
    }

    /// The column of the reply that holds the process id of the session, if there is one.
    #[cfg(any(test, feature = "_sqlx-postgres"))]
    pub(crate) fn pid_column(&self) -> Option<usize> {
        match self {
            Self::Lock { .. } => Some(1),
            Self::Batch(batch) => batch.single_op().is_none().then_some(2),
            Self::Report { .. } | Self::Identity { .. } => None,
        }
    }
}

/// The texts by their numbers. Each is built once in the process.
static TEXTS: [OnceLock<String>; Statement::COUNT as usize] =
    [const { OnceLock::new() }; Statement::COUNT as usize];

/// A value to bind to a parameter.
#[expect(
    clippy::exhaustive_enums,
    reason = "an adapter must be able to bind every value"
)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bind {
    /// An `int4`.
    Int4(i32),
    /// An `int8`.
    Int8(i64),
    /// A `timestamptz`, in microseconds since 2000-01-01 UTC. That is PostgreSQL's binary format.
    Timestamptz(i64),
    /// An `int8[]` without nulls.
    Int8Array(Vec<i64>),
    /// A `text`.
    Text(Arc<str>),
}
