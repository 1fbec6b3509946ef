//! A pool's connection that may be dropped anywhere.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::runtime_bound::RuntimeBound;

/// A connection that was checked out of a pool which needs a runtime to take it back.
///
/// bb8 and mobc start tasks when a connection comes back, and panic where there is no runtime to start them in. So this one goes back in the runtime it was checked out in, wherever it is dropped. If that runtime
/// is gone, the connection is closed.
#[must_use = "it goes back to its pool when it is dropped"]
pub struct CheckedOut<C>(RuntimeBound<C>);

impl<C> CheckedOut<C> {
    /// To be called where the connection was checked out. `give_back` is run in the runtime found there, if there is one.
    pub(crate) fn new(conn: C, give_back: fn(C)) -> Self {
        Self(RuntimeBound::new(conn, give_back))
    }
}

impl<C: DerefMut> Deref for CheckedOut<C> {
    type Target = C::Target;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<C: DerefMut> DerefMut for CheckedOut<C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<C> fmt::Debug for CheckedOut<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CheckedOut").finish_non_exhaustive()
    }
}
