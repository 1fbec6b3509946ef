//! The counterpart of `fail/two_guards_of_one_connection.rs`: the second lock is acquired through
//! the guard of the first.

use advisory_locking::{AdvisoryLocking, LockError, LockOptions, OnMissingLock};
use rusqlite::Connection;

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let quiet = LockOptions::no_wait().on_missing_lock(OnMissingLock::Ignore);
    let mut conn = Connection::open_in_memory()?;
    let mut outer = conn.acquire_advisory_lock("outer", quiet)?;
    let inner = outer.acquire_advisory_lock("inner", quiet)?;
    inner.execute_batch("SELECT 1")?;
    inner.release()?;
    outer.with_advisory_lock("inner", quiet, |_| Ok::<_, LockError>(()))?;
    outer.release()?;
    conn.execute_batch("SELECT 1")?;
    Ok(())
}
