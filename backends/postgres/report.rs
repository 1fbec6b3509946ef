//! The texts of the lock reports: rows of `pg_locks` with their sessions.
//!
//! # Implementation details
//!
//! The server flattens the rows into one array of texts, so the reply is one column whatever the
//! number of rows.
//!
//! * The text reads [`pg_stat_get_activity`], on which the view `pg_stat_activity` is based. The
//!   view also reads `pg_database`, which all databases share. That read needs room in the lock
//!   table, which may be full.
//! * `pg_locks` shows the locks of all databases, so the text compares the database.
//! * `waitstart` exists since PostgreSQL 14. As a field of a JSON value it is null before.
//! * An error contains holders only. With 166 waiters, their blockers took the server 60 ms, and
//!   the holder 2 ms. Waiters whose limits pass together would read them all at once.
//! * `LEFT JOIN`, because a prepared transaction has no session.
//! * All databases of a server share its roles, and each stores a name in [its own encoding]. One
//!   name that is invalid in another encoding would fail the whole reply. So the text returns the
//!   bytes of the name, in the [format `escape`]. Of an encoding other than UTF8 and SQL_ASCII, the
//!   client cannot read the bytes, so the server converts the name. It fails at bytes that are no
//!   character of its encoding, for which SQL has no test. LATIN1 has no such bytes.
//!
//! [its own encoding]: https://www.postgresql.org/docs/current/multibyte.html
//! [format `escape`]: https://www.postgresql.org/docs/current/functions-binarystring.html#ENCODE-FORMAT-ESCAPE
//! [`pg_stat_get_activity`]: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-STATS-FUNCTIONS

use super::Bind;
use crate::key::RawLockKey;

/// The bytes of a role's name as ASCII.
///
/// `convert_to` checks the bytes if it has nothing to convert, so it does not get such a name.
/// `chr(92)` is a backslash, whose literal depends on `standard_conforming_strings`.
const ROLE_NAME: &str = "(SELECT pg_catalog.encode(\
     CASE WHEN role.encoding OPERATOR(pg_catalog.=) 'UTF8' \
     OR role.encoding OPERATOR(pg_catalog.=) 'SQL_ASCII' \
     THEN pg_catalog.decode(pg_catalog.replace(role.name, pg_catalog.chr(92), \
     pg_catalog.repeat(pg_catalog.chr(92), 2)), 'escape') \
     ELSE pg_catalog.convert_to(role.name, 'UTF8') END, 'escape') \
     FROM (SELECT pg_catalog.pg_get_userbyid(entry.usesysid)::pg_catalog.text AS name, \
     pg_catalog.getdatabaseencoding()::pg_catalog.text AS encoding) AS role)";

/// The order for every advisory lock of the database: the limit first cuts keys without waiters.
const ALL: &str = " ORDER BY pg_catalog.bool_and(locks.granted) OVER (\
     PARTITION BY locks.objsubid, locks.classid, locks.objid)";

/// The condition and the order for one key: the limit cuts waiters only.
const OF_KEY: &str = " \
     AND locks.classid OPERATOR(pg_catalog.=) $1::pg_catalog.int8::pg_catalog.oid \
     AND locks.objid OPERATOR(pg_catalog.=) $2::pg_catalog.int8::pg_catalog.oid \
     AND locks.objsubid OPERATOR(pg_catalog.=) $3::pg_catalog.int4 \
     AND (locks.granted OR $4::pg_catalog.int4 OPERATOR(pg_catalog.=) 1) \
     ORDER BY locks.granted DESC";

/// The greatest number of rows in a report.
const MAX_ROWS: u32 = 1000;

/// Returns the text for one key, or for all.
///
/// `wait_start` is null for an instant after the start of a wait. The rows are ordered by it, not
/// by the time since then: the clock may advance between two rows. [`pg_blocking_pids`] needs
/// exclusive access to the server's lock manager, so it is called for waiters only.
///
/// [`pg_blocking_pids`]: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SESSION
pub(super) fn sql(key: Option<RawLockKey>) -> String {
    let condition = if key.is_some() { OF_KEY } else { ALL };
    format!(
        "SELECT pg_catalog.array_agg(field.value ORDER BY entry.position, field.position) FROM (\
         SELECT held.*, session.*, pg_catalog.row_number() OVER (\
         ORDER BY held.objsubid, held.classid, held.objid, held.granted DESC, \
         held.wait_start NULLS LAST, held.pid) AS position FROM (\
         SELECT locks.*, CASE WHEN NOT locks.granted THEN \
         (pg_catalog.to_jsonb(locks) OPERATOR(pg_catalog.->>) 'waitstart')\
         ::pg_catalog.timestamptz END AS wait_start FROM pg_catalog.pg_locks AS locks \
         WHERE locks.locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND locks.database OPERATOR(pg_catalog.=) (SELECT own.datid \
         FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS own){condition} \
         LIMIT {MAX_ROWS}) AS held LEFT JOIN (SELECT activity.pid AS session_pid, \
         activity.usesysid, activity.application_name, activity.client_addr, activity.state, \
         pg_catalog.clock_timestamp() \
         OPERATOR(pg_catalog.-) activity.state_change AS state_age, \
         pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) activity.xact_start AS xact_age, \
         pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) activity.backend_start AS age \
         FROM pg_catalog.pg_stat_get_activity(NULL) AS activity) AS session \
         ON session.session_pid OPERATOR(pg_catalog.=) held.pid) AS entry, \
         LATERAL pg_catalog.unnest(ARRAY[\
         entry.classid::pg_catalog.text, entry.objid::pg_catalog.text, \
         entry.objsubid::pg_catalog.text, entry.mode, entry.granted::pg_catalog.text, \
         pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() \
         OPERATOR(pg_catalog.-) entry.wait_start)::pg_catalog.text, \
         CASE WHEN NOT entry.granted THEN pg_catalog.array_to_string(\
         pg_catalog.pg_blocking_pids(entry.pid), ',') END, \
         entry.pid::pg_catalog.text, {ROLE_NAME}, \
         entry.application_name, pg_catalog.host(entry.client_addr), entry.state, \
         pg_catalog.date_part('epoch', entry.state_age)::pg_catalog.text, \
         pg_catalog.date_part('epoch', entry.xact_age)::pg_catalog.text, \
         pg_catalog.date_part('epoch', entry.age)::pg_catalog.text\
         ]) WITH ORDINALITY AS field(value, position)"
    )
}

/// Returns the values to bind.
pub(super) fn binds(key: Option<RawLockKey>, with_waiters: bool) -> Vec<Bind> {
    let Some(key) = key else {
        return Vec::new();
    };
    let columns = key.pg_locks();
    vec![
        Bind::Int8(columns.classid.into()),
        Bind::Int8(columns.objid.into()),
        Bind::Int4(columns.objsubid.into()),
        Bind::Int4(with_waiters.into()),
    ]
}
