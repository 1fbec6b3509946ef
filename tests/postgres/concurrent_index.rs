//! [`CREATE INDEX CONCURRENTLY`](https://www.postgresql.org/docs/current/sql-createindex.html)
//! under a lock with waiters. It waits for every session that holds an older snapshot.

use std::thread;

use advisory_locking::{AdvisoryLocking, LockOptions};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::server::{block, eventually, fresh_key, poll};
use testkit::temp::TempDatabase;

const TABLE: &str = "CREATE TABLE drivers (id int); INSERT INTO drivers VALUES (1)";
const INDEX: &str = "CREATE INDEX CONCURRENTLY drivers_id ON drivers (id)";

fn is_indexed(conn: &mut PgConnection) -> bool {
    let valid =
        "SELECT count(*) FROM pg_index WHERE indexrelid = 'drivers_id'::regclass AND indisvalid";
    conn.number(valid) == 1
}

#[test]
fn a_polling_waiter_does_not_block_the_index() {
    let database = TempDatabase::create();
    let (mut conn, mut waiter) = (database.connect(), database.connect());
    let mut observer = database.connect();
    conn.run(TABLE);
    let key = fresh_key();
    let pid = waiter.pid();
    let waiting = conn
        .with_advisory_lock(&key, LockOptions::no_wait(), |conn| {
            let key = key.clone();
            let waiting = thread::spawn(move || {
                waiter.acquire_advisory_lock(&key, poll())?.release()
            });
            let polls = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%pg_try_advisory_lock%'"
            );
            eventually("a try", || observer.number(&polls) == 1);
            conn.batch_execute(INDEX)?;
            diesel::QueryResult::Ok(waiting)
        })
        .unwrap();
    waiting.join().unwrap().unwrap();
    assert!(is_indexed(&mut observer));
}

/// A client that waits on the server holds a snapshot, which is why polling is the default.
#[test]
fn a_blocking_waiter_deadlocks_with_the_index() {
    let database = TempDatabase::create();
    let (mut conn, mut waiter) = (database.connect(), database.connect());
    let mut observer = database.connect();
    conn.run(TABLE);
    // The session that waits last finds the deadlock, because each session checks only once.
    conn.run("SET deadlock_timeout = '50ms'");
    waiter.run("SET deadlock_timeout = '1h'");
    let key = fresh_key();
    let pid = waiter.pid();
    let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.acquire_advisory_lock(&key, block()).map(drop));
        observer.wait_until_waiting(pid);
        guard.batch_execute(INDEX).unwrap_err();
        guard.release().unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert!(!is_indexed(&mut observer));
}
