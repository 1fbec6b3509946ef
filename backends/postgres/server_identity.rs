//! The texts that identify a server: its version, and the behaviour of its lock functions.
//!
//! # Implementation details
//!
//! The first text acquires a transaction-level lock and reads it back from [`pg_locks`], in one
//! statement. The lock ends with the statement, which is a transaction of its own. The inner query
//! is evaluated first, because it calls a volatile function. The second text is for a server that
//! refuses the first. Each returns one array of texts.
//!
//! [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html

use super::server_signs::server_signs;

/// Returns the text that also tries a lock, on the key `$1`.
pub(super) fn with_lock() -> String {
    let signs = server_signs();
    // The mask makes the high half of a negative key unsigned, as `classid` is. The extensions are
    // those of several nodes, each of which has a lock table of its own.
    format!(
        "SELECT ARRAY[pg_catalog.version(), pg_catalog.current_setting('crdb_version', true), \
         ({signs})::pg_catalog.text, pg_catalog.pg_is_in_recovery()::pg_catalog.text, \
         tried.granted::pg_catalog.text, \
         (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks AS held \
         WHERE held.locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND held.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
         AND held.objsubid OPERATOR(pg_catalog.=) 1 \
         AND held.classid::pg_catalog.int8 OPERATOR(pg_catalog.=) \
         ((tried.number OPERATOR(pg_catalog.>>) 32) OPERATOR(pg_catalog.&) 4294967295) \
         AND held.objid::pg_catalog.int8 OPERATOR(pg_catalog.=) \
         (tried.number OPERATOR(pg_catalog.&) 4294967295))::pg_catalog.text, \
         (SELECT pg_catalog.min(extension.extname::pg_catalog.text) \
         FROM pg_catalog.pg_extension AS extension \
         WHERE extension.extname OPERATOR(pg_catalog.=) 'bdr' \
         OR extension.extname OPERATOR(pg_catalog.=) 'citus' \
         OR extension.extname OPERATOR(pg_catalog.=) 'spock')] \
         FROM (SELECT once.number, pg_catalog.pg_try_advisory_xact_lock(once.number) AS granted \
         FROM (SELECT $1::pg_catalog.int8 AS number) AS once) AS tried"
    )
}

/// The text for a server that refuses that of [`with_lock`].
pub(super) const VERSION_ONLY: &str = "SELECT ARRAY[pg_catalog.version()]";
