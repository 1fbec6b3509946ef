//! The texts of the [`ServerSigns`](crate::server_signs::ServerSigns).
//!
//! # Implementation details
//!
//! The signs are settings that PostgreSQL does not have, and [`pg_is_in_recovery`]. They travel
//! with every attempt, so a failover to another server is noticed by the next one. The statement
//! evaluates them before it calls the lock function. So a refused attempt leaves nothing to
//! release, also in a transaction.
//!
//! [`pg_is_in_recovery`]: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-CONTROL

/// The sign of a server that grants every lock, as a number in a statement. Null: none.
///
/// CockroachDB shows its version in a setting. YugabyteDB without advisory locks refuses them,
/// unless a setting silences that error. Its newer releases have locks, and a setting for that.
pub(super) const STUB_SIGN: &str = "CASE \
     WHEN pg_catalog.current_setting('crdb_version', true) IS NOT NULL THEN 2 \
     WHEN pg_catalog.current_setting('yb_silence_advisory_locks_not_supported_error', true) \
     OPERATOR(pg_catalog.=) 'on' AND COALESCE(\
     pg_catalog.current_setting('yb_enable_advisory_locks', true), 'off') \
     OPERATOR(pg_catalog.<>) 'on' THEN 4 END";

/// The sign of a standby, as a number in a statement. Null: none.
pub(super) const STANDBY_SIGN: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN 8 END";

/// Returns the signs as a number, in a statement. 0: none.
pub(super) fn server_signs() -> String {
    format!("COALESCE({STUB_SIGN}, {STANDBY_SIGN}, 0)")
}
