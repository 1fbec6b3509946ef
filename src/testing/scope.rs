//! Which threads and tasks belong to a test.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, MutexGuard};

use super::TestLocks;
use super::world::World;

thread_local! {
    /// The tests that this thread belongs to, the innermost last.
    static HERE: RefCell<Vec<Arc<World>>> = const { RefCell::new(Vec::new()) };
}

/// The innermost test that this thread belongs to. None while the thread ends.
pub(super) fn world() -> Option<Arc<World>> {
    HERE.try_with(|here| here.borrow().last().cloned())
        .ok()
        .flatten()
}

pub(super) fn enter(world: &Arc<World>) {
    HERE.with(|here| here.borrow_mut().push(Arc::clone(world)));
}

/// Leaves the innermost scope of this test, in whatever order scopes are left.
fn leave(world: &Arc<World>) {
    // Nothing is left to leave on a thread that ends.
    let _ = HERE.try_with(|here| {
        let mut here = here.borrow_mut();
        if let Some(index) = here.iter().rposition(|entered| Arc::ptr_eq(entered, world)) {
            here.remove(index);
        }
    });
}

/// This thread belongs to a test until this is dropped. Dereferences to the test's [`TestLocks`].
#[must_use = "the thread leaves the test when this is dropped"]
pub struct TestScope {
    locks: TestLocks,
    /// As a `MutexGuard`, it can be lent to other threads but is dropped on its own.
    on_this_thread: PhantomData<MutexGuard<'static, ()>>,
}

impl TestScope {
    pub(super) fn new(locks: TestLocks) -> Self {
        enter(&locks.world);
        Self {
            locks,
            on_this_thread: PhantomData,
        }
    }
}

impl Deref for TestScope {
    type Target = TestLocks;

    fn deref(&self) -> &TestLocks {
        &self.locks
    }
}

impl Drop for TestScope {
    fn drop(&mut self) {
        leave(&self.locks.world);
    }
}

impl fmt::Debug for TestScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("TestScope")
            .field(&self.locks)
            .finish()
    }
}
