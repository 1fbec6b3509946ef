//! A connection that reads the holders and waiters of a lock from `pg_locks`.

use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::LockKey;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer};

/// Bound for operations that take milliseconds on an idle machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn connect() -> PgConnection {
    let url = std::env::var("DATABASE_URL")
        .expect("no DATABASE_URL: run ./scripts/interop, which starts a server");
    PgConnection::establish(&url).expect("a connection")
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    pid: i32,
    #[diesel(sql_type = Bool)]
    granted: bool,
}

pub(crate) struct Server(PgConnection);

impl Server {
    pub(crate) fn new() -> Self {
        Self(connect())
    }

    fn rows(&mut self, key: &LockKey) -> Vec<Row> {
        let condition = key.pg_locks().sql_condition();
        diesel::sql_query(format!(
            "SELECT pid, granted FROM pg_locks WHERE {condition}"
        ))
        .load(&mut self.0)
        .expect("the rows of pg_locks")
    }

    /// Returns the process ids of the holders.
    pub(crate) fn holders(&mut self, key: &LockKey) -> Vec<i32> {
        let rows = self.rows(key);
        rows.iter()
            .filter(|row| row.granted)
            .map(|row| row.pid)
            .collect()
    }

    /// Blocks until a session waits for the lock.
    pub(crate) fn wait_for_waiter(&mut self, key: &LockKey, shown: &str) {
        let began = Instant::now();
        while self.rows(key).iter().all(|row| row.granted) {
            assert!(
                began.elapsed() < TIMEOUT,
                "{shown}: no session waits for {key}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}
