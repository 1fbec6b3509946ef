//! The server's settings that end a statement, a transaction or a session after a time.

use diesel::pg::PgConnection;

use crate::observer::Observe;

/// A setting that not every supported server has, with the first version that has it.
const SINCE: [(&str, i64); 3] = [
    ("client_connection_check_interval", 14),
    ("idle_session_timeout", 14),
    (TRANSACTION_TIMEOUT, 17),
];

const TRANSACTION_TIMEOUT: &str = "transaction_timeout";

/// Returns the server's major version.
pub fn major_version(conn: &mut PgConnection) -> i64 {
    conn.number("pg_catalog.current_setting('server_version_num')::int4 / 10000")
}

/// Returns `true` if a waiting session of the server notices that its client has disconnected.
pub fn notices_disconnects(conn: &mut PgConnection) -> bool {
    major_version(conn) >= 14
}

/// Returns `true` if the server can limit a transaction; asserts that it has the setting then.
pub fn limits_transactions(conn: &mut PgConnection) -> bool {
    timeout_settings(conn).contains(&TRANSACTION_TIMEOUT)
}

/// Returns the settings that the server's version has. Asserts that the server has these only.
pub fn timeout_settings(conn: &mut PgConnection) -> Vec<&'static str> {
    let version = major_version(conn);
    let mut settings = vec![
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
    ];
    for (name, since) in SINCE {
        let exists = conn.number(&format!(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_settings WHERE name = '{name}'"
        ));
        assert_eq!(exists == 1, version >= since, "{name} in version {version}");
        if version >= since {
            settings.push(name);
        }
    }
    settings
}
