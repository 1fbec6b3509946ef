//! Which threads and tasks belong to a test.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, MutexGuard};

use super::TestLocks;
use super::shared_table::SharedLockTable;

thread_local! {
    /// The tests that this thread belongs to, the innermost last.
    static CURRENT: RefCell<Vec<Arc<SharedLockTable>>> = const { RefCell::new(Vec::new()) };
}

/// The innermost test that this thread belongs to. None while the thread ends.
pub(super) fn current() -> Option<Arc<SharedLockTable>> {
    CURRENT
        .try_with(|here| here.borrow().last().cloned())
        .ok()
        .flatten()
}

pub(super) fn push(table: &Arc<SharedLockTable>) {
    CURRENT.with(|here| here.borrow_mut().push(Arc::clone(table)));
}

/// Leaves the innermost scope of this test, in whatever order scopes are left.
fn remove(table: &Arc<SharedLockTable>) {
    // Nothing is left to leave on a thread that ends.
    let _ = CURRENT.try_with(|here| {
        let mut here = here.borrow_mut();
        if let Some(index) = here.iter().rposition(|entered| Arc::ptr_eq(entered, table)) {
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
        push(&locks.table);
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
        remove(&self.locks.table);
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
