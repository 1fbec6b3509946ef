//! Prelude: the traits with the lock methods, and the types that most calls need.
//!
//! # Examples
//!
//! ```
//! # #[cfg(feature = "rusqlite")] {
//! use advisory_locking::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut conn = rusqlite::Connection::open_in_memory()?;
//! let guard = conn.acquire_advisory_lock("prelude", LockOptions::no_wait())?;
//! guard.release()?;
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```

#[cfg(feature = "sea-orm")]
pub use crate::AsyncTransactionAdvisoryLocking;
pub use crate::{
    AdvisoryLocking, LockError, LockErrorKind, LockKey, LockMode, LockOptions, OnMissingLock,
    PooledAdvisoryLocking, WaitStrategy,
};
#[cfg(feature = "_async")]
pub use crate::{AsyncAdvisoryLocking, AsyncPooledAdvisoryLocking};
