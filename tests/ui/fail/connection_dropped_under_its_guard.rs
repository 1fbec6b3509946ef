//! A connection cannot be dropped or returned to its pool while its guard lives.

use advisory_locking::{AdvisoryLocking, LockOptions};
use rusqlite::Connection;

fn main() {
    let mut conn = Connection::open_in_memory().unwrap();
    let guard = conn
        .acquire_advisory_lock("report", LockOptions::no_wait())
        .unwrap();
    drop(conn);
    drop(guard);
}
