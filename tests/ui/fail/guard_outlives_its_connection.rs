//! A guard borrows its connection, so it cannot outlive it.

use advisory_locking::{AdvisoryLockGuard, AdvisoryLocking, LockOptions};
use rusqlite::Connection;

fn lock<'a>() -> AdvisoryLockGuard<&'a mut Connection> {
    let mut conn = Connection::open_in_memory().unwrap();
    conn.acquire_advisory_lock("report", LockOptions::no_wait())
        .unwrap()
}

fn main() {
    drop(lock());
}
