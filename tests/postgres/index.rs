//! `CREATE INDEX CONCURRENTLY` under a lock that others wait for. It waits for everybody who holds a snapshot.

use std::thread;

use advisory_locking::{AdvisoryLocking, LockOptions};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;

use super::support::{block, eventually, fresh_key, number, pid_of, poll, run, until_it_waits};
use super::throwaway::Database;

const TABLE: &str = "CREATE TABLE drivers (id int); INSERT INTO drivers VALUES (1)";
const INDEX: &str = "CREATE INDEX CONCURRENTLY drivers_id ON drivers (id)";

fn is_indexed(conn: &mut PgConnection) -> bool {
    let valid =
        "SELECT count(*) FROM pg_index WHERE indexrelid = 'drivers_id'::regclass AND indisvalid";
    number(conn, valid) == 1
}

#[test]
fn a_client_that_polls_stands_in_nobodys_way() {
    let database = Database::create();
    let (mut conn, mut waiter) = (database.connect(), database.connect());
    let mut observer = database.connect();
    run(&mut conn, TABLE);
    let key = fresh_key();
    let pid = pid_of(&mut waiter);
    let waiting = conn
        .with_advisory_lock(&key, LockOptions::no_wait(), |conn| {
            let key = key.clone();
            let waiting = thread::spawn(move || {
                waiter.acquire_advisory_lock(&key, poll())?.release()
            });
            let polls = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%pg_try_advisory_lock%'"
            );
            eventually("a try", || number(&mut observer, &polls) == 1);
            conn.batch_execute(INDEX)?;
            diesel::QueryResult::Ok(waiting)
        })
        .unwrap();
    waiting.join().unwrap().unwrap();
    assert!(is_indexed(&mut observer));
}

/// Why polling is the default: a client that waits on the server holds a snapshot while it does.
#[test]
fn a_client_that_waits_on_the_server_is_a_deadlock() {
    let database = Database::create();
    let (mut conn, mut waiter) = (database.connect(), database.connect());
    let mut observer = database.connect();
    run(&mut conn, TABLE);
    // Only the session that waits last can find the deadlock when it looks, once.
    run(&mut conn, "SET deadlock_timeout = '50ms'");
    run(&mut waiter, "SET deadlock_timeout = '1h'");
    let key = fresh_key();
    let pid = pid_of(&mut waiter);
    let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.acquire_advisory_lock(&key, block()).map(drop));
        until_it_waits(&mut observer, pid);
        guard.batch_execute(INDEX).unwrap_err();
        guard.release().unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert!(!is_indexed(&mut observer));
}
