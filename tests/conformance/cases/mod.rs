//! The cases, each written once for all adapters.

pub(crate) mod exclusion;
pub(crate) mod keys;
pub(crate) mod options;
pub(crate) mod releasing;
pub(crate) mod reports;
pub(crate) mod scope_ends;
pub(crate) mod scopes;
pub(crate) mod transactions;
pub(crate) mod waiting;

use std::time::Duration;

use advisory_locking::{LockKey, LockOptions, WaitStrategy};

use crate::actor::{Actor, Outcome};

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
const fn poll(limit: Duration) -> LockOptions {
    LockOptions::wait_up_to(limit).interval(Duration::from_millis(5))
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
