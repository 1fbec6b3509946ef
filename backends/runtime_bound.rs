//! Dropping what belongs to a runtime.

use std::fmt;
use std::ops::{Deref, DerefMut};

use scopeguard::ScopeGuard;
use tokio::runtime::Handle;

/// A value that leaves in the runtime where it came from, wherever it is dropped.
///
/// Pools start tasks when a connection comes back, and panic where there is no runtime to start them in: on a thread of one's own, or
/// after `block_on`.
pub(crate) struct RuntimeBound<T>(ScopeGuard<Parts<T>, fn(Parts<T>)>);

struct Parts<T> {
    value: T,
    runtime: Option<Handle>,
    leave: fn(T),
}

impl<T> RuntimeBound<T> {
    /// To be called where the value came from. `leave` is run in the runtime found there, if there is one.
    pub(crate) fn new(value: T, leave: fn(T)) -> Self {
        let parts = Parts {
            value,
            runtime: Handle::try_current().ok(),
            leave,
        };
        Self(scopeguard::guard(parts, Parts::leave))
    }

    /// The value, for what consumes it.
    #[cfg(feature = "sea-orm")]
    pub(crate) fn into_inner(self) -> T {
        ScopeGuard::into_inner(self.0).value
    }
}

impl<T> Parts<T> {
    fn leave(self) {
        let _entered = self.runtime.as_ref().map(Handle::enter);
        (self.leave)(self.value);
    }
}

impl<T> Deref for RuntimeBound<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> DerefMut for RuntimeBound<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}

impl<T> fmt::Debug for RuntimeBound<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RuntimeBound")
            .finish_non_exhaustive()
    }
}
