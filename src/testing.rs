//! For unit tests on SQLite: somebody who has the lock, faults, and a record of what was acquired.
//!
//! On SQLite the body always runs, so a test never sees what the code does when *somebody else has the lock*, when a wait runs out, or
//! when the lock is lost under it. [`TestLocks`] answers instead of the database, for the threads and tasks of one test:
//!
//! ```
//! # #[cfg(feature = "rusqlite")] {
//! use advisory_locking::testing::{Event, TestLocks};
//! use advisory_locking::{AdvisoryLocking, LockOptions};
//!
//! /// Part of a service. In production, on PostgreSQL.
//! fn sync(conn: &mut impl AdvisoryLocking, client_id: i32) -> Result<&'static str, advisory_locking::LockError> {
//!     let synced = conn.try_with_advisory_lock(("sync", client_id), LockOptions::no_wait(), |_| Ok("synced"))?;
//!     Ok(synced.unwrap_or("somebody else is at it"))
//! }
//!
//! // #[test]
//! fn a_second_sync_is_skipped() {
//!     let mut conn = rusqlite::Connection::open_in_memory().unwrap();
//!     let locks = TestLocks::enter();
//!
//!     let elsewhere = locks.hold_from_other_session(("sync", 4));
//!     assert_eq!(sync(&mut conn, 4).unwrap(), "somebody else is at it");
//!     assert_eq!(sync(&mut conn, 5).unwrap(), "synced");
//!     drop(elsewhere);
//!     assert_eq!(sync(&mut conn, 4).unwrap(), "synced");
//!
//!     assert_eq!(locks.events(), [
//!         Event::held_elsewhere(("sync", 4)),
//!         Event::acquired(("sync", 5)), Event::released(("sync", 5)),
//!         Event::acquired(("sync", 4)), Event::released(("sync", 4)),
//!     ]);
//! }
//! # a_second_sync_is_skipped();
//! # }
//! ```
//!
//! The program `examples/testing.rs` is a service with its tests, which run on SQLite, and the same service on PostgreSQL.
//!
//! # What answers
//!
//! Where PostgreSQL would be sent a statement, the test's locks are asked; everything else is what runs in production: the options and
//! transactions that are refused, the pauses and limits of a wait, the clean-up, the errors. A lock that is
//! [held elsewhere](TestLocks::hold_from_other_session) refuses a call that does not wait, lets a call with a limit run into it, and is granted to
//! one that waits when it is free.
//!
//! PostgreSQL is never touched: on a connection to it, the test's locks do nothing and take nothing down. Nor does anything change on
//! SQLite outside a test that has entered. [`OnMissingLock`](crate::OnMissingLock) still decides whether a call may run without a lock.
//!
//! # Threads and tasks
//!
//! Tests that run side by side do not see each other. What belongs to a test is chosen by the thread or the future that runs:
//!
//! | what asks for the lock | how it belongs to the test |
//! |---|---|
//! | the thread of the test, and in it the future of `#[tokio::test]` and all that `tokio::spawn` starts in its one-thread runtime | [`TestLocks::enter`] |
//! | another thread | [`join`](TestLocks::attach) there |
//! | a future that is spawned elsewhere | [`run`](TestLocks::scope) around it |
//! | whatever the threads of a runtime or of a thread pool run | [`attach_thread`](TestLocks::attach_thread), when they start |
//!
//! A lock is released where it was taken, on whatever thread its guard is dropped.
//!
//! # Lockers
//!
//! A locker takes its locks on sessions of its own, and on SQLite on none, so a test's locks do not reach it. It has a way of its own: with
//! `NoLockBackend::InProcess`, a guard that the test takes from a clone keeps the tested code out, for as long as it lives.
//!
//! # In production
//!
//! Turn the feature on under `[dev-dependencies]` alone; then `cargo build` does not have it: a program that names this module does not compile. (With the
//! resolver of Rust's editions before 2021 it has; say `resolver = "2"`.) Should it be on, nothing changes unless something enters.

mod context;
mod event;
mod fault;
mod other_session;
mod shared_table;
pub(crate) mod stand_in;
mod table;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

pub use context::TestScope;
pub use event::{Event, EventKind};
pub use fault::Fault;
pub use other_session::OtherSessionLock;

use crate::key::LockKey;
use crate::options::LockMode;
use shared_table::SharedLockTable;

/// The locks of one test, see [the module](self). Clones are the same locks.
#[derive(Clone)]
pub struct TestLocks {
    table: Arc<SharedLockTable>,
}

impl TestLocks {
    /// New locks, for this thread until the result is dropped. Nobody excludes anybody, as always on SQLite, until the test says so.
    ///
    /// # Examples
    ///
    /// See [the module](self).
    pub fn enter() -> TestScope {
        Self::new().attach()
    }

    /// New locks that exclude: as on PostgreSQL, a session that asks for a key that another one holds waits or is told so.
    ///
    /// For a test of several threads or tasks, each with a connection of its own, that join or run in these locks. They reach no
    /// further: other processes are not kept out, and [`capabilities`](crate::AdvisoryLocking::capabilities) say what they always do.
    /// [`OnMissingLock::Error`](crate::OnMissingLock::Error) is content with them.
    ///
    /// A session is a connection, and may take a lock again that it holds; rusqlite's `Transaction` and `Savepoint` count as
    /// connections of their own. Waits in the queue are granted in order, and a deadlock among them is found at once.
    ///
    /// The end of a transaction that the crate did not begin cannot be seen on SQLite. So
    /// [`acquire_advisory_xact_lock`](crate::AdvisoryLocking::acquire_advisory_xact_lock), and
    /// [`with_advisory_xact_lock`](crate::AdvisoryLocking::with_advisory_xact_lock) inside a transaction, are refused with
    /// [`Unsupported`](crate::LockErrorKind::Unsupported), unless the session holds the lock already. Test those on PostgreSQL, or
    /// without exclusion.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "rusqlite")] {
    /// use std::time::Duration;
    /// use advisory_locking::testing::TestLocks;
    /// use advisory_locking::{AdvisoryLocking, LockError, LockOptions, WaitStrategy};
    ///
    /// let locks = TestLocks::enter_exclusive();
    /// let wait = LockOptions::wait_up_to(Duration::from_secs(10)).strategy(WaitStrategy::Block);
    /// let counter = std::sync::Mutex::new((0, 0)); // now, and at most
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         scope.spawn(|| {
    ///             let _here = locks.attach();
    ///             let mut conn = rusqlite::Connection::open_in_memory().unwrap();
    ///             conn.with_advisory_lock("counter", wait, |_| {
    ///                 assert!(counter.try_lock().is_ok(), "two at once");
    ///                 Ok::<_, LockError>(())
    ///             }).unwrap();
    ///         });
    ///     }
    /// });
    /// # }
    /// ```
    pub fn enter_exclusive() -> TestScope {
        Self::new_exclusive().attach()
    }

    /// New locks that nothing belongs to yet; otherwise as [`enter`](Self::enter).
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Arc::new(SharedLockTable::new(false)),
        }
    }

    /// New locks that nothing belongs to yet; otherwise as [`enter_exclusive`](Self::enter_exclusive).
    #[must_use]
    pub fn new_exclusive() -> Self {
        Self {
            table: Arc::new(SharedLockTable::new(true)),
        }
    }

    /// Makes this thread belong to these locks until the result is dropped.
    ///
    /// Inside other locks, these go first.
    pub fn attach(&self) -> TestScope {
        TestScope::new(self.clone())
    }

    /// Makes this thread belong to these locks until it ends: for the threads of a runtime, so that tasks which the tested code spawns
    /// belong to the test too.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use advisory_locking::testing::TestLocks;
    ///
    /// let locks = TestLocks::new();
    /// let workers = locks.clone();
    /// let runtime = tokio::runtime::Builder::new_multi_thread()
    ///     .on_thread_start(move || workers.attach_thread())
    ///     .build()?;
    /// runtime.block_on(locks.scope(async {
    ///     // ... the test ...
    /// }));
    /// # Ok(())
    /// # }
    /// ```
    pub fn attach_thread(&self) {
        context::push(&self.table);
    }

    /// Makes a future belong to these locks, on whatever thread it is polled.
    ///
    /// Not what it spawns: run that in them as well, or let the threads of its runtime [join](Self::attach_thread).
    ///
    /// # Cancel safety
    ///
    /// As the future's.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let locks = self.clone();
        async move {
            let mut future = pin!(future);
            std::future::poll_fn(move |context| {
                let _here = locks.attach();
                future.as_mut().poll(context)
            })
            .await
        }
    }

    /// Another session holds the lock, exclusively, until the result is dropped. One that already holds it in the test goes on holding.
    pub fn hold_from_other_session(&self, key: impl Into<LockKey>) -> OtherSessionLock {
        OtherSessionLock::new(self, key.into(), LockMode::Exclusive)
    }

    /// Another session shares the lock until the result is dropped: readers get it, writers do not.
    pub fn share_from_other_session(&self, key: impl Into<LockKey>) -> OtherSessionLock {
        OtherSessionLock::new(self, key.into(), LockMode::Shared)
    }

    /// Plans a fault for the next call or holder of this key that it can take_fault. Several are used up in order.
    pub fn inject_fault(&self, key: impl Into<LockKey>, fault: Fault) {
        self.table.schedule_fault(key.into(), fault);
    }

    /// Ends the sessions of the test that hold the lock just now, as [`Fault::Lost`] does. Returns how many locks were lost so.
    ///
    /// What is not seen to end, a transaction-level lock in the caller's own transaction, cannot be lost.
    pub fn terminate_holders(&self, key: impl Into<LockKey>) -> usize {
        self.table.terminate_holders(&key.into())
    }

    /// Whether a session of the test holds the lock and its end will be seen.
    #[must_use]
    pub fn is_held(&self, key: impl Into<LockKey>) -> bool {
        self.table.is_held(&key.into())
    }

    /// How often a session of the test found the lock busy: once per call that does not wait or waits in the queue, and once per try
    /// of one that polls. A test that waits for it to grow knows that somebody waits.
    #[must_use]
    pub fn contention_count(&self, key: impl Into<LockKey>) -> usize {
        self.table.contention_count(&key.into())
    }

    /// What happened so far, in order.
    ///
    /// A transaction-level lock in the caller's own transaction is not seen to be released. A call whose pool gave no connection asked
    /// for nothing.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.table.events()
    }

    /// What happened since this was called last, in order.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.table.take_events()
    }
}

impl Default for TestLocks {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestLocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TestLocks").finish_non_exhaustive()
    }
}
