//! Unit-test kit for SQLite: simulated contention, injected faults, and a record of lock events.
//!
//! On SQLite every request is granted. So a test on SQLite never exercises a contended lock, a wait
//! that reaches its limit, or a lost lock. [`TestLocks`] simulates the locks for the threads and
//! tasks of one test:
//!
//! ```
//! # #[cfg(feature = "rusqlite")] {
//! use advisory_locking::testing::{Event, TestLocks};
//! use advisory_locking::{AdvisoryLocking, LockError, LockOptions};
//!
//! /// Part of a service, which uses PostgreSQL in production.
//! fn sync(conn: &mut impl AdvisoryLocking, client_id: i32) -> Result<&'static str, LockError> {
//!     let key = ("sync", client_id);
//!     let synced = conn.try_with_advisory_lock(key, LockOptions::no_wait(), |_| Ok("synced"))?;
//!     Ok(synced.unwrap_or("skipped"))
//! }
//!
//! // #[test]
//! fn a_second_sync_is_skipped() {
//!     let mut conn = rusqlite::Connection::open_in_memory().unwrap();
//!     let locks = TestLocks::enter();
//!
//!     let other = locks.hold_from_other_session(("sync", 4));
//!     assert_eq!(sync(&mut conn, 4).unwrap(), "skipped");
//!     assert_eq!(sync(&mut conn, 5).unwrap(), "synced");
//!     drop(other);
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
//! The example `examples/testing.rs` is a service with unit tests on SQLite, which runs on
//! PostgreSQL in production.
//!
//! # Simulation
//!
//! A lock table in memory replies to each lock statement that would be sent to PostgreSQL. All
//! other code is that of production: validation, pauses, limits, clean-up and errors. A lock of
//! [another session](TestLocks::hold_from_other_session) has these effects:
//!
//! | call | effect |
//! |---|---|
//! | does not wait | the lock is contended |
//! | waits with a limit | the limit passes, unless the lock is released before |
//! | waits without a limit | the lock is granted when it is released |
//!
//! Connections to PostgreSQL are not affected: nothing is simulated and nothing is recorded. SQLite
//! outside a test scope is not affected either. [`OnMissingLock`](crate::OnMissingLock) still
//! decides whether a call runs without a lock. Reports of holders are empty, as always on SQLite.
//!
//! # Threads and tasks
//!
//! Parallel tests do not see each other. The thread or the future that runs determines the test:
//!
//! | code under test | attached by |
//! |---|---|
//! | the thread of the test, with the future of `#[tokio::test]` and all tasks in its single-threaded runtime | [`TestLocks::enter`] |
//! | another thread | [`attach`](TestLocks::attach) on that thread |
//! | a future that is spawned on another thread | [`scope`](TestLocks::scope) around it |
//! | all work of the threads of a runtime or thread pool | [`attach_thread`](TestLocks::attach_thread) when a thread starts |
//!
//! A lock belongs to the test in which it was acquired, on whatever thread its guard is dropped.
//!
//! # Time
//!
//! A call whose lock stays contended waits until its limit. [`TestLocks::pause_clock`] lets the
//! limit pass without real time, and so does [`Fault::TimedOut`] for one call. Observers and log
//! events have the times of the system's clock.
//!
//! # Differences from PostgreSQL
//!
//! | on PostgreSQL | in a test scope |
//! |---|---|
//! | A failed request for a transaction-level lock [aborts] the transaction of the caller. | The transaction stays usable, and its commit succeeds. |
//! | The statements of a session that has ended fail. | Those of the application succeed. The next request, the release or the commit fails. |
//! | If a body ends its transaction with plain SQL, the call returns [`NotHeld`](crate::LockErrorKind::NotHeld). | So it does with rusqlite. With the other clients it returns [`CommitFailed`](crate::LockErrorKind::CommitFailed). If the body has begun another transaction, the call commits that one. |
//! | The lock of a leaked guard ends with its connection. | It stays held. |
//! | The `snapshot` of a lock manager counts a call that waits for another session as a waiter. | It does not. |
//!
//! [aborts]: https://www.postgresql.org/docs/current/tutorial-transactions.html
//!
//! # Lock managers
//!
//! The calls of a lock manager over a pool of SQLite are simulated as well. `LockManager` has no
//! type parameter, so code that uses tokio-postgres in production is tested with one, too: see [one
//! source, two databases](crate::guide::two_databases). The thread or the future that calls
//! determines the test. A lost lock reaches the guard, and ends the body of `with_lock_while_held`.
//! The hand-off between callers and the sessions of the lock manager are not simulated. With
//! `NoLockBackend::InProcess`, its callers also exclude each other, and wait for each other by the
//! clock of the system.
//!
//! # Mocks
//!
//! With a test scope, SeaORM's `MockDatabase` of PostgreSQL is a backend without locks too. No
//! statement of a lock reaches the mock; transactions do. A lock in a `DatabaseTransaction` that
//! the caller began on the mock is not simulated, because it could be PostgreSQL's.
//!
//! # In production
//!
//! Enable the feature under `[dev-dependencies]` only. Then `cargo build` compiles without it, and
//! production code that names this module does not compile. This needs resolver 2, the default
//! since the edition 2021 (`resolver = "2"` in older editions). If the feature is enabled in
//! production, nothing changes unless the program enters a test scope.

mod clock;
mod context;
mod event;
mod fault;
mod other_session;
mod shared_table;
mod simulated_session;
mod table;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

pub use context::TestScope;
#[cfg(feature = "lock-manager")]
pub(crate) use context::excludes;
#[cfg(any(feature = "sea-orm", feature = "lock-manager"))]
pub(crate) use context::is_entered;
pub use event::{Event, EventKind};
pub use fault::Fault;
pub use other_session::OtherSessionLock;
pub(crate) use simulated_session::{SimulatedSession, checkout_fault, is_lost, set_session};
#[cfg(feature = "_async")]
pub(crate) use simulated_session::{end_session, not_released};
#[cfg(feature = "lock-manager")]
pub(crate) use simulated_session::{on_lost, times_out};

use crate::key::LockKey;
use crate::options::LockMode;
use shared_table::SharedLockTable;

/// Simulated locks of one test, see [the module](self). Clones refer to the same locks.
#[derive(Clone)]
pub struct TestLocks {
    table: Arc<SharedLockTable>,
}

impl TestLocks {
    /// Creates locks and attaches this thread until the result is dropped. Sessions of the test do
    /// not exclude each other, as always on SQLite. Only [other
    /// sessions](Self::hold_from_other_session) do.
    ///
    /// # Examples
    ///
    /// See [the module](self).
    pub fn enter() -> TestScope {
        Self::new().attach()
    }

    /// Creates locks that exclude, as on PostgreSQL, and attaches this thread. A session that
    /// requests a key which another session holds waits or finds it contended.
    ///
    /// Use it to test several threads or tasks, each with its own connection, that are attached to
    /// these locks. Other processes are not excluded, and
    /// [`capabilities`](crate::AdvisoryLocking::capabilities) are those of the backend.
    /// [`OnMissingLock::Error`](crate::OnMissingLock::Error) accepts these locks.
    ///
    /// A session is a connection and may acquire a lock again that it holds. In the other mode, an
    /// attempt beside a waiter finds the lock contended, as before PostgreSQL 17. These count as
    /// connections of their own: a `Transaction` or `Savepoint` of rusqlite, a `PoolConnection` or
    /// `Transaction` of sqlx, and a transaction of SeaORM.
    ///
    /// The wait queue grants locks in order and detects deadlocks at once. It reports also those
    /// that PostgreSQL resolves by [another order of the
    /// queue](https://github.com/postgres/postgres/blob/master/src/backend/storage/lmgr/README).
    ///
    /// On SQLite the crate cannot observe the end of a transaction that it did not begin. So these
    /// calls fail with [`Unsupported`](crate::LockErrorKind::Unsupported), unless the session
    /// already holds the lock:
    /// [`acquire_advisory_xact_lock`](crate::AdvisoryLocking::acquire_advisory_xact_lock), and
    /// [`with_advisory_xact_lock`](crate::AdvisoryLocking::with_advisory_xact_lock) inside a
    /// transaction. Test them on PostgreSQL, or with [`enter`](Self::enter).
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
    /// let counter = std::sync::Mutex::new(());
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         scope.spawn(|| {
    ///             let _scope = locks.attach();
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

    /// Creates locks without attaching a thread. Otherwise as [`enter`](Self::enter).
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Arc::new(SharedLockTable::new(false)),
        }
    }

    /// Creates locks without attaching a thread. Otherwise as
    /// [`enter_exclusive`](Self::enter_exclusive).
    #[must_use]
    pub fn new_exclusive() -> Self {
        Self {
            table: Arc::new(SharedLockTable::new(true)),
        }
    }

    /// Attaches this thread to these locks until the result is dropped.
    ///
    /// If the thread is attached to several locks, the innermost ones apply.
    pub fn attach(&self) -> TestScope {
        TestScope::new(self.clone())
    }

    /// Attaches this thread to these locks until the thread ends. Call it when the threads of a
    /// runtime start, so that tasks which the tested code spawns belong to the test.
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

    /// Attaches a future to these locks, on whatever thread it is polled.
    ///
    /// Tasks that the future spawns are not attached. Wrap them as well, or [attach the
    /// threads](Self::attach_thread) of their runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe if the future is.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let locks = self.clone();
        async move {
            let mut future = pin!(future);
            std::future::poll_fn(move |context| {
                let _scope = locks.attach();
                future.as_mut().poll(context)
            })
            .await
        }
    }

    /// Makes another session hold the lock in exclusive mode until the result is dropped. A session
    /// of the test that already holds the lock keeps it.
    pub fn hold_from_other_session(&self, key: impl Into<LockKey>) -> OtherSessionLock {
        OtherSessionLock::new(self, key.into(), LockMode::Exclusive)
    }

    /// Makes another session hold the lock in shared mode until the result is dropped. Shared
    /// requests are granted, exclusive requests are contended.
    pub fn share_from_other_session(&self, key: impl Into<LockKey>) -> OtherSessionLock {
        OtherSessionLock::new(self, key.into(), LockMode::Shared)
    }

    /// Injects a fault into the next call or holder of this key to which it applies. Several faults
    /// apply in order.
    pub fn inject_fault(&self, key: impl Into<LockKey>, fault: Fault) {
        // First: the conversion may run any code, which may use these locks.
        let key = key.into();
        self.table.lock().schedule_fault(key, fault);
    }

    /// Stops the clock that measures the waits of the test's calls, as tokio's `time::pause` does.
    ///
    /// A call that waits with a limit then advances the clock by each of its pauses, and by at
    /// least a thousandth of its limit. So a call whose lock stays contended reaches its limit
    /// without real time. A call that waits already does so, too: if it polls, after its current
    /// pause. A wait without a limit still waits for a release.
    ///
    /// Other tasks of the thread run before the limit passes, and may release the lock. A shorter
    /// limit of another task passes first. Do not pause the clock if another thread is to release
    /// the lock: the waiter reaches its limit first. The statements of sqlx, SeaORM and
    /// diesel-async run on another thread, so a holder that awaits one may be too late.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "rusqlite")] {
    /// use std::time::{Duration, Instant};
    /// use advisory_locking::testing::{Event, TestLocks};
    /// use advisory_locking::{AdvisoryLocking, LockOptions};
    ///
    /// let locks = TestLocks::enter();
    /// locks.pause_clock();
    /// let _other = locks.hold_from_other_session("report");
    /// let mut conn = rusqlite::Connection::open_in_memory().unwrap();
    /// let began = Instant::now();
    /// let wait = LockOptions::wait_up_to(Duration::from_secs(3600));
    /// assert!(conn.try_acquire_advisory_lock("report", wait).unwrap().is_none());
    /// assert!(began.elapsed() < Duration::from_secs(60));
    /// assert_eq!(locks.events(), [Event::timed_out("report")]);
    /// # }
    /// ```
    pub fn pause_clock(&self) {
        self.table.pause_clock();
    }

    /// Starts the clock again that [`pause_clock`](Self::pause_clock) stopped.
    pub fn resume_clock(&self) {
        self.table.clock.resume();
    }

    /// Terminates the sessions of the test that hold the lock, as [`Fault::Lost`] does, with all
    /// their locks. Returns the number of lost locks.
    ///
    /// Transaction-level locks in transactions that were open before their calls are not included.
    pub fn terminate_holders(&self, key: impl Into<LockKey>) -> usize {
        self.table.terminate_holders(&key.into())
    }

    /// Returns `true` if a session of the test holds the lock.
    ///
    /// A transaction-level lock in a transaction that was open before its call does not count.
    #[must_use]
    pub fn is_held(&self, key: impl Into<LockKey>) -> bool {
        let key = key.into();
        self.table.lock().is_held(&key)
    }

    /// Returns the number of times that a session of the test found the lock contended. A call that
    /// does not wait or waits in the queue counts once; a call that polls counts once for each try.
    /// A test that waits for the number to grow knows that a waiter exists.
    #[must_use]
    pub fn contention_count(&self, key: impl Into<LockKey>) -> usize {
        let key = key.into();
        self.table.lock().contention_count(&key)
    }

    /// Returns the recorded events in order.
    ///
    /// The release of a transaction-level lock in a transaction that was open before its call is
    /// not recorded. A call through a pool records nothing if its options are invalid, or if the
    /// pool returned no connection. Nor does a call that a lock manager itself refuses.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.table.lock().events().to_vec()
    }

    /// Returns and removes the recorded events, in order.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.table.lock().take_events()
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
