//! One locker for a whole process: many tasks or threads, many keys, few connections.
//!
//! [`Locker`] is for blocking programs, over an r2d2 pool; [`AsyncLocker`] for async ones, over the pools of diesel-async and SeaORM's
//! `DatabaseConnection`. Their pages say what they do.

#[cfg(feature = "async-locker")]
mod asynchronous;
mod blocking;
mod client;
mod core;
#[cfg(feature = "async-locker")]
mod entered;
mod hub;
mod loss;
mod options;
mod serve;
mod station;
mod threads;

#[cfg(feature = "async-locker")]
#[cfg_attr(docsrs, doc(cfg(feature = "async-locker")))]
pub use self::asynchronous::{AsyncLocker, AsyncLockerGuard, AsyncLockerGuards};
pub use self::blocking::{Locker, LockerGuard, LockerGuards};
pub use self::options::{LockerOptions, WithoutLocks};
pub use crate::session::TokenSource;
