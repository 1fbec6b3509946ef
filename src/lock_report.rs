//! Reports about held and awaited locks: [`LockReport`] and its parts.
//!
//! # Implementation details
//!
//! The server returns a report as one flat array of texts, [`COLUMNS`] for each row of `pg_locks`.
//! So one type of column serves every client library, and a null stands for a value that the role
//! may not see.

use std::fmt;
use std::time::Duration;

use crate::key::{RawLockKey, is_unsafe_in_log};
use crate::lock_mode::LockMode;

/// Sessions that hold one lock, and sessions that wait for it, at one moment.
///
/// Returned by [`advisory_lock_holders`](crate::AdvisoryLocking::advisory_lock_holders) and
/// [`advisory_locks`](crate::AdvisoryLocking::advisory_locks). `Display` prints one line for each
/// session.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LockReport {
    /// The integers of the key, as the server shows them.
    pub key: RawLockKey,
    /// The sessions that hold the lock; several if its mode is shared.
    pub holders: Vec<LockHolder>,
    /// The sessions in the server's queue, longest wait first. Before PostgreSQL 14 they are
    /// in the order of their process ids. A client that polls is not in the queue.
    pub waiters: Vec<LockWaiter>,
}

/// A session that holds a lock.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LockHolder {
    /// The mode of the lock.
    pub mode: LockMode,
    /// The session.
    pub session: SessionInfo,
}

/// A session in the server's queue.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LockWaiter {
    /// The requested mode of the lock.
    pub mode: LockMode,
    /// The session.
    pub session: SessionInfo,
    /// The time since the start of the wait. `None` before PostgreSQL 14, and for an instant after
    /// the start.
    pub waited: Option<Duration>,
    /// The process ids of the sessions that this one waits for: holders, and waiters before it in
    /// the queue. 0 stands for a prepared transaction. Empty if the lock was granted in the
    /// meantime.
    ///
    /// See [`pg_blocking_pids`](https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SESSION).
    pub blocked_by: Vec<i32>,
}

/// A server session.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SessionInfo {
    /// The process id of the session. `None` for a [prepared transaction], which has no session.
    ///
    /// [prepared transaction]: https://www.postgresql.org/docs/current/sql-prepare-transaction.html
    pub pid: Option<i32>,
    /// The role of the session. Its name may contain any character. U+FFFD replaces bytes that are
    /// not UTF-8, if a database of another encoding has named the role.
    ///
    /// In a database whose encoding is not `UTF8`, `SQL_ASCII` or `LATIN1`, such bytes may be no
    /// character of that encoding. The report then fails, with all of its sessions.
    pub user: Option<String>,
    /// The [`application_name`], as its client set it. PostgreSQL replaces all characters but those
    /// of printable ASCII.
    ///
    /// [`application_name`]: https://www.postgresql.org/docs/current/runtime-config-logging.html#GUC-APPLICATION-NAME
    pub application: Option<String>,
    /// Details. `None` unless the role that asks is a member of the session's role or of
    /// [`pg_read_all_stats`](https://www.postgresql.org/docs/current/predefined-roles.html).
    pub details: Option<SessionDetails>,
}

/// Details of a session, which not every role may see.
#[non_exhaustive]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SessionDetails {
    /// The IP address of the client. `None` for a Unix-domain socket.
    pub client_address: Option<String>,
    /// The column `state` of [`pg_stat_activity`], for example `active` or `idle`.
    ///
    /// [`pg_stat_activity`]: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
    pub state: Option<String>,
    /// The time since the last change of [`state`](Self::state).
    pub state_age: Option<Duration>,
    /// The age of the session's transaction. `None` outside a transaction.
    pub transaction_age: Option<Duration>,
    /// The age of the session.
    pub session_age: Option<Duration>,
}

/// The number of texts for each row of `pg_locks`.
pub(crate) const COLUMNS: usize = 15;

impl LockReport {
    /// Returns the report of a key without holders and waiters.
    pub(crate) const fn empty(key: RawLockKey) -> Self {
        Self {
            key,
            holders: Vec::new(),
            waiters: Vec::new(),
        }
    }

    /// Returns the report of a key among those of a reply about it. The server returns none for a
    /// free lock.
    pub(crate) fn of_key(key: RawLockKey, reports: Vec<Self>) -> Self {
        let mut reports = reports.into_iter().filter(|report| report.key == key);
        reports.next().unwrap_or_else(|| Self::empty(key))
    }

    /// Reads the texts of a reply. Rows of one key are adjacent. `None` if a text is malformed.
    pub(crate) fn parse(texts: Vec<Option<String>>) -> Option<Vec<Self>> {
        let mut reports: Vec<Self> = Vec::new();
        let mut texts = texts.into_iter();
        while texts.len() > 0 {
            let mut columns = [const { None }; COLUMNS];
            for column in &mut columns {
                *column = texts.next()?;
            }
            Self::parse_row(columns, &mut reports)?;
        }
        Some(reports)
    }

    /// Reads a row of `pg_locks`, in the order of the columns of the statement, into the report of
    /// its key, which is the last one.
    fn parse_row(columns: [Option<String>; COLUMNS], reports: &mut Vec<Self>) -> Option<()> {
        let [
            classid,
            objid,
            objsubid,
            mode,
            granted,
            waited,
            blocked_by,
            pid,
            user,
            application,
            client_address,
            state,
            state_age,
            transaction_age,
            session_age,
        ] = columns;
        let key = RawLockKey::from_pg_locks(
            classid?.parse().ok()?,
            objid?.parse().ok()?,
            objsubid?.parse().ok()?,
        )?;
        let mode = match &*mode? {
            "ExclusiveLock" => LockMode::Exclusive,
            "ShareLock" => LockMode::Shared,
            _ => return None,
        };
        // Null for a role that may not see the details, as the columns beside it.
        let details = session_age.as_deref().map(|age| SessionDetails {
            client_address,
            state,
            state_age: state_age.as_deref().and_then(seconds),
            transaction_age: transaction_age.as_deref().and_then(seconds),
            session_age: seconds(age),
        });
        let session = SessionInfo {
            pid: pid.map(|pid| pid.parse()).transpose().ok()?,
            user: user.as_deref().map(unescape),
            application,
            details,
        };
        if reports.last().is_none_or(|report| report.key != key) {
            reports.push(Self::empty(key));
        }
        let report = reports.last_mut()?;
        if granted?.parse().ok()? {
            report.holders.push(LockHolder { mode, session });
        } else {
            let blocked_by = blocked_by.unwrap_or_default();
            report.waiters.push(LockWaiter {
                mode,
                session,
                waited: waited.as_deref().and_then(seconds),
                blocked_by: blocked_by
                    .split(',')
                    .filter_map(|pid| pid.parse().ok())
                    .collect(),
            });
        }
        Some(())
    }
}

/// Reads bytes in the [format `escape`], and replaces those that are not UTF-8.
///
/// [format `escape`]: https://www.postgresql.org/docs/current/functions-binarystring.html#ENCODE-FORMAT-ESCAPE
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        let byte;
        (byte, rest) = match rest {
            [] => break,
            [b'\\', b'\\', rest @ ..] => (b'\\', rest),
            [
                b'\\',
                high @ b'0'..=b'3',
                middle @ b'0'..=b'7',
                low @ b'0'..=b'7',
                rest @ ..,
            ] => ((high & 0o3) << 6 | (middle & 0o7) << 3 | low & 0o7, rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a number of seconds. The server's clock may have been set back, so a negative number is
/// zero.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

impl SessionInfo {
    /// Returns the least time for which the session has held its locks.
    ///
    /// PostgreSQL does not record the time of a grant. A session that is idle has acquired nothing
    /// since it became idle. `None` for a session that runs a statement, and without
    /// [`details`](Self::details).
    #[must_use]
    pub fn held_at_least(&self) -> Option<Duration> {
        let details = self.details.as_ref()?;
        details
            .state
            .as_ref()
            .filter(|state| state.starts_with("idle"))
            .and(details.state_age)
    }
}

/// Prints the process id, the application name or else the role, and the state: `pid 4711
/// (billing-worker-3, idle for at least 12 min)`.
///
/// Control characters, line separators and changes of the direction of text are replaced in the
/// name, because it comes from another program.
impl fmt::Display for SessionInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else {
            return formatter.write_str("a prepared transaction");
        };
        write!(formatter, "pid {pid}")?;
        let name = self.application.iter().chain(&self.user);
        let name = name.map(String::as_str).find(|name| !name.is_empty());
        let state = self.details.as_ref().and_then(|it| it.state.as_deref());
        if name.is_none() && state.is_none() {
            return Ok(());
        }
        formatter.write_str(" (")?;
        for char in name.unwrap_or_default().chars() {
            // The name of a role may contain escape sequences of a terminal.
            let shown = if is_unsafe_in_log(char) {
                '\u{fffd}'
            } else {
                char
            };
            write!(formatter, "{shown}")?;
        }
        if let Some(state) = state {
            let separator = if name.is_some() { ", " } else { "" };
            write!(formatter, "{separator}{state}")?;
        }
        if let Some(held) = self.held_at_least() {
            write!(formatter, " for at least {}", Rounded(held))?;
        }
        formatter.write_str(")")
    }
}

/// Prints one line for each session: `held by pid 4711 (…)`, `awaited by pid 4822 (…)`.
impl fmt::Display for LockReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holders.is_empty() && self.waiters.is_empty() {
            return formatter.write_str("not held");
        }
        let holders = self.holders.iter();
        let holders = holders.map(|holder| ("held", &holder.session, holder.mode, None));
        let waiters = self.waiters.iter();
        let waiters =
            waiters.map(|waiter| ("awaited", &waiter.session, waiter.mode, waiter.waited));
        for (index, (verb, session, mode, waited)) in holders.chain(waiters).enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{verb} by {session}")?;
            if mode == LockMode::Shared {
                formatter.write_str(", shared")?;
            }
            if let Some(waited) = waited {
                write!(formatter, ", for {}", Rounded(waited))?;
            }
        }
        Ok(())
    }
}

/// A duration in its largest whole unit: `3 s`, `12 min`, `5 h`, `2 d`.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(formatter, "{} ms", self.0.as_millis()),
            seconds @ ..120 => write!(formatter, "{seconds} s"),
            seconds @ ..7_200 => write!(formatter, "{} min", seconds / 60),
            seconds @ ..172_800 => write!(formatter, "{} h", seconds / 3_600),
            seconds => write!(formatter, "{} d", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(row: [Option<&str>; COLUMNS]) -> Vec<Option<String>> {
        row.map(|text| text.map(str::to_owned)).to_vec()
    }

    const HOLDER: [Option<&str>; COLUMNS] = [
        Some("4294967295"),
        Some("4294967291"),
        Some("1"),
        Some("ExclusiveLock"),
        Some("true"),
        None,
        None,
        Some("4711"),
        Some("app"),
        Some("billing\u{1b}[31m\u{202e}"),
        Some("10.0.3.7"),
        Some("idle"),
        Some("725.5"),
        None,
        Some("9000"),
    ];

    fn hidden_waiter() -> [Option<&'static str>; COLUMNS] {
        let mut row = HOLDER;
        row[3] = Some("ShareLock");
        row[4] = Some("false");
        row[5] = Some("3.25");
        row[6] = Some("4711,4800");
        row[7] = Some("4822");
        row[9] = Some("");
        row[10..].fill(None);
        row
    }

    #[test]
    fn rows_of_one_key_are_one_report() {
        let mut rows = texts(HOLDER);
        rows.extend(texts(hidden_waiter()));
        let mut pair = HOLDER;
        pair[2] = Some("2");
        rows.extend(texts(pair));
        let reports = LockReport::parse(rows).unwrap();
        let keys: Vec<_> = reports.iter().map(|report| report.key).collect();
        assert_eq!(keys, [RawLockKey::Single(-5), RawLockKey::Pair(-1, -5)]);
        let waiter = &reports[0].waiters[0];
        assert_eq!(waiter.blocked_by, [4711, 4800]);
        assert_eq!(waiter.waited, Some(Duration::from_millis(3_250)));
        assert_eq!(waiter.session.details, None);
    }

    #[test]
    fn malformed_reply_is_rejected() {
        let mut short = texts(HOLDER);
        short.pop();
        assert_eq!(LockReport::parse(short), None);
        for (column, text) in [
            (0, "x"),
            (1, "4294967296"),
            (2, "3"),
            (3, "AccessShareLock"),
            (4, "t"),
            (7, "2147483648"),
        ] {
            let mut row = HOLDER;
            row[column] = Some(text);
            assert_eq!(LockReport::parse(texts(row)), None, "{text}");
        }
        assert_eq!(LockReport::parse(Vec::new()), Some(Vec::new()));
    }

    #[test]
    fn display_names_application_and_hides_control_characters() {
        let mut rows = texts(HOLDER);
        rows.extend(texts(hidden_waiter()));
        let report = LockReport::parse(rows).unwrap().remove(0);
        assert_eq!(
            report.to_string(),
            "held by pid 4711 (billing\u{fffd}[31m\u{fffd}, idle for at least 12 min)\n\
             awaited by pid 4822 (app), shared, for 3 s"
        );
        assert_eq!(
            LockReport::empty(RawLockKey::Single(1)).to_string(),
            "not held"
        );
    }

    /// Returns the session of a holder, with one column changed.
    fn holder_with(column: usize, text: Option<&'static str>) -> SessionInfo {
        let mut row = HOLDER;
        row[column] = text;
        let mut reports = LockReport::parse(texts(row)).unwrap();
        reports.remove(0).holders.remove(0).session
    }

    #[test]
    fn details_are_read_from_their_columns() {
        let session = holder_with(13, Some("60"));
        let expected = SessionDetails {
            client_address: Some("10.0.3.7".to_owned()),
            state: Some("idle".to_owned()),
            state_age: Some(Duration::from_millis(725_500)),
            transaction_age: Some(Duration::from_secs(60)),
            session_age: Some(Duration::from_secs(9000)),
        };
        assert_eq!(session.details, Some(expected));
    }

    /// The clock of the server may have been set back.
    #[test]
    fn negative_time_is_zero() {
        let mut row = hidden_waiter();
        row[5] = Some("-0.25");
        let report = LockReport::parse(texts(row)).unwrap().remove(0);
        assert_eq!(report.waiters[0].waited, Some(Duration::ZERO));
        let session = holder_with(12, Some("-0.25"));
        assert_eq!(session.held_at_least(), Some(Duration::ZERO));
    }

    #[test]
    fn only_an_idle_session_shows_how_long_it_holds() {
        for (state, shown) in [
            ("active", "active"),
            ("idle", "idle for at least 12 min"),
            (
                "idle in transaction",
                "idle in transaction for at least 12 min",
            ),
        ] {
            let text = holder_with(11, Some(state)).to_string();
            assert!(text.ends_with(&format!(", {shown})")), "{text}");
        }
    }

    #[test]
    fn session_without_a_name_shows_its_state() {
        let mut session = holder_with(9, Some(""));
        session.user = None;
        assert_eq!(session.to_string(), "pid 4711 (idle for at least 12 min)");
        session.details = None;
        assert_eq!(session.to_string(), "pid 4711");
    }

    #[test]
    fn time_is_shown_in_its_largest_whole_unit() {
        for (millis, shown) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (7_199_000, "119 min"),
            (7_200_000, "2 h"),
            (172_799_000, "47 h"),
            (172_800_000, "2 d"),
        ] {
            let rounded = Rounded(Duration::from_millis(millis));
            assert_eq!(rounded.to_string(), shown, "{millis}");
        }
    }

    #[test]
    fn bytes_of_a_name_are_read() {
        for (escaped, name) in [
            ("", ""),
            ("app", "app"),
            (r"a\\101b", r"a\101b"),
            (r"\303\251", "é"),
            (r"\351!", "\u{fffd}!"),
            (r"\377\000", "\u{fffd}\0"),
            (r"\", r"\"),
            (r"\40", r"\40"),
            (r"\401", r"\401"),
        ] {
            assert_eq!(unescape(escaped), name, "{escaped}");
        }
    }

    #[test]
    fn prepared_transaction_has_no_session() {
        let mut row = [None; COLUMNS];
        row[..5].copy_from_slice(&HOLDER[..5]);
        let report = LockReport::parse(texts(row)).unwrap().remove(0);
        assert_eq!(report.to_string(), "held by a prepared transaction");
        assert_eq!(report.holders[0].session, SessionInfo::default());
    }
}
