//! Dropping what belongs to a runtime.

use tokio::runtime::Handle;

/// Something of sqlx's, dropped in the runtime where it was made: sqlx spawns a task in a drop, and panics where it cannot.
#[derive(Debug)]
pub(super) struct AtHome<T> {
    value: Option<T>,
    runtime: Option<Handle>,
}

impl<T> AtHome<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            value: Some(value),
            runtime: Handle::try_current().ok(),
        }
    }

    /// `None` only while it is dropped.
    pub(super) const fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// For what consumes it.
    pub(super) fn take(mut self) -> Option<T> {
        self.value.take()
    }
}

impl<T> Drop for AtHome<T> {
    fn drop(&mut self) {
        let _entered = self.runtime.as_ref().map(Handle::enter);
        self.value = None;
    }
}
