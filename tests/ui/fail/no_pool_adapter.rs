//! A pool without an adapter, or without its feature.

use advisory_locking::{LockOptions, PooledAdvisoryLocking};

struct NoPool;

fn needs_locks(_: impl PooledAdvisoryLocking) {}

fn main() {
    needs_locks(NoPool);
    let guard = NoPool.acquire_advisory_lock("report", LockOptions::no_wait());
    drop(guard);
}
