//! The cases, each written once. None names a pool.

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

/// Often, but a loaded machine must have answered in that time.
pub(crate) const SHORT_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A keep-alive that nothing waits for.
pub(crate) const NO_KEEP_ALIVE: Duration = Duration::from_secs(3600);

pub(crate) const fn no_wait() -> LockOptions {
    LockOptions::no_wait()
}

/// A manager that does not look after its sessions by itself.
pub(crate) const fn without_keep_alive() -> LockManagerOptions {
    LockManagerOptions::new().keep_alive(NO_KEEP_ALIVE)
}

/// A manager that never lets go of a lock that somebody here waits for.
pub(crate) const fn unlimited_hand_off() -> LockManagerOptions {
    without_keep_alive().hand_off_limit(u32::MAX, NO_KEEP_ALIVE)
}

pub(crate) use crate::support::{PATIENCE, block, fresh_key, kind_of, poll};

/// Both ways to wait.
pub(crate) fn poll_and_block() -> [LockOptions; 2] {
    [poll(), block()]
}

/// Waits in this way, as long as this.
pub(crate) const fn within(limit: Duration, strategy: WaitStrategy) -> LockOptions {
    LockOptions::wait_up_to(limit).strategy(strategy)
}
