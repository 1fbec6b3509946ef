//! Somebody cancels a statement or ends a session, while it waits and while it holds.

use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, LockOptions};
use diesel::result::Error;
use diesel::{Connection, QueryResult};

use super::support::{
    block, connect, eventually, fresh_key, held, is_alive, is_free, kind_of, number, pid_of, run,
    terminate, while_it_waits,
};

#[test]
fn a_canceled_waiter_goes_on() {
    let key = fresh_key();
    let (mut holder, mut conn) = (connect(), connect());
    let pid = pid_of(&mut conn);
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let ended = while_it_waits(
        &mut conn,
        |conn| conn.acquire_advisory_lock(&key, block()).map(drop),
        |admin, waiter| run(admin, &format!("SELECT pg_cancel_backend({waiter})")),
    );
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Canceled);
    assert!(std::error::Error::source(&error).is_some());
    guard.release().unwrap();
    assert!(is_free(&mut holder, &key));
    assert_eq!(pid_of(&mut conn), pid);
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn a_canceled_waiter_keeps_its_transaction() {
    let key = fresh_key();
    let (mut holder, mut conn) = (connect(), connect());
    run(&mut conn, "CREATE TEMP TABLE kept (number int)");
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    conn.transaction(|conn| {
        run(conn, "INSERT INTO kept VALUES (1)");
        for transaction_level in [true, false] {
            let ended = while_it_waits(
                conn,
                |conn| {
                    if transaction_level {
                        conn.acquire_advisory_xact_lock(&key, block())
                    } else {
                        let options = block().allow_in_transaction();
                        conn.acquire_advisory_lock(&key, options).map(drop)
                    }
                },
                |admin, waiter| run(admin, &format!("SELECT pg_cancel_backend({waiter})")),
            );
            assert_eq!(kind_of(ended), Some(LockErrorKind::Canceled));
        }
        QueryResult::Ok(())
    })
    .unwrap();
    guard.release().unwrap();
    assert!(is_free(&mut holder, &key));
    assert_eq!(number(&mut conn, "SELECT count(*) FROM kept"), 1);
}

/// Cancelled in the wait for a lock of which the session holds another level, in another mode.
#[test]
fn a_canceled_inner_wait_leaves_the_outer_lock() {
    let key = fresh_key();
    let (mut other, mut conn) = (connect(), connect());
    let pid = pid_of(&mut conn);
    let shared = LockOptions::no_wait().shared();
    let others = other.acquire_advisory_lock(&key, shared).unwrap();
    let mut outer = conn.acquire_advisory_lock(&key, shared).unwrap();
    let ended = while_it_waits(
        &mut outer,
        |conn| conn.acquire_advisory_lock(&key, block()).map(drop),
        |admin, waiter| run(admin, &format!("SELECT pg_cancel_backend({waiter})")),
    );
    assert_eq!(kind_of(ended), Some(LockErrorKind::Canceled));
    others.release().unwrap();
    assert_eq!(held(&mut other, &key, pid), "ShareLock");
    outer.release().unwrap();
    assert!(is_free(&mut other, &key));
}

#[test]
fn a_terminated_waiter_holds_nothing() {
    let key = fresh_key();
    let (mut holder, mut conn) = (connect(), connect());
    let guard = holder.acquire_advisory_lock(&key, block()).unwrap();
    let ended = while_it_waits(
        &mut conn,
        |conn| conn.acquire_advisory_lock(&key, block()).map(drop),
        terminate,
    );
    assert_eq!(kind_of(ended), Some(LockErrorKind::Database));
    guard.release().unwrap();
    assert!(is_free(&mut holder, &key));
    // Nothing reconnects behind the caller's back.
    let again = conn.acquire_advisory_lock(&key, block()).map(drop);
    assert_eq!(kind_of(again), Some(LockErrorKind::Database));
}

#[test]
fn a_lock_lost_with_its_session_is_reported_at_its_release() {
    let key = fresh_key();
    let (mut admin, mut conn) = (connect(), connect());
    let pid = pid_of(&mut conn);
    let guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    terminate(&mut admin, pid);
    let error = guard.release().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost);
    assert!(error.is_lost() && std::error::Error::source(&error).is_some());
    assert!(is_free(&mut admin, &key));
}

/// The lock stays with the connection that was granted it, and the guard says that this is not its own.
#[test]
fn a_connection_exchanged_behind_its_guard_is_noticed() {
    let key = fresh_key();
    let (mut observer, mut conn, mut other) = (connect(), connect(), connect());
    let pids = [pid_of(&mut conn), pid_of(&mut other)];
    let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    std::mem::swap(&mut *guard, &mut other);
    assert_eq!(
        kind_of(guard.release()),
        Some(LockErrorKind::SessionChanged)
    );
    assert_eq!(held(&mut observer, &key, pids[0]), "ExclusiveLock");
    eventually("the end of the session that answered", || {
        !is_alive(&mut observer, pids[1])
    });
    drop(other);
    eventually("the end of the other", || is_free(&mut observer, &key));
}

#[test]
fn a_leaked_guard_holds_until_its_connection_is_closed() {
    let key = fresh_key();
    let (mut observer, mut conn) = (connect(), connect());
    let pid = pid_of(&mut conn);
    std::mem::forget(conn.acquire_advisory_lock(&key, block()).unwrap());
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();
    assert_eq!(held(&mut observer, &key, pid), "ExclusiveLock");
    drop(conn);
    eventually("the end of a session", || is_free(&mut observer, &key));
}

#[test]
fn a_body_that_succeeds_without_its_lock_is_an_error() {
    let key = fresh_key();
    let (mut admin, mut conn) = (connect(), connect());
    let pid = pid_of(&mut conn);
    let done = conn.with_advisory_lock(&key, block(), |_| {
        terminate(&mut admin, pid);
        Ok::<_, LockError>("done")
    });
    assert_eq!(kind_of(done), Some(LockErrorKind::Lost));
    assert!(!is_alive(&mut admin, pid) && is_free(&mut admin, &key));
}

#[test]
fn a_body_that_fails_without_its_lock_is_its_own_error() {
    let (mut admin, mut conn) = (connect(), connect());
    let pid = pid_of(&mut conn);
    let done = conn.with_advisory_lock(fresh_key(), block(), |_| {
        terminate(&mut admin, pid);
        Err::<(), _>(Error::NotFound)
    });
    assert_eq!(done, Err(Error::NotFound));
}

#[test]
fn a_transaction_that_lost_its_lock_is_not_committed() {
    let (mut admin, mut conn) = (connect(), connect());
    let pid = pid_of(&mut conn);
    let done = conn.with_advisory_xact_lock(fresh_key(), block(), |_| {
        terminate(&mut admin, pid);
        Ok::<_, LockError>("done")
    });
    assert_eq!(kind_of(done), Some(LockErrorKind::CommitFailed));
    let again = conn.with_advisory_xact_lock(fresh_key(), block(), |_| Ok::<_, LockError>(()));
    assert_eq!(kind_of(again), Some(LockErrorKind::Database));
}

#[test]
fn a_lock_that_something_else_released_is_not_held() {
    let (mut observer, mut conn) = (connect(), connect());
    let key = fresh_key();
    let mut guard = conn.acquire_advisory_lock(&key, block()).unwrap();
    run(&mut guard, "SELECT pg_advisory_unlock_all()");
    assert_eq!(kind_of(guard.release()), Some(LockErrorKind::NotHeld));
    assert!(is_free(&mut observer, &key));
    conn.acquire_advisory_lock(&key, block())
        .unwrap()
        .release()
        .unwrap();
}
