//! Scripts: several statements that return nothing, in one [simple-query] message.
//!
//! A script has no parameters and is never prepared. So a client can send it in every state of the
//! session, and through every pooler. Its keys and limits are written into the text.
//!
//! [simple-query]: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT

use std::iter;
use std::time::Duration;

use super::lock::{NOTHING_UNCOMMITTED, held_by_session, suffix};
use super::wait::{self, SAVEPOINT};
use super::{NEGATIVE_INFINITY, SqlState, TerminateStep, rollback_text};
#[cfg(any(test, feature = "sea-orm"))]
use crate::error::LockErrorKind;
use crate::key::RawLockKey;
use crate::options::{LockMode, LockScope};

/// Statements that return nothing, sent as one message and never prepared.
///
/// An adapter sends the [text](Self::sql), or the [messages](Self::messages) if no task waits. The
/// variants are its meaning, for a session that has no SQL: a test kit or a model.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Script {
    /// Fails with [`SqlState::OTHER_TRANSACTION`] unless the session is in the transaction of the
    /// grant.
    CheckTransaction {
        /// The key of the lock.
        key: RawLockKey,
        /// The mode of the lock.
        mode: LockMode,
        /// The start of the transaction of the grant, as in
        /// [`LockReply`](super::LockReply::transaction_began).
        transaction_began: i64,
        /// The lock was acquired in a savepoint, whose rollback releases it. So the check also
        /// reads `pg_locks`.
        in_savepoint: bool,
    },
    /// Ends the snapshot that the previous statement has left in the transaction of a client.
    ///
    /// Some clients leave the portal of a prepared statement open until the next statement. With
    /// it, an idle `READ COMMITTED` transaction holds back `VACUUM` and `CREATE INDEX
    /// CONCURRENTLY`.
    EndSnapshot,
    /// Acquires the session-level lock if it is free and releases it, so that an error shows its
    /// SQLSTATE.
    RevealSqlState {
        /// The key of the lock.
        key: RawLockKey,
        /// The mode of the lock.
        mode: LockMode,
    },
    /// Disables [`statement_timeout`] until the end of the transaction.
    ///
    /// [`statement_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-STATEMENT-TIMEOUT
    DisableStatementTimeout,
    /// Releases one level of the session-level lock as [`StatementKind::Release`] does, or
    /// terminates the session if that fails.
    ///
    /// For a guard that is dropped, so that no task waits for the replies. It is sent as several
    /// [messages](Script::messages).
    ///
    /// [`StatementKind::Release`]: super::StatementKind::Release
    ReleaseOrTerminate {
        /// The key of the lock.
        key: RawLockKey,
        /// The mode of the lock.
        mode: LockMode,
        /// The session that was granted the lock.
        pid: i32,
        /// The start of the transaction of the grant, as for [`StatementKind::Release`].
        ///
        /// [`StatementKind::Release`]: super::StatementKind::Release
        transaction_began: Option<i64>,
        /// A number of this release, by which the last message recognizes that the first ran.
        nonce: u64,
    },
    /// Rolls back the transaction that the client may not know of. Outside a transaction it only
    /// warns.
    RollBackTransaction,
    /// Rolls back a failed [`Wait`](Self::Wait) inside a transaction, which continues.
    RollBackWait,
    /// Terminates the session, or releases its locks.
    ///
    /// The scripts are sent one after the other. They stop when the client sees that the session
    /// has ended, or when the last step of a pass has released all locks. There are at most 16
    /// passes.
    Terminate {
        /// The step.
        step: TerminateStep,
        /// The process id of the session, if a reply has shown it. On any other session, the script
        /// does nothing.
        pid: Option<i32>,
    },
    /// Waits for the session-level lock, or inside a transaction for a lock of either scope.
    Wait {
        /// The key of the lock.
        key: RawLockKey,
        /// The mode of the lock.
        mode: LockMode,
        /// The scope of the lock.
        scope: LockScope,
        /// `true` in a transaction of the application or of a test: a savepoint protects it, and
        /// the script restores the settings. Otherwise the script is a transaction of its own, and
        /// its settings end with it.
        in_transaction: bool,
        /// The [`lock_timeout`] in milliseconds, 1 to `i32::MAX`. 0: no limit.
        ///
        /// [`lock_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
        limit_ms: i32,
    },
}

impl Script {
    /// Returns the limit of a wait as [`lock_timeout`] takes it. `None` is no limit.
    ///
    /// It is rounded up to whole milliseconds, because 0 would disable the limit, and at most
    /// `i32::MAX`, the server's maximum.
    ///
    /// [`lock_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
    pub(crate) fn limit_ms(limit: Option<Duration>) -> i32 {
        limit.map_or(0, |limit| {
            i32::try_from(limit.as_nanos().div_ceil(1_000_000))
                .unwrap_or(i32::MAX)
                .max(1)
        })
    }

    /// Returns the key for which the session waits on the server, if the script is a wait.
    #[cfg(feature = "_sqlx-postgres")]
    pub(crate) const fn awaited_key(&self) -> Option<RawLockKey> {
        match *self {
            Self::Wait { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Returns the text for PostgreSQL, whose errors show their SQLSTATE in the constraint name.
    #[must_use]
    pub fn sql(&self) -> String {
        self.text(false)
    }

    /// Returns the text for a client that shows the SQLSTATE of every error.
    ///
    /// A [wait](Self::Wait) then calls the lock function in a plain `SELECT`. So it does not
    /// need `plpgsql`, and a pooler that parses statements finds the call. Every other script has
    /// the text of [`sql`](Self::sql).
    #[must_use]
    pub fn plain_sql(&self) -> String {
        self.text(true)
    }

    /// Returns the messages to enqueue, in order, if no task waits for the replies.
    ///
    /// The first is the text. Those of [`ReleaseOrTerminate`](Self::ReleaseOrTerminate) go on
    /// with statements that terminate the session if the release did not run.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let mut messages = vec![self.sql()];
        if let Self::ReleaseOrTerminate { pid, nonce, .. } = *self {
            messages.extend(terminate_unless_released(pid, nonce));
        }
        messages
    }

    /// Returns why a [`ReleaseOrTerminate`](Self::ReleaseOrTerminate) released no lock, given the
    /// value that its first message returned. `None`: it released the lock.
    #[cfg(any(test, feature = "sea-orm"))]
    pub(crate) fn release_failure(reply: Option<&str>) -> Option<LockErrorKind> {
        match reply {
            Some(reply) if reply.ends_with(" t") => None,
            Some(OTHER_SESSION) => Some(LockErrorKind::SessionChanged),
            Some(OPEN_TRANSACTION) => Some(LockErrorKind::TransactionLeftOpen),
            Some(_) | None => Some(LockErrorKind::NotHeld),
        }
    }

    /// Returns the text for a client that shows the SQLSTATE of every error, or hides it.
    fn text(&self, shows_sqlstate: bool) -> String {
        match *self {
            Self::CheckTransaction {
                key,
                mode,
                transaction_began,
                in_savepoint,
            } => {
                // Two transactions of one session never have the same start, because each begins
                // with a message of its own.
                let same = transaction_began_at(transaction_began);
                if in_savepoint {
                    fail_unless(&format!("{same} AND {}", held_by_session(key, mode)))
                } else {
                    fail_unless(&same)
                }
            }
            Self::EndSnapshot => "SELECT".to_owned(),
            Self::RevealSqlState { key, mode } => {
                let block = with_sqlstate_in_constraint(&format!(
                    "IF {} THEN PERFORM {}; END IF;",
                    call_by_settings("pg_try_advisory_lock", key, mode),
                    call_by_settings("pg_advisory_unlock", key, mode)
                ));
                format!("SELECT {}; {block}", set_key(key))
            }
            Self::DisableStatementTimeout => "SET LOCAL statement_timeout = 0".to_owned(),
            Self::ReleaseOrTerminate {
                key,
                mode,
                pid,
                transaction_began,
                nonce,
            } => {
                let outside_transaction = transaction_began.map_or_else(String::new, |began| {
                    format!(
                        "WHEN {} OR NOT ({NOTHING_UNCOMMITTED}) THEN '{OPEN_TRANSACTION}' ",
                        transaction_began_at(began)
                    )
                });
                format!(
                    "SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) {pid} THEN '{OTHER_SESSION}' \
                     {outside_transaction}\
                     ELSE pg_catalog.set_config({RELEASED_SETTING}, pg_catalog.concat('{nonce} ', {}), false) END",
                    call("pg_advisory_unlock", key, mode)
                )
            }
            Self::RollBackTransaction => rollback_text(None),
            Self::RollBackWait => rollback_text(Some(SAVEPOINT)),
            Self::Terminate { step, pid } => step.sql(pid),
            Self::Wait {
                key,
                mode,
                scope,
                in_transaction,
                limit_ms,
            } => {
                let function = match scope {
                    LockScope::Session => "pg_advisory_lock",
                    LockScope::Transaction => "pg_advisory_xact_lock",
                };
                let (statement, columns) = if shows_sqlstate {
                    (
                        format!("SELECT {}", call(function, key, mode)),
                        String::new(),
                    )
                } else {
                    let waits = call_by_settings(function, key, mode);
                    let block = with_sqlstate_in_constraint(&format!("PERFORM {waits};"));
                    let visible = match scope {
                        LockScope::Session => visible_to_poolers(key, mode),
                        LockScope::Transaction => String::new(),
                    };
                    (block, format!(", {}{visible}", set_key(key)))
                };
                wait::around(&statement, &columns, in_transaction, limit_ms)
            }
        }
    }
}

/// The start of the transaction in its binary format, as hexadecimal digits. The text form of a
/// time depends on settings.
#[cfg(any(feature = "_sqlx-postgres", feature = "_rust-postgres"))]
pub(super) const TRANSACTION_BEGAN_HEX: &str =
    "pg_catalog.encode(pg_catalog.timestamptz_send(CURRENT_TIMESTAMP), 'hex')";

/// The condition, in a simple query, that the transaction began with the message of the query.
///
/// All statements of a message have one [start], and a transaction has that of its first message.
///
/// [start]: https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-CURRENT
#[cfg(any(test, feature = "_postgres"))]
pub(crate) const BEGAN_WITH_THIS_MESSAGE: &str =
    "pg_catalog.transaction_timestamp() OPERATOR(pg_catalog.=) pg_catalog.statement_timestamp()";

/// Returns the text that begins a transaction and fails if one is open already. It returns no row.
///
/// The server only [warns] of a second `BEGIN`. Without the check, the end of the lock's
/// transaction would end that of the application, which the client does not know of.
///
/// [warns]: https://www.postgresql.org/docs/current/sql-begin.html
#[cfg(any(
    test,
    feature = "diesel-postgres",
    feature = "diesel-async-postgres",
    feature = "_sqlx-postgres"
))]
pub(crate) fn begin() -> String {
    format!("BEGIN; {}", fail_unless(BEGAN_WITH_THIS_MESSAGE))
}

/// Returns the condition that the transaction began at this time.
fn transaction_began_at(began: i64) -> String {
    let began = iso_8601(began);
    format!("CURRENT_TIMESTAMP OPERATOR(pg_catalog.=) '{began}'::pg_catalog.timestamptz")
}

/// Returns a time in UTC, of which every setting of the session reads the same value.
///
/// `micros` counts from 2000-01-01.
pub(super) fn iso_8601(micros: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    if micros == NEGATIVE_INFINITY {
        return "-infinity".to_owned();
    }
    let (days, micros) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    // Years begin in March, so that the leap day is the last one. 400 years have 146,097 days.
    // The days from 0000-03-01 to 2000-01-01, from which PostgreSQL counts.
    let days = days + 730_425;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = year + 400 * era + i64::from(month <= 2);
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}+00")
}

/// Returns the text that fails with [`SqlState::OTHER_TRANSACTION`] unless the condition holds.
///
/// It reads a [setting] that no server has. The message of the error contains the name, which
/// clients show that hide the SQLSTATE.
///
/// [setting]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SET
fn fail_unless(condition: &str) -> String {
    let setting = SqlState::MISSING_SETTING;
    format!("SELECT pg_catalog.current_setting('{setting}') WHERE NOT ({condition})")
}

/// The setting in which a queued release records that it released the lock: its nonce and `t`.
///
/// The result is known to the server only. A pooler that reads statements and replays the settings
/// in them cannot replay this value after a failure.
const RELEASED_SETTING: &str = "'advisory_locking.released'";

/// The values of a queued release that did nothing: another session ran it, or a transaction is
/// open that the client does not know of.
const OTHER_SESSION: &str = "other session";
const OPEN_TRANSACTION: &str = "open transaction";

/// The messages behind a queued release. They terminate the session unless the release released
/// the lock.
///
/// If other code has released it, for example [`DISCARD ALL`], the client's prepared statements may
/// be gone, too, and no caller learns of that.
///
/// The release may have failed in an aborted transaction that the client does not know of. There,
/// `BEGIN` fails and `ROLLBACK` ends the transaction. Elsewhere the two do nothing, without the
/// warning that a bare `ROLLBACK` writes. The termination is sent twice, because a cancel request
/// that was meant for another statement may hit one of them. The last message is for a session that
/// may not terminate itself, for example after [`SET ROLE`].
///
/// [`DISCARD ALL`]: https://www.postgresql.org/docs/current/sql-discard.html
/// [`SET ROLE`]: https://www.postgresql.org/docs/current/sql-set-role.html
fn terminate_unless_released(pid: i32, nonce: u64) -> [String; 5] {
    let unless_released = |step: TerminateStep| {
        format!(
            "{} AND COALESCE(pg_catalog.current_setting({RELEASED_SETTING}, true), '') \
             OPERATOR(pg_catalog.<>) '{nonce} t'",
            step.sql(Some(pid))
        )
    };
    [
        "BEGIN".to_owned(),
        "ROLLBACK".to_owned(),
        unless_released(TerminateStep::EndSession),
        unless_released(TerminateStep::EndSession),
        unless_released(TerminateStep::ReleaseAllLocks),
    ]
}

/// A block that runs `body` and raises any error again with its SQLSTATE in the constraint name,
/// which clients show that hide the SQLSTATE itself. The text and the SQLSTATE of the error stay.
///
/// [`OTHERS`] does not match `query_canceled`, so the block names that too. The error that it
/// raises keeps its SQLSTATE, so the server's log and other clients still see a deadlock or a
/// timeout.
///
/// [`OTHERS`]: https://www.postgresql.org/docs/current/plpgsql-control-structures.html#PLPGSQL-ERROR-TRAPPING
fn with_sqlstate_in_constraint(body: &str) -> String {
    let prefix = SqlState::CONSTRAINT_PREFIX;
    format!(
        "DO $advisory_locking$ BEGIN {body} EXCEPTION WHEN OTHERS OR query_canceled THEN \
         RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM, \
         CONSTRAINT = pg_catalog.concat('{prefix}', SQLSTATE); END $advisory_locking$"
    )
}

/// Returns a call of a lock function with the key written out.
///
/// The numbers are quoted and have a type, because a bare `-9223372036854775808` is not an `int8`.
/// The server reads it as the negation of a [constant] that is too large for `int8`.
///
/// [constant]: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS-NUMERIC
fn call(function: &str, key: RawLockKey, mode: LockMode) -> String {
    call_with(function, key, mode, |number, _| format!("'{number}'"))
}

/// Returns a call of a lock function that reads the key from the settings of [`set_key`].
fn call_by_settings(function: &str, key: RawLockKey, mode: LockMode) -> String {
    call_with(function, key, mode, |_, setting| {
        format!("pg_catalog.current_setting('{setting}')")
    })
}

fn call_with(
    function: &str,
    key: RawLockKey,
    mode: LockMode,
    argument: impl Fn(i64, &str) -> String,
) -> String {
    let kind = match key {
        RawLockKey::Single(_) => "int8",
        RawLockKey::Pair(..) => "int4",
    };
    let arguments = settings_of(key)
        .map(|(number, setting)| format!("{}::pg_catalog.{kind}", argument(number, setting)));
    let arguments: Vec<_> = arguments.collect();
    format!(
        "pg_catalog.{function}{}({})",
        suffix(mode),
        arguments.join(", ")
    )
}

/// Returns columns that set the key for a block, until the end of the transaction.
///
/// A [`DO`] block has no parameters, and [`pg_stat_statements`] keeps one entry for each text of a
/// block. The constants of a `SELECT` do not count there. So the text of a block has no key, or an
/// application with many keys would displace its own statements from that view.
///
/// [`DO`]: https://www.postgresql.org/docs/current/sql-do.html
/// [`pg_stat_statements`]: https://www.postgresql.org/docs/current/pgstatstatements.html
fn set_key(key: RawLockKey) -> String {
    let columns = settings_of(key)
        .map(|(number, setting)| format!("pg_catalog.set_config('{setting}', '{number}', true)"));
    columns.collect::<Vec<_>>().join(", ")
}

/// Returns the numbers of a key, each with the setting for it.
fn settings_of(key: RawLockKey) -> impl Iterator<Item = (i64, &'static str)> {
    let (first, second) = match key {
        RawLockKey::Single(number) => (number, None),
        RawLockKey::Pair(first, second) => (first.into(), Some(second.into())),
    };
    let first = iter::once((first, "advisory_locking.key"));
    first.chain(second.map(|number| (number, "advisory_locking.second_key")))
}

/// Returns a column that calls a lock function, and is never evaluated.
///
/// Poolers that parse statements do not look into a `DO` block. A pooler that keeps a client on its
/// session while the session holds an advisory lock must know of the call.
fn visible_to_poolers(key: RawLockKey, mode: LockMode) -> String {
    format!(
        ", CASE WHEN false THEN {} END",
        call("pg_try_advisory_lock", key, mode)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (micros, text) in [
            (NEGATIVE_INFINITY, "-infinity"),
            (0, "2000-01-01 00:00:00.000000+00"),
            (-1, "1999-12-31 23:59:59.999999+00"),
            (5_097_600_000_001, "2000-02-29 00:00:00.000001+00"),
            (849_217_325_123_456, "2026-11-28 21:42:05.123456+00"),
            (3_160_857_600_000_000, "2100-03-01 00:00:00.000000+00"),
        ] {
            assert_eq!(iso_8601(micros), text);
        }
    }

    #[test]
    fn queued_release_says_why_it_failed() {
        let reply = Some(format!("{} t", u64::MAX));
        assert_eq!(Script::release_failure(reply.as_deref()), None);
        for (reply, kind) in [
            (Some("7 f"), LockErrorKind::NotHeld),
            (Some(OTHER_SESSION), LockErrorKind::SessionChanged),
            (Some(OPEN_TRANSACTION), LockErrorKind::TransactionLeftOpen),
            (None, LockErrorKind::NotHeld),
        ] {
            assert_eq!(Script::release_failure(reply), Some(kind), "{reply:?}");
        }
    }

    #[test]
    fn limit_rounds_up_and_is_never_zero() {
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
