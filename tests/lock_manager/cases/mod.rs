//! The cases, written once for all pools and callers.

pub(crate) mod all;
pub(crate) mod bodies;
pub(crate) mod closing;
pub(crate) mod exclusion;
pub(crate) mod faults;
pub(crate) mod fencing;
pub(crate) mod limits;
pub(crate) mod loss;
pub(crate) mod queue;
pub(crate) mod waiting;

use std::time::Duration;

use advisory_locking::lock_manager::LockManagerOptions;
use advisory_locking::{LockOptions, WaitStrategy};

use crate::test_manager::TestManager;

/// A short keep-alive, in which a loaded machine still replies.
pub(crate) const SHORT_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A keep-alive that no test waits for.
pub(crate) const NO_KEEP_ALIVE: Duration = Duration::from_secs(3600);

pub(crate) const fn no_wait() -> LockOptions {
    LockOptions::no_wait()
}

/// Options without health checks of idle sessions.
pub(crate) const fn without_keep_alive() -> LockManagerOptions {
    LockManagerOptions::new().keep_alive(NO_KEEP_ALIVE)
}

/// Options that always hand off a lock to a waiter of the process.
pub(crate) const fn unlimited_hand_off() -> LockManagerOptions {
    without_keep_alive().hand_off_limit(u32::MAX, NO_KEEP_ALIVE)
}

/// Opens the session of a lock manager, so that a short limit is not spent on that.
pub(crate) async fn open_session(manager: &TestManager) {
    let guard = manager.acquire(&fresh_key(), no_wait()).await.unwrap();
    guard.release().await.unwrap();
}

pub(crate) use testkit::server::{TIMEOUT, block, fresh_key, kind_of, poll};

/// Returns options for both wait strategies.
pub(crate) fn poll_and_block() -> [LockOptions; 2] {
    [poll(), block()]
}

/// Returns options that wait up to a limit, with a strategy.
pub(crate) const fn within(limit: Duration, strategy: WaitStrategy) -> LockOptions {
    LockOptions::wait_up_to(limit).strategy(strategy)
}
