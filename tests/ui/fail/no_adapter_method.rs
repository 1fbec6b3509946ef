//! A type without an adapter, or without its feature, as a method receiver.

use advisory_locking::{AdvisoryLocking, LockOptions};

struct NoClient;

fn main() {
    let guard = NoClient.acquire_advisory_lock("report", LockOptions::no_wait());
    drop(guard);
}
