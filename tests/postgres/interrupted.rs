//! Statements cancelled and sessions terminated while they wait and while they hold.

use advisory_locking::session::Script;
use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockMode, LockOptions};
use diesel::result::Error;
use diesel::{Connection, QueryResult};
use testkit::observer::{Observe, while_waiting};
use testkit::server::{block, connect, eventually, fresh_key, kind_of};

#[test]
fn a_canceled_waiter_goes_on() {
    let key = fresh_key();
    let (mut holder, mut conn) = (connect(), connect());
    let pid = conn.pid();
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let ended = while_waiting(
        &mut conn,
        |conn| conn.acquire_advisory_lock(&key, block()).map(drop),
        |admin, waiter| admin.cancel(waiter),
    );
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Canceled);
    assert!(std::error::Error::source(&error).is_some());
    guard.release().unwrap();
    assert!(holder.is_free(&key));
    assert_eq!(conn.pid(), pid);
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn a_canceled_waiter_keeps_its_transaction() {
    let key = fresh_key();
    let (mut holder, mut conn) = (connect(), connect());
    conn.run("CREATE TEMP TABLE kept (number int)");
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    conn.transaction(|conn| {
        conn.run("INSERT INTO kept VALUES (1)");
        for transaction_level in [true, false] {
            let ended = while_waiting(
                conn,
                |conn| {
                    if transaction_level {
                        conn.acquire_advisory_xact_lock(&key, block())
                    } else {
                        let options = block().allow_in_transaction();
                        conn.acquire_advisory_lock(&key, options).map(drop)
                    }
                },
                |admin, waiter| admin.cancel(waiter),
            );
            assert_eq!(kind_of(ended), Some(LockErrorKind::Canceled));
        }
        QueryResult::Ok(())
    })
    .unwrap();
    guard.release().unwrap();
    assert!(holder.is_free(&key));
    assert_eq!(conn.number("SELECT count(*) FROM kept"), 1);
}

/// The session waits for a lock that it already holds in another mode.
#[test]
fn a_canceled_inner_wait_leaves_the_outer_lock() {
    let key = fresh_key();
    let (mut other, mut conn) = (connect(), connect());
    let pid = conn.pid();
    let shared = LockOptions::no_wait().shared();
    let others = other.acquire_advisory_lock(&key, shared).unwrap();
    let mut outer = conn.acquire_advisory_lock(&key, shared).unwrap();
    let ended = while_waiting(
        &mut outer,
        |conn| conn.acquire_advisory_lock(&key, block()).map(drop),
        |admin, waiter| admin.cancel(waiter),
    );
    assert_eq!(kind_of(ended), Some(LockErrorKind::Canceled));
    others.release().unwrap();
    assert_eq!(other.held_modes(&key, pid), "ShareLock");
    outer.release().unwrap();
    assert!(other.is_free(&key));
}

/// The script that reveals a hidden SQLSTATE tries once more. It runs without an error after a try
/// that was cancelled.
#[test]
fn a_repeated_try_releases_what_it_acquired() {
    let (mut observer, mut conn) = (connect(), connect());
    let pid = conn.pid();
    for mode in [LockMode::Exclusive, LockMode::Shared] {
        let key = fresh_key();
        let script = Script::RevealSqlState {
            key: key.raw(),
            mode,
        };
        conn.run(&script.sql());
        assert_eq!(observer.held_modes(&key, pid), "", "{mode:?}");
    }
}

#[test]
fn a_terminated_waiter_holds_nothing() {
    let key = fresh_key();
    let (mut holder, mut conn) = (connect(), connect());
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let ended = while_waiting(
        &mut conn,
        |conn| conn.acquire_advisory_lock(&key, block()).map(drop),
        |admin, waiter| admin.terminate(waiter),
    );
    assert_eq!(kind_of(ended), Some(LockErrorKind::Database));
    guard.release().unwrap();
    assert!(holder.is_free(&key));
    // The library does not reconnect.
    let again = conn.acquire_advisory_lock(&key, block()).map(drop);
    assert_eq!(kind_of(again), Some(LockErrorKind::Database));
}

#[test]
fn a_lock_lost_with_its_session_is_reported_at_its_release() {
    let key = fresh_key();
    let (mut admin, mut conn) = (connect(), connect());
    let pid = conn.pid();
    let guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    admin.terminate(pid);
    let error = guard.release().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost);
    assert!(error.is_lost() && std::error::Error::source(&error).is_some());
    assert!(admin.is_free(&key));
}

/// The lock stays on the session that acquired it, and the release reports the swap.
#[test]
fn a_connection_swapped_behind_its_guard_is_reported() {
    let key = fresh_key();
    let (mut observer, mut conn, mut other) = (connect(), connect(), connect());
    let pids = [conn.pid(), other.pid()];
    let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    std::mem::swap(&mut *guard, &mut other);
    assert_eq!(
        kind_of(guard.release()),
        Some(LockErrorKind::SessionChanged)
    );
    assert_eq!(observer.held_modes(&key, pids[0]), "ExclusiveLock");
    // The session that replied may serve another client, so it goes on. Its connection is broken.
    assert!(observer.is_alive(pids[1]));
    let again = conn.acquire_advisory_lock(&key, block()).map(drop);
    assert_eq!(kind_of(again), Some(LockErrorKind::Database));
    drop(other);
    eventually("the end of the other", || observer.is_free(&key));
}

#[test]
fn a_leaked_guard_holds_until_its_connection_is_closed() {
    let key = fresh_key();
    let (mut observer, mut conn) = (connect(), connect());
    let pid = conn.pid();
    std::mem::forget(conn.acquire_advisory_lock(&key, block()).unwrap());
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();
    assert_eq!(observer.held_modes(&key, pid), "ExclusiveLock");
    drop(conn);
    eventually("the end of a session", || observer.is_free(&key));
}

#[test]
fn a_body_that_fails_without_its_lock_is_its_own_error() {
    let (mut admin, mut conn) = (connect(), connect());
    let pid = conn.pid();
    let done = conn.with_advisory_lock(fresh_key(), block(), |_| {
        admin.terminate(pid);
        Err::<(), _>(Error::NotFound)
    });
    assert_eq!(done, Err(Error::NotFound));
}

#[test]
fn a_transaction_that_lost_its_lock_is_not_committed() {
    let (mut admin, mut conn) = (connect(), connect());
    let pid = conn.pid();
    let done = conn.with_advisory_xact_lock(fresh_key(), block(), |_| {
        admin.terminate(pid);
        Ok::<_, LockError>("done")
    });
    // Diesel hides the SQLSTATE of the server's end.
    assert_eq!(kind_of(done), Some(LockErrorKind::CommitUnknown));
    let again = conn.with_advisory_xact_lock(fresh_key(), block(), |_| Ok::<_, LockError>(()));
    assert_eq!(kind_of(again), Some(LockErrorKind::Database));
}
