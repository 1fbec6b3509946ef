//! Checks of the server's settings: timeouts, keep-alives, the lock table.

use std::collections::BTreeMap;

use super::{Finding, Grade};
use crate::connect::Connection;
use crate::failure::Failure;

const SETTINGS: &str = "SELECT name, setting FROM pg_catalog.pg_settings \
    WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY['idle_session_timeout', \
    'idle_in_transaction_session_timeout', 'statement_timeout', 'transaction_timeout', \
    'tcp_keepalives_idle', 'max_locks_per_transaction', 'max_connections', \
    'max_prepared_transactions', 'log_lock_waits'])";

/// The locks in the shared table. [`pg_locks`] also shows those of the fast path, which a session
/// keeps to itself, and predicate locks, which have a table of their own.
///
/// [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
const LOCKS: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks \
    WHERE NOT fastpath AND mode OPERATOR(pg_catalog.<>) 'SIReadLock'";

/// Time-outs of the server, in milliseconds, with their effect on a lock.
const TIMEOUTS: [(&str, &str); 4] = [
    (
        "idle_session_timeout",
        "ends a session that holds a lock and is idle; `run` switches it off",
    ),
    (
        "idle_in_transaction_session_timeout",
        "ends a transaction that holds a lock and is idle",
    ),
    (
        "transaction_timeout",
        "ends a transaction that holds a lock, and the wait in a transaction",
    ),
    (
        "statement_timeout",
        "ends long statements under a lock; it shortens no wait of the library",
    ),
];

/// Two minutes: the lock of a client whose network is dead is held for this time, and some more.
const LONG_KEEPALIVE: i64 = 120;

pub(super) async fn check(connection: &Connection) -> Vec<Finding> {
    let settings = match settings(connection).await {
        Ok(settings) => settings,
        Err(failure) => return vec![Finding::unknown("settings", &failure)],
    };
    let mut findings: Vec<Finding> = TIMEOUTS
        .into_iter()
        .filter_map(|(name, effect)| {
            let millis = settings.get(name)?.parse::<i64>().ok()?;
            Some(if millis == 0 {
                Finding::new(Grade::Ok, name, "off")
            } else {
                Finding::new(Grade::Warn, name, format!("{millis} ms: {effect}"))
            })
        })
        .collect();
    findings.push(keepalive(&settings));
    findings.push(match connection.rows(LOCKS).await {
        Ok(rows) => lock_table(&settings, &rows),
        Err(failure) => Finding::unknown("lock table", &failure),
    });
    findings.push(if settings.get("log_lock_waits").is_some_and(|value| value == "on") {
        Finding::new(Grade::Ok, "log_lock_waits", "on")
    } else {
        let text = "off: if on, the server logs each wait in its queue that is longer than deadlock_timeout";
        Finding::new(Grade::Ok, "log_lock_waits", text)
    });
    findings
}

async fn settings(connection: &Connection) -> Result<BTreeMap<String, String>, Failure> {
    let rows = connection.rows(SETTINGS).await?;
    let pairs = rows.into_iter().filter_map(|row| {
        let [name, value] = <[Option<String>; 2]>::try_from(row).ok()?;
        Some((name?, value?))
    });
    Ok(pairs.collect())
}

/// Zero selects the system's default, which is two hours on Linux.
fn keepalive(settings: &BTreeMap<String, String>) -> Finding {
    let idle = settings
        .get("tcp_keepalives_idle")
        .and_then(|text| text.parse::<i64>().ok());
    match idle {
        Some(0) => Finding::new(
            Grade::Ok,
            "tcp_keepalives_idle",
            "not used on this connection",
        ),
        Some(seconds) if seconds > LONG_KEEPALIVE => {
            let text = format!(
                "{seconds} s: the server keeps the lock of a client whose network is dead for this time; \
                 set tcp_keepalives_idle to 60 s or less"
            );
            Finding::new(Grade::Warn, "tcp_keepalives_idle", text)
        }
        Some(seconds) => Finding::new(Grade::Ok, "tcp_keepalives_idle", format!("{seconds} s")),
        None => Finding::new(
            Grade::Unknown,
            "tcp_keepalives_idle",
            "not shown by the server",
        ),
    }
}

/// Compares the locks with the [size of the table].
///
/// [size of the table]: https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-MAX-LOCKS-PER-TRANSACTION
fn lock_table(settings: &BTreeMap<String, String>, rows: &[Vec<Option<String>>]) -> Finding {
    let number = |name| {
        settings
            .get(name)
            .and_then(|text: &String| text.parse::<u64>().ok())
    };
    let used = rows
        .first()
        .and_then(|row| row.first()?.as_deref()?.parse::<u64>().ok());
    let size = || {
        let sessions =
            number("max_connections")?.checked_add(number("max_prepared_transactions")?)?;
        number("max_locks_per_transaction")?.checked_mul(sessions)
    };
    let (Some(used), Some(size)) = (used, size()) else {
        return Finding::new(Grade::Unknown, "lock table", "its size is unknown");
    };
    let text = format!("{used} of at least {size} locks are used");
    let is_full = used.saturating_mul(2) > size;
    if is_full {
        let text = format!("{text}: raise max_locks_per_transaction");
        return Finding::new(Grade::Warn, "lock table", text);
    }
    Finding::new(Grade::Ok, "lock table", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_lock_table_is_a_warning() {
        let settings: BTreeMap<String, String> = [
            ("max_locks_per_transaction", "64"),
            ("max_connections", "100"),
            ("max_prepared_transactions", "0"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let grade = |used: &str| lock_table(&settings, &[vec![Some(used.to_owned())]]).grade;
        assert_eq!((grade("10"), grade("3201")), (Grade::Ok, Grade::Warn));
        assert_eq!(lock_table(&BTreeMap::new(), &[]).grade, Grade::Unknown);
    }

    #[test]
    fn long_keepalive_is_a_warning() {
        let grade = |seconds: &str| {
            let settings = [("tcp_keepalives_idle".to_owned(), seconds.to_owned())];
            keepalive(&settings.into_iter().collect()).grade
        };
        assert_eq!(
            (grade("7200"), grade("60"), grade("0")),
            (Grade::Warn, Grade::Ok, Grade::Ok)
        );
    }
}
