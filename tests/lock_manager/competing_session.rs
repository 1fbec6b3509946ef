//! A competing session that acquires locks with plain SQL.

use std::thread::{self, JoinHandle};

use advisory_locking::{LockKey, LockMode};
use diesel::pg::PgConnection;
use testkit::observer::{Observe, lock_call};
use testkit::server::{connect_to, eventually};

/// A session that uses plain SQL.
pub(crate) struct CompetingSession {
    conn: PgConnection,
    pub(crate) pid: i64,
}

/// A competitor that waits in the server's queue.
pub(crate) struct QueuedSession(JoinHandle<CompetingSession>);

fn call(function: &str, key: &LockKey, mode: LockMode) -> String {
    lock_call(function, key.raw(), mode)
}

impl CompetingSession {
    pub(crate) fn new() -> Self {
        Self::at(&testkit::server::url())
    }

    pub(crate) fn at(url: &str) -> Self {
        let mut conn = connect_to(url);
        let pid = conn.pid();
        Self { conn, pid }
    }

    pub(crate) fn holding(key: &LockKey) -> Self {
        let mut competitor = Self::new();
        assert!(competitor.try_lock(key, LockMode::Exclusive));
        competitor
    }

    /// Returns true if the lock was acquired.
    pub(crate) fn try_lock(&mut self, key: &LockKey, mode: LockMode) -> bool {
        let took = call("pg_try_advisory_lock", key, mode);
        self.conn.number(&format!("{took}::int")) == 1
    }

    /// Releases a lock in exclusive mode.
    pub(crate) fn unlock(&mut self, key: &LockKey) {
        self.unlock_in(key, LockMode::Exclusive);
    }

    pub(crate) fn unlock_in(&mut self, key: &LockKey, mode: LockMode) {
        let gave = call("pg_advisory_unlock", key, mode);
        assert_eq!(self.conn.number(&format!("{gave}::int")), 1);
    }

    /// Joins the server's queue. `on_granted` is called as soon as the lock is granted.
    pub(crate) fn queue(
        mut self,
        observer: &mut PgConnection,
        key: &LockKey,
        on_granted: impl FnOnce() + Send + 'static,
    ) -> QueuedSession {
        let (pid, lock) = (self.pid, call("pg_advisory_lock", key, LockMode::Exclusive));
        let thread = thread::spawn(move || {
            self.conn.run(&format!("SELECT {lock}"));
            on_granted();
            self
        });
        eventually("a competitor in the queue", || {
            observer.waiters(key).contains(&pid)
        });
        QueuedSession(thread)
    }
}

impl QueuedSession {
    /// Waits until the lock is granted.
    pub(crate) fn granted(self) -> CompetingSession {
        self.0.join().unwrap()
    }
}
