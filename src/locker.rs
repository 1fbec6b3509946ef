//! One locker for a whole process: many tasks, many keys, few sessions.

mod core;
mod options;

pub use crate::session::TokenSource;
pub use options::{LockerOptions, WithoutLocks};
