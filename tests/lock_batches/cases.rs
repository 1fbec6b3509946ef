//! What every client must do. No client is named here.

pub(crate) mod answers;
pub(crate) mod failing;
pub(crate) mod large;
pub(crate) mod sequences;
pub(crate) mod single;
pub(crate) mod tokens;

use diesel::pg::PgConnection;

use crate::support::number;

/// How many advisory locks a session holds.
fn locks_of(observer: &mut PgConnection, pid: i32) -> i64 {
    let locks = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = {pid}"
    );
    number(observer, &locks)
}
