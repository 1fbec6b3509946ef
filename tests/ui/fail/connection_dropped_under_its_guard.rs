//! A connection cannot go, to a pool or anywhere, while its guard is alive.

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
