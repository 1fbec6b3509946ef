//! An observer of the server: any connection, through the trait [`Observe`].
//!
//! Its statements do not use the library. Names are qualified, because some tests change the
//! `search_path`.

use std::fmt::Display;
use std::thread;
use std::time::Instant;

use advisory_locking::{LockKey, LockMode, RawLockKey};
use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::pg::PgConnection;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::{QueryResult, QueryableByName, RunQueryDsl, sql_query};

use crate::server::{TIMEOUT, connect, eventually, pause};

/// A row of [`pg_locks`](https://www.postgresql.org/docs/current/view-pg-locks.html) for one key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LockEntry {
    pub pid: i64,
    pub mode: LockMode,
    pub granted: bool,
}

#[derive(QueryableByName)]
struct LockRow {
    #[diesel(sql_type = BigInt)]
    pid: i64,
    #[diesel(sql_type = Bool)]
    exclusive: bool,
    #[diesel(sql_type = Bool)]
    granted: bool,
}

/// The rows of `pg_locks` for a key in the current database.
fn rows_of(key: &LockKey) -> String {
    let condition = key.pg_locks().sql_condition();
    format!("FROM pg_catalog.pg_locks WHERE {condition}")
}

/// Returns a call of a lock function with a key, for example
/// `pg_catalog.pg_try_advisory_lock_shared(5)`.
pub fn lock_call(function: &str, key: RawLockKey, mode: LockMode) -> String {
    let suffix = match mode {
        LockMode::Exclusive => "",
        LockMode::Shared => "_shared",
    };
    match key {
        RawLockKey::Single(number) => format!("pg_catalog.{function}{suffix}('{number}'::int8)"),
        RawLockKey::Pair(first, second) => {
            format!("pg_catalog.{function}{suffix}('{first}'::int4, '{second}'::int4)")
        }
    }
}

/// Statements and observations on a plain connection.
#[allow(
    async_fn_in_trait,
    reason = "the tests use it with `PgConnection` only"
)]
pub trait Observe {
    /// Runs statements.
    fn try_run(&mut self, statements: &str) -> QueryResult<()>;

    /// Returns the number that an expression or a query in parentheses has.
    fn number(&mut self, query: &str) -> i64;

    fn text(&mut self, query: &str) -> String;

    /// Returns the holders of a key, then its waiters in the order of the queue.
    fn try_lock_entries(&mut self, key: &LockKey) -> QueryResult<Vec<LockEntry>>;

    #[track_caller]
    fn lock_entries(&mut self, key: &LockKey) -> Vec<LockEntry> {
        self.try_lock_entries(key).unwrap()
    }

    #[track_caller]
    fn run(&mut self, statements: &str) {
        self.try_run(statements).expect(statements);
    }

    fn pid(&mut self) -> i64 {
        self.number("pg_catalog.pg_backend_pid()")
    }

    /// Returns the server's version, for example 150018.
    fn version(&mut self) -> i64 {
        self.number("pg_catalog.current_setting('server_version_num')")
    }

    fn setting(&mut self, name: &str) -> String {
        self.text(&format!("pg_catalog.current_setting('{name}')"))
    }

    /// Returns the sessions that hold a key, one for each mode.
    fn holders(&mut self, key: &LockKey) -> Vec<i64> {
        let entries = self.lock_entries(key).into_iter();
        entries
            .filter(|entry| entry.granted)
            .map(|entry| entry.pid)
            .collect()
    }

    /// Returns the sessions that wait for a key.
    fn waiters(&mut self, key: &LockKey) -> Vec<i64> {
        let entries = self.lock_entries(key).into_iter();
        entries
            .filter(|entry| !entry.granted)
            .map(|entry| entry.pid)
            .collect()
    }

    #[track_caller]
    fn holder(&mut self, key: &LockKey) -> i64 {
        match self.holders(key)[..] {
            [pid] => pid,
            ref pids => panic!("{key} is held by {pids:?}"),
        }
    }

    /// Returns `true` if a key has no holders and no waiters.
    fn is_free(&mut self, key: &LockKey) -> bool {
        self.lock_entries(key).is_empty()
    }

    /// Returns the modes in which a session holds a key, separated by spaces. The server does not
    /// show the number of levels.
    fn held_modes(&mut self, key: &LockKey, pid: impl Display) -> String {
        let modes = format!(
            "SELECT COALESCE(pg_catalog.string_agg(mode, ' ' ORDER BY mode), '') {} \
             AND granted AND pid = {pid}",
            rows_of(key)
        );
        self.text(&modes)
    }

    /// Returns the number of advisory locks that sessions hold or wait for.
    fn lock_count(&mut self, pids: &[i64]) -> i64 {
        let pids: Vec<_> = pids.iter().map(i64::to_string).collect();
        self.number(&format!(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks \
             WHERE locktype = 'advisory' AND pid IN ({})",
            pids.join(", ")
        ))
    }

    /// Returns `true` if a session exists and fulfils a condition on
    /// [`pg_stat_activity`](https://www.postgresql.org/docs/current/monitoring-stats.html).
    fn session_matches(&mut self, pid: impl Display, condition: &str) -> bool {
        self.number(&format!(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity \
             WHERE pid = {pid} AND {condition}"
        )) > 0
    }

    fn is_alive(&mut self, pid: impl Display) -> bool {
        self.session_matches(pid, "true")
    }

    /// Terminates a session, and returns when it has ended.
    #[track_caller]
    fn terminate(&mut self, pid: impl Display) {
        self.run(&format!("SELECT pg_catalog.pg_terminate_backend({pid})"));
        self.wait_until_ended(pid);
    }

    #[track_caller]
    fn terminate_holder(&mut self, key: &LockKey) {
        let holder = self.holder(key);
        self.terminate(holder);
    }

    /// Cancels the statement of a session.
    fn cancel(&mut self, pid: impl Display) {
        self.run(&format!("SELECT pg_catalog.pg_cancel_backend({pid})"));
    }

    #[track_caller]
    fn wait_until_ended(&mut self, pid: impl Display) {
        eventually("the end of a session", || !self.is_alive(&pid));
    }

    /// Blocks until a session waits for a lock.
    #[track_caller]
    fn wait_until_waiting(&mut self, pid: impl Display) {
        let waits = format!(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE pid = {pid} AND NOT granted"
        );
        eventually("a waiting session", || self.number(&waits) > 0);
    }

    /// Blocks until a session runs, or has run, a statement like this pattern.
    #[track_caller]
    fn wait_until_query(&mut self, pid: impl Display, pattern: &str) {
        eventually(pattern, || {
            self.session_matches(&pid, &format!("query LIKE '{pattern}'"))
        });
    }

    #[track_caller]
    fn wait_until_free(&mut self, key: &LockKey) {
        eventually("a free key", || self.is_free(key));
    }

    /// Blocks until a key has no holders and no waiters after an event.
    #[track_caller]
    fn assert_soon_free(&mut self, key: &LockKey, after: &str) {
        eventually(&format!("a free key after {after}"), || self.is_free(key));
    }

    /// Blocks until a key has this many waiters.
    #[track_caller]
    fn wait_until_waiters(&mut self, key: &LockKey, count: usize) {
        eventually("waiters on the server", || self.waiters(key).len() == count);
    }

    /// Waits for a condition on the entries of a key, without blocking the executor.
    async fn wait_for(
        &mut self,
        key: &LockKey,
        condition: impl Fn(&[LockEntry]) -> bool,
        event: &str,
    ) {
        let began = Instant::now();
        loop {
            let entries = self.lock_entries(key);
            if condition(&entries) {
                return;
            }
            assert!(began.elapsed() < TIMEOUT, "{event}: {entries:?}");
            tokio::time::sleep(pause(began)).await;
        }
    }

    /// Waits until a key has no holders and no waiters.
    async fn assert_free(&mut self, key: &LockKey, after: &str) {
        let event = format!("after {after} the key is not free");
        self.wait_for(key, <[LockEntry]>::is_empty, &event).await;
    }
}

impl Observe for PgConnection {
    fn try_run(&mut self, statements: &str) -> QueryResult<()> {
        self.batch_execute(statements)
    }

    fn number(&mut self, query: &str) -> i64 {
        let query = sql::<BigInt>(&format!("({query})::pg_catalog.int8"));
        diesel::select(query).get_result(self).unwrap()
    }

    fn text(&mut self, query: &str) -> String {
        let query = sql::<Text>(&format!("({query})::pg_catalog.text"));
        diesel::select(query).get_result(self).unwrap()
    }

    fn try_lock_entries(&mut self, key: &LockKey) -> QueryResult<Vec<LockEntry>> {
        // As JSON, because PostgreSQL 13 has no `waitstart`.
        let query = format!(
            "SELECT pid::int8, mode = 'ExclusiveLock' AS exclusive, granted {} \
             ORDER BY granted DESC, CASE WHEN granted THEN pid END, \
             pg_catalog.to_jsonb(pg_locks) OPERATOR(pg_catalog.->>) 'waitstart', mode, pid",
            rows_of(key)
        );
        let rows: Vec<LockRow> = sql_query(query).load(self)?;
        let entries = rows.into_iter().map(|row| LockEntry {
            pid: row.pid,
            mode: if row.exclusive {
                LockMode::Exclusive
            } else {
                LockMode::Shared
            },
            granted: row.granted,
        });
        Ok(entries.collect())
    }
}

/// Runs `wait`, which is to wait for a lock, and `meanwhile` when the server shows the waiter.
pub fn while_waiting<T: Send>(
    conn: &mut PgConnection,
    wait: impl FnOnce(&mut PgConnection) -> T + Send,
    meanwhile: impl FnOnce(&mut PgConnection, i64),
) -> T {
    let waiter = conn.pid();
    let mut observer = connect();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(conn));
        let _guard = TerminateOnPanic(waiter);
        observer.wait_until_waiting(waiter);
        meanwhile(&mut observer, waiter);
        waiting.join().unwrap()
    })
}

/// Terminates a session when a test fails, so that the thread that waits on it can be joined.
struct TerminateOnPanic(i64);

impl Drop for TerminateOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            connect().terminate(self.0);
        }
    }
}
