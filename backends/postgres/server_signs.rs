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
macro_rules! stub_sign {
    () => {
        "CASE WHEN pg_catalog.current_setting('crdb_version', true) IS NOT NULL THEN 2 \
         WHEN pg_catalog.current_setting('yb_silence_advisory_locks_not_supported_error', true) \
         OPERATOR(pg_catalog.=) 'on' AND COALESCE(\
         pg_catalog.current_setting('yb_enable_advisory_locks', true), 'off') \
         OPERATOR(pg_catalog.<>) 'on' THEN 4 END"
    };
}
pub(super) use stub_sign;

/// The sign of a standby, as a number in a statement. Null: none.
macro_rules! standby_sign {
    () => {
        "CASE WHEN pg_catalog.pg_is_in_recovery() THEN 8 END"
    };
}
pub(super) use standby_sign;

/// The signs as a number, in a statement. 0: none.
macro_rules! server_signs {
    () => {
        concat!("COALESCE(", stub_sign!(), ", ", standby_sign!(), ", 0)")
    };
}
pub(super) use server_signs;
