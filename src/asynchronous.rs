//! The async twins of the traits, the guard and the ports.
//!
//! Only what differs stands here: the same machines are driven, and a future that is dropped half-way leaves nothing behind.

mod body;
mod driver;
mod guard;
mod locking;
mod pool;
mod session;

pub use body::AsyncBody;
#[cfg(feature = "locker")]
pub(crate) use driver::{drive, situation};
pub use guard::AsyncAdvisoryLockGuard;
pub use locking::AsyncAdvisoryLocking;
pub use pool::{AsyncLockPool, AsyncPooledAdvisoryLocking};
pub use session::AsyncLockSession;
