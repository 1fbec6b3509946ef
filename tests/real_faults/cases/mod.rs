//! The cases, each written once for all adapters.

pub(crate) mod environments;
pub(crate) mod limits;
pub(crate) mod network;
pub(crate) mod processes;
pub(crate) mod server;
pub(crate) mod sessions;
pub(crate) mod transactions;

use std::time::Duration;

use advisory_locking::{LockKey, LockOptions, WaitStrategy};

use crate::actor::{Actor, Outcome};
use crate::fixture::Fixture;

/// Limit of a wait that ends with a grant.
pub(crate) const LONG: Duration = Duration::from_secs(15);

pub(crate) const fn no_wait() -> LockOptions {
    LockOptions::no_wait()
}

/// Options that wait on the server.
pub(crate) const fn block(limit: Duration) -> LockOptions {
    LockOptions::wait_up_to(limit).strategy(WaitStrategy::Block)
}

/// Options that poll with a short interval.
pub(crate) const fn poll(limit: Duration) -> LockOptions {
    LockOptions::wait_up_to(limit).interval(Duration::from_millis(5))
}

/// Starts a blocking acquire, and returns when the key has this many waiters.
#[track_caller]
pub(crate) fn queue(
    fixture: &Fixture,
    actor: &Actor,
    key: &LockKey,
    limit: Duration,
    waiters: usize,
) {
    actor.start_acquire(key, block(limit));
    fixture.until_queued(key, waiters);
}

#[track_caller]
pub(crate) fn assert_granted_and_released(actor: &Actor, key: &LockKey) {
    assert_eq!(
        actor.acquire(key, no_wait()),
        Outcome::Granted,
        "{key} is free"
    );
    assert_eq!(actor.release(), Outcome::Done);
}
