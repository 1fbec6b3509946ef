//! A type whose feature is off, or that has no adapter.

use advisory_locking::{AdvisoryLocking, LockOptions};

struct NoClient;

fn main() {
    let guard = NoClient.acquire_advisory_lock("report", LockOptions::no_wait());
    drop(guard);
}
