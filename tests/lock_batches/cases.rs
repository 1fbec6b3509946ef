//! The cases that every client must pass. They name no client.

pub(crate) mod answers;
pub(crate) mod failing;
pub(crate) mod large;
pub(crate) mod sequences;
pub(crate) mod single;
pub(crate) mod tokens;

use diesel::pg::PgConnection;
use testkit::observer::Observe;

/// Returns the number of advisory locks that a session holds.
fn locks_of(observer: &mut PgConnection, pid: i32) -> i64 {
    let locks = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = {pid}"
    );
    observer.number(&locks)
}
