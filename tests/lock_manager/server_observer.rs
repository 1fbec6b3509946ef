//! An observer of `pg_locks`, and a competitor that acquires locks with plain SQL. Neither uses the
//! crate.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use advisory_locking::{LockKey, LockMode, RawLockKey};
use diesel::Connection;
use diesel::pg::PgConnection;

use crate::support::{eventually, number, pid_of, run, text, url};

/// The time in which a dropped call or lock manager must be cleaned up.
///
/// The crate promises a second; a loaded machine gets more. A lock that is not cleaned up stays for
/// good, because no wait of these tests has a limit.
pub(crate) const CLEANUP_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct ServerObserver(pub(crate) PgConnection);

impl ServerObserver {
    pub(crate) fn at(url: &str) -> Self {
        Self(PgConnection::establish(url).unwrap())
    }

    fn pids(&mut self, key: &LockKey, condition: &str) -> Vec<i64> {
        let (classid, objid, objsubid) = key.raw().pg_locks_columns();
        let pids = text(
            &mut self.0,
            &format!(
                "SELECT COALESCE(string_agg(pid::text, ' ' ORDER BY pid), '') FROM pg_locks \
                 WHERE locktype = 'advisory' AND classid = {classid} AND objid = {objid} AND objsubid = {objsubid} \
                 AND {condition}"
            ),
        );
        pids.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    /// Returns the sessions that hold the key, one for each grant.
    pub(crate) fn holders(&mut self, key: &LockKey) -> Vec<i64> {
        self.pids(key, "granted")
    }

    /// Returns the sessions that wait for the key on the server.
    pub(crate) fn waiters(&mut self, key: &LockKey) -> Vec<i64> {
        self.pids(key, "NOT granted")
    }

    /// Returns true if no session holds the key or waits for it.
    pub(crate) fn is_free(&mut self, key: &LockKey) -> bool {
        self.pids(key, "true").is_empty()
    }

    #[track_caller]
    pub(crate) fn holder(&mut self, key: &LockKey) -> i64 {
        match self.holders(key)[..] {
            [pid] => pid,
            ref pids => panic!("{key} is held by {pids:?}"),
        }
    }

    pub(crate) fn wait_for_waiters(&mut self, key: &LockKey, count: usize) {
        eventually("waiters on the server", || self.waiters(key).len() == count);
    }

    pub(crate) fn wait_until_free(&mut self, key: &LockKey) {
        eventually("a free key", || self.is_free(key));
    }

    pub(crate) fn assert_soon_free(&mut self, key: &LockKey, after: &str) {
        let began = Instant::now();
        while !self.is_free(key) {
            assert!(
                began.elapsed() < CLEANUP_DEADLINE,
                "{key} is not free after {after}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the number of advisory locks that the sessions hold or wait for.
    pub(crate) fn locks_of(&mut self, pids: &[i64]) -> i64 {
        let pids: Vec<_> = pids.iter().map(i64::to_string).collect();
        let pids = pids.join(", ");
        number(
            &mut self.0,
            &format!(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid IN ({pids})"
            ),
        )
    }

    pub(crate) fn terminate(&mut self, pid: i64) {
        crate::support::terminate(&mut self.0, pid);
    }

    #[track_caller]
    pub(crate) fn terminate_holder(&mut self, key: &LockKey) {
        let holder = self.holder(key);
        self.terminate(holder);
    }
}

/// A session that uses plain SQL.
pub(crate) struct CompetingSession {
    conn: PgConnection,
    pub(crate) pid: i64,
}

/// A competitor that waits in the server's queue.
pub(crate) struct QueuedSession(JoinHandle<CompetingSession>);

fn call(function: &str, key: &LockKey, mode: LockMode) -> String {
    let suffix = match mode {
        LockMode::Exclusive => "",
        LockMode::Shared => "_shared",
    };
    let key = match key.raw() {
        RawLockKey::Single(number) => number.to_string(),
        RawLockKey::Pair(one, other) => format!("{one}, {other}"),
    };
    format!("{function}{suffix}({key})")
}

impl CompetingSession {
    pub(crate) fn new() -> Self {
        Self::at(&url())
    }

    pub(crate) fn at(url: &str) -> Self {
        let mut conn = PgConnection::establish(url).unwrap();
        let pid = pid_of(&mut conn);
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
        number(&mut self.conn, &format!("{took}::int")) == 1
    }

    /// Releases a lock in exclusive mode.
    pub(crate) fn unlock(&mut self, key: &LockKey) {
        self.unlock_in(key, LockMode::Exclusive);
    }

    pub(crate) fn unlock_in(&mut self, key: &LockKey, mode: LockMode) {
        let gave = call("pg_advisory_unlock", key, mode);
        assert_eq!(number(&mut self.conn, &format!("{gave}::int")), 1);
    }

    /// Joins the server's queue. `on_granted` is called as soon as the lock is granted.
    pub(crate) fn queue(
        mut self,
        observer: &mut ServerObserver,
        key: &LockKey,
        on_granted: impl FnOnce() + Send + 'static,
    ) -> QueuedSession {
        let (pid, lock) = (self.pid, call("pg_advisory_lock", key, LockMode::Exclusive));
        let thread = thread::spawn(move || {
            run(&mut self.conn, &format!("SELECT {lock}"));
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
