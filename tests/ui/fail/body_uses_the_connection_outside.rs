//! A body can use only the connection that it receives.

use advisory_locking::{AdvisoryLocking, LockOptions};
use rusqlite::Connection;

fn main() {
    let mut conn = Connection::open_in_memory().unwrap();
    conn.with_advisory_lock("report", LockOptions::no_wait(), |_conn| {
        conn.execute_batch("SELECT 1")
    })
    .unwrap();
}
