//! A pool's connection that may be dropped anywhere.

use std::fmt;
use std::ops::{Deref, DerefMut};

use scopeguard::ScopeGuard;
use tokio::runtime::Handle;

/// A connection that was checked out of a pool which needs a runtime to take it back.
///
/// bb8 and mobc start tasks when a connection comes back, and panic where there is no runtime to start them in: on a thread of one's
/// own, or after `block_on`. So this one goes back in the runtime it was checked out in, wherever it is dropped. If that runtime
/// is gone, the connection is closed.
#[must_use = "it goes back to its pool when it is dropped"]
pub struct CheckedOut<C>(ScopeGuard<Parts<C>, fn(Parts<C>)>);

struct Parts<C> {
    conn: C,
    runtime: Option<Handle>,
    give_back: fn(C),
}

impl<C> CheckedOut<C> {
    /// To be called where the connection was checked out. `give_back` is run in the runtime found there, if there is one.
    pub(crate) fn new(conn: C, give_back: fn(C)) -> Self {
        let parts = Parts {
            conn,
            runtime: Handle::try_current().ok(),
            give_back,
        };
        Self(scopeguard::guard(parts, Parts::give_back))
    }
}

impl<C> Parts<C> {
    fn give_back(self) {
        let _entered = self.runtime.as_ref().map(Handle::enter);
        (self.give_back)(self.conn);
    }
}

impl<C: DerefMut> Deref for CheckedOut<C> {
    type Target = C::Target;

    fn deref(&self) -> &Self::Target {
        &self.0.conn
    }
}

impl<C: DerefMut> DerefMut for CheckedOut<C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0.conn
    }
}

impl<C> fmt::Debug for CheckedOut<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CheckedOut").finish_non_exhaustive()
    }
}
