//! Two sessions that wait for each other on the server. It ends the one that looks first.

use std::thread;

use advisory_locking::{AdvisoryLocking, LockErrorKind, LockKey, LockOptions};
use diesel::connection::{AnsiTransactionManager, TransactionManager};

use super::support::{
    block, connect, fresh_key, held, kind_of, number, pid_of, run, until_it_waits,
};

/// Runs `ask`, which holds `first` and is to wait for `second` until it is the victim, and then to give `first` back: another
/// session holds `second` and waits for `first`, which it is to be granted in the end.
pub(crate) fn in_a_deadlock(first: &LockKey, second: &LockKey, ask: impl FnOnce()) {
    let mut other = connect();
    // Only a session that waits as long as this looks for a deadlock. It is the victim then, so the other one never is.
    run(&mut other, "SET deadlock_timeout = '1h'");
    let pid = pid_of(&mut other);
    let mut other = other.acquire_advisory_lock(second, block()).unwrap();
    let mut observer = connect();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || other.acquire_advisory_lock(first, block()).map(drop));
        until_it_waits(&mut observer, pid);
        ask();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn the_victim_keeps_its_first_lock() {
    let (first, second) = (fresh_key(), fresh_key());
    let (mut conn, mut observer) = (connect(), connect());
    run(&mut conn, "SET deadlock_timeout = '20ms'");
    let pid = pid_of(&mut conn);
    let mut guard = conn.acquire_advisory_lock(&first, block()).unwrap();
    in_a_deadlock(&first, &second, || {
        let ended = guard.acquire_advisory_lock(&second, block()).map(drop);
        assert_eq!(kind_of(ended), Some(LockErrorKind::Deadlock));
        assert_eq!(held(&mut observer, &first, pid), "ExclusiveLock");
        assert_eq!(held(&mut observer, &second, pid), "");
        guard.release().unwrap();
    });
}

#[test]
fn at_transaction_level_the_transaction_goes_on() {
    let (first, second) = (fresh_key(), fresh_key());
    let (mut conn, mut observer) = (connect(), connect());
    let pid = pid_of(&mut conn);
    run(
        &mut conn,
        "SET deadlock_timeout = '20ms'; CREATE TEMP TABLE kept (number int)",
    );
    AnsiTransactionManager::begin_transaction(&mut conn).unwrap();
    run(&mut conn, "INSERT INTO kept VALUES (1)");
    conn.acquire_advisory_xact_lock(&first, LockOptions::no_wait())
        .unwrap();
    // Not `conn.transaction`: the other session is granted its lock only when the transaction is over.
    in_a_deadlock(&first, &second, || {
        let ended = conn.acquire_advisory_xact_lock(&second, block());
        assert_eq!(kind_of(ended), Some(LockErrorKind::Deadlock));
        assert_eq!(held(&mut observer, &first, pid), "ExclusiveLock");
        assert_eq!(held(&mut observer, &second, pid), "");
        AnsiTransactionManager::commit_transaction(&mut conn).unwrap();
    });
    assert_eq!(number(&mut conn, "SELECT count(*) FROM kept"), 1);
}
