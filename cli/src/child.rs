//! The command that runs under the lock.

mod descendants;
mod program;
mod signals;
mod supervise;

pub(crate) use program::Program;
pub(crate) use signals::Signals;
pub(crate) use supervise::{End, Supervision, supervise};
