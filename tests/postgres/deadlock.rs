//! Deadlocks of two sessions. The session whose `deadlock_timeout` passes first is the victim.

use std::thread;

use advisory_locking::{AdvisoryLocking, LockErrorKind, LockKey, LockOptions};
use diesel::connection::{AnsiTransactionManager, TransactionManager};
use testkit::observer::Observe;
use testkit::server::{block, connect, fresh_key, kind_of};

/// Runs `victim` in a deadlock: it holds `first`, waits for `second`, fails, and releases `first`.
/// Another session holds `second`, waits for `first`, and is granted it in the end.
pub(crate) fn in_a_deadlock(first: &LockKey, second: &LockKey, victim: impl FnOnce()) {
    let mut other = connect();
    // A session checks for deadlocks after this time, and becomes the victim. So this one never is.
    other.run("SET deadlock_timeout = '1h'");
    let pid = other.pid();
    let mut other = other.acquire_advisory_lock(second, block()).unwrap();
    let mut observer = connect();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || other.acquire_advisory_lock(first, block()).map(drop));
        observer.wait_until_waiting(pid);
        victim();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn the_victim_keeps_its_first_lock() {
    let (first, second) = (fresh_key(), fresh_key());
    let (mut conn, mut observer) = (connect(), connect());
    conn.run("SET deadlock_timeout = '20ms'");
    let pid = conn.pid();
    let mut guard = conn.acquire_advisory_lock(&first, block()).unwrap();
    in_a_deadlock(&first, &second, || {
        let ended = guard.acquire_advisory_lock(&second, block()).map(drop);
        assert_eq!(kind_of(ended), Some(LockErrorKind::Deadlock));
        assert_eq!(observer.held_modes(&first, pid), "ExclusiveLock");
        assert_eq!(observer.held_modes(&second, pid), "");
        guard.release().unwrap();
    });
}

#[test]
fn at_transaction_level_the_transaction_goes_on() {
    let (first, second) = (fresh_key(), fresh_key());
    let (mut conn, mut observer) = (connect(), connect());
    let pid = conn.pid();
    conn.run("SET deadlock_timeout = '20ms'; CREATE TEMP TABLE kept (number int)");
    AnsiTransactionManager::begin_transaction(&mut conn).unwrap();
    conn.run("INSERT INTO kept VALUES (1)");
    conn.acquire_advisory_xact_lock(&first, LockOptions::no_wait())
        .unwrap();
    // `conn.transaction` would end after the closure, and the other session waits for that end.
    in_a_deadlock(&first, &second, || {
        let ended = conn.acquire_advisory_xact_lock(&second, block());
        assert_eq!(kind_of(ended), Some(LockErrorKind::Deadlock));
        assert_eq!(observer.held_modes(&first, pid), "ExclusiveLock");
        assert_eq!(observer.held_modes(&second, pid), "");
        AnsiTransactionManager::commit_transaction(&mut conn).unwrap();
    });
    assert_eq!(conn.number("SELECT count(*) FROM kept"), 1);
}
