//! An integer other than `i64` as a whole key, or as the first part of a tuple.

use advisory_locking::{AdvisoryLocking, LockKey, LockOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (order, part) = (17_u64, 4_i64);
    let mut conn = rusqlite::Connection::open_in_memory()?;
    conn.acquire_advisory_lock(order, LockOptions::no_wait())?;
    let _ = LockKey::from((order, part));
    Ok(())
}
