//! A second lock on one connection is acquired through the guard of the first.

use advisory_locking::{AdvisoryLocking, LockOptions};
use rusqlite::Connection;

fn main() {
    let mut conn = Connection::open_in_memory().unwrap();
    let first = conn
        .acquire_advisory_lock("first", LockOptions::no_wait())
        .unwrap();
    let second = conn
        .acquire_advisory_lock("second", LockOptions::no_wait())
        .unwrap();
    drop((first, second));
}
