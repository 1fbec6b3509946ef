//! The text around a wait on the server: its settings, and the savepoint inside a transaction.
//!
//! # Implementation details
//!
//! One `SELECT` before the wait changes the settings. PostgreSQL starts the timers of
//! `statement_timeout` and `client_connection_check_interval` when a statement begins, so the
//! statement that waits cannot change them for itself. One `SELECT` of all settings costs the
//! server less than a statement for each.
//!
//! | setting | value during the wait | reason |
//! |---|---|---|
//! | [`lock_timeout`] | the limit of the call | has an SQLSTATE of its own, and counts the wait only |
//! | [`statement_timeout`] | 0 | the application's value would shorten the wait |
//! | [`transaction_timeout`] (since 17) | 0 outside a transaction | the script is a transaction for the server, not for the caller |
//! | [`client_connection_check_interval`] (since 14) | [`CHECK_INTERVAL_MS`], if it was 0 | a wait ends soon after its connection |
//!
//! Inside a transaction of the caller, `transaction_timeout` keeps its value: it bounds that
//! transaction, and to restore the value would start its timer again.
//!
//! [`client_connection_check_interval`]: https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-CLIENT-CONNECTION-CHECK-INTERVAL
//! [`lock_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
//! [`statement_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-STATEMENT-TIMEOUT
//! [`transaction_timeout`]: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-TRANSACTION-TIMEOUT

/// The savepoint around a wait inside a transaction.
pub(super) const SAVEPOINT: &str = "advisory_locking";

/// The interval at which a waiting session checks its connection, in milliseconds.
const CHECK_INTERVAL_MS: u32 = 500;

/// The text of [`version()`] of the servers on which the script sets an interval.
///
/// Another platform rejects every value but 0: in PostgreSQL 14 [all but Linux], later
/// [all but these] and illumos.
///
/// [`version()`]: https://www.postgresql.org/docs/current/functions-info.html
/// [all but Linux]: https://www.postgresql.org/docs/14/runtime-config-connection.html#GUC-CLIENT-CONNECTION-CHECK-INTERVAL
/// [all but these]: https://www.postgresql.org/docs/15/runtime-config-connection.html#GUC-CLIENT-CONNECTION-CHECK-INTERVAL
const CHECKS_CONNECTIONS: &str = "linux|^PostgreSQL (?!14).*(darwin|bsd)";

/// Sets the interval if the server has the setting and the application has not set it.
fn check_connection() -> String {
    format!(
        "CASE WHEN pg_catalog.current_setting('client_connection_check_interval', true) OPERATOR(pg_catalog.=) '0' \
         AND pg_catalog.version() OPERATOR(pg_catalog.~) '{CHECKS_CONNECTIONS}' \
         THEN pg_catalog.set_config('client_connection_check_interval', '{CHECK_INTERVAL_MS}', true) END"
    )
}

/// Disables `transaction_timeout` if the server has the setting and it is not 0.
const DISABLE_TRANSACTION_TIMEOUT: &str = "CASE WHEN pg_catalog.current_setting('transaction_timeout', true) OPERATOR(pg_catalog.<>) '0' \
    THEN pg_catalog.set_config('transaction_timeout', '0', true) END";

/// The statements that save and restore the settings of the transaction around a wait.
///
/// [`SET LOCAL`] and its function form survive `RELEASE SAVEPOINT`. A server before 14 has no
/// `client_connection_check_interval`, whose saved value is empty then.
///
/// [`SET LOCAL`]: https://www.postgresql.org/docs/current/sql-set.html
const SAVE_SETTINGS: &str = "SELECT \
    pg_catalog.set_config('advisory_locking.statement_timeout', pg_catalog.current_setting('statement_timeout'), true), \
    pg_catalog.set_config('advisory_locking.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), \
    pg_catalog.set_config('advisory_locking.check_interval', \
    COALESCE(pg_catalog.current_setting('client_connection_check_interval', true), ''), true)";
const RESTORE_SETTINGS: &str = "SELECT \
    pg_catalog.set_config('statement_timeout', pg_catalog.current_setting('advisory_locking.statement_timeout'), true), \
    pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('advisory_locking.lock_timeout'), true), \
    CASE WHEN pg_catalog.current_setting('advisory_locking.check_interval') OPERATOR(pg_catalog.<>) '' \
    THEN pg_catalog.set_config('client_connection_check_interval', pg_catalog.current_setting('advisory_locking.check_interval'), true) END";

/// Returns a statement that waits, with its settings and the savepoint inside a transaction.
///
/// `columns` follow the settings in their `SELECT`, each after a comma.
pub(super) fn around(
    statement: &str,
    columns: &str,
    in_transaction: bool,
    limit_ms: i32,
) -> String {
    let settings = format!(
        "SELECT pg_catalog.set_config('statement_timeout', '0', true), \
         pg_catalog.set_config('lock_timeout', '{limit_ms}', true), {}",
        check_connection()
    );
    if in_transaction {
        // The settings survive the savepoint, so they are restored before its release.
        // `transaction_timeout` stays: it bounds the caller's transaction.
        format!(
            "SAVEPOINT {SAVEPOINT}; {SAVE_SETTINGS}; {settings}{columns}; {statement}; {RESTORE_SETTINGS}; RELEASE SAVEPOINT {SAVEPOINT}"
        )
    } else {
        // One message is one transaction, so the settings end with it.
        format!("{settings}, {DISABLE_TRANSACTION_TIMEOUT}{columns}; {statement}")
    }
}
