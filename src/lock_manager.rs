//! A lock manager for a whole process: locks of many callers and many keys over few sessions.
//!
//! [`LockManager`] serves async and blocking callers, over async pools (diesel-async,
//! tokio-postgres, sqlx, SeaORM) and blocking ones (r2d2). Its page describes the contract.

mod blocking_adapter;
mod core;
mod guard;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod instruments;
mod lock_handle;
mod loss_signal;
mod manager;
mod options;
mod release;
mod request;
mod session_loop;
mod session_task;
mod shared;
#[cfg(feature = "testing")]
mod simulated;
mod snapshot;

pub use self::guard::{OwnedLockGuard, OwnedLockGuards};
pub use self::manager::LockManager;
pub use self::options::{LockManagerOptions, NoLockBackend};
pub use self::snapshot::{KeySnapshot, LockManagerSnapshot, ManagedSession, ManagedSessionState};
pub use crate::session::TokenSource;
