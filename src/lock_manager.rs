//! One locker for a whole process: many tasks or threads, many keys, few connections.
//!
//! [`BlockingLockManager`] is for blocking programs, over an r2d2 pool; [`LockManager`] for async ones, over the pools of diesel-async and SeaORM's
//! `DatabaseConnection`. Their pages say what they do.

#[cfg(feature = "async-lock-manager")]
mod asynchronous;
mod blocking;
mod client;
mod core;
mod hub;
mod loss_signal;
mod options;
mod serve;
mod station;
mod threads;

#[cfg(feature = "async-lock-manager")]
pub use self::asynchronous::{LockManager, OwnedLockGuard, OwnedLockGuards};
pub use self::blocking::{BlockingLockManager, BlockingOwnedLockGuard, BlockingOwnedLockGuards};
pub use self::options::{LockManagerOptions, NoLockBackend};
pub use crate::session::TokenSource;
