//! Attachment of threads and tasks to tests.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, MutexGuard};

use super::TestLocks;
use super::shared_table::SharedLockTable;

thread_local! {
    /// Lock tables that this thread is attached to, the innermost last.
    static CURRENT: RefCell<Vec<Arc<SharedLockTable>>> = const { RefCell::new(Vec::new()) };
}

/// Returns the innermost lock table of this thread; `None` while the thread ends.
pub(super) fn current() -> Option<Arc<SharedLockTable>> {
    CURRENT
        // A destructor of another thread-local may release a lock after this one is gone.
        .try_with(|tables| tables.borrow().last().cloned())
        .ok()
        .flatten()
}

/// Returns `true` if this thread is attached to locks of a test.
#[cfg(any(feature = "sea-orm", feature = "lock-manager"))]
pub(crate) fn is_entered() -> bool {
    current().is_some()
}

/// Returns `true` if this thread is attached to locks that exclude.
#[cfg(feature = "lock-manager")]
pub(crate) fn excludes() -> bool {
    current().is_some_and(|table| table.lock().excludes())
}

pub(super) fn push(table: &Arc<SharedLockTable>) {
    CURRENT.with(|tables| tables.borrow_mut().push(Arc::clone(table)));
}

/// Detaches the thread from the innermost scope of this table. Scopes may end in any order.
fn remove(table: &Arc<SharedLockTable>) {
    // A thread that ends has no stack to change.
    let _ = CURRENT.try_with(|tables| {
        let mut tables = tables.borrow_mut();
        if let Some(index) = tables.iter().rposition(|entry| Arc::ptr_eq(entry, table)) {
            tables.remove(index);
        }
    });
}

/// Attachment of this thread to the locks of a test, until it is dropped. Dereferences to
/// [`TestLocks`].
#[must_use = "the thread is detached from the test when this is dropped"]
pub struct TestScope {
    locks: TestLocks,
    /// Like a `MutexGuard`, it is `Sync` but not `Send`.
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
