//! While a guard lives, statements go through the guard.

use advisory_locking::{AdvisoryLocking, LockOptions};
use rusqlite::Connection;

fn main() {
    let mut conn = Connection::open_in_memory().unwrap();
    let guard = conn
        .acquire_advisory_lock("report", LockOptions::no_wait())
        .unwrap();
    conn.execute_batch("SELECT 1").unwrap();
    guard.release().unwrap();
}
