//! r2d2: faults of the pool, and guards that move with their connection.

use advisory_locking::testing::{Event, Fault, TestLocks};
use advisory_locking::{AdvisoryLocking, LockError, LockErrorKind, PooledAdvisoryLocking};
use diesel::SqliteConnection;
use diesel::r2d2::{ConnectionManager, Pool};

use crate::QUIET;

fn pool(size: u32) -> Pool<ConnectionManager<SqliteConnection>> {
    let manager = ConnectionManager::new(":memory:");
    Pool::builder().max_size(size).build(manager).unwrap()
}

#[test]
fn a_pool_fails_on_demand() {
    let pool = pool(1);
    let locks = TestLocks::enter();
    for _ in 0..3 {
        locks.inject_fault("key", Fault::Pool);
    }
    let failed = pool.with_advisory_lock("key", QUIET, |_| Ok::<_, LockError>(()));
    assert_eq!(failed.unwrap_err().kind(), LockErrorKind::Pool);
    let failed = pool.try_acquire_advisory_lock("key", QUIET).map(drop);
    assert_eq!(failed.unwrap_err().kind(), LockErrorKind::Pool);
    let failed = pool.with_advisory_xact_lock("key", QUIET, |_| Ok::<_, LockError>(()));
    let error = failed.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Pool);
    assert!(error.key().is_some());
    assert_eq!(locks.events(), []);
    // The fault is used up, and the only connection is back.
    pool.with_advisory_lock("key", QUIET, |_| Ok::<_, LockError>(()))
        .unwrap();
    // A call on a connection is not affected.
    locks.inject_fault("key", Fault::Pool);
    let mut conn = pool.get().unwrap();
    conn.acquire_advisory_lock("key", QUIET)
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn held_elsewhere_through_a_pool() {
    let pool = pool(2);
    let locks = TestLocks::enter();
    let _elsewhere = locks.hold_from_other_session("key");
    let busy = pool.try_with_advisory_lock("key", QUIET, |_| Ok::<_, LockError>(()));
    assert_eq!(busy.unwrap(), None);
    assert!(
        pool.try_acquire_advisory_lock("key", QUIET)
            .unwrap()
            .is_none()
    );
    assert_eq!(locks.events().len(), 2);
}

/// Each connection is a session, wherever its guard moves. A previous address of a connection
/// identifies no session.
#[test]
fn sessions_stay_distinct_when_guards_move() {
    let pool = pool(4);
    let locks = TestLocks::enter_exclusive();
    let mut guards = Vec::new();
    for number in 0..3 {
        let mut guard = pool.acquire_advisory_lock(("key", number), QUIET).unwrap();
        // Used here, then moved.
        guard
            .acquire_advisory_lock("touched", QUIET)
            .unwrap()
            .release()
            .unwrap();
        guards.push(guard);
        let other = pool
            .try_acquire_advisory_lock(("key", number), QUIET)
            .unwrap();
        assert!(other.is_none(), "{number}");
        let mut conn = pool.get().unwrap();
        assert!(
            conn.try_acquire_advisory_lock(("key", number), QUIET)
                .unwrap()
                .is_none()
        );
    }
    for (number, guard) in guards.iter_mut().enumerate() {
        let again = guard.acquire_advisory_lock(("key", number), QUIET).unwrap();
        again.release().unwrap();
    }
    guards.reverse();
    for guard in guards {
        guard.release().unwrap();
    }
    let last = locks.events().pop().unwrap();
    assert_eq!(last, Event::released(("key", 0)));
}

/// A lost session is broken, so the pool opens a new one.
#[test]
fn a_lost_connection_is_replaced() {
    let pool = pool(1);
    let locks = TestLocks::enter();
    locks.inject_fault("key", Fault::Lost);
    let mark = |conn: &mut SqliteConnection| {
        use diesel::connection::SimpleConnection;
        conn.batch_execute("CREATE TABLE mark (number INTEGER)")
    };
    let lost = pool.with_advisory_lock("key", QUIET, mark).unwrap_err();
    assert!(lost.to_string().contains("session ended"), "{lost}");
    // The same statement would fail on the same connection.
    pool.with_advisory_lock("key", QUIET, mark).unwrap();
}

/// With locks in the process, a clone of the manager excludes the other callers, too.
#[cfg(feature = "lock-manager")]
#[test]
fn clone_of_a_manager_excludes_it() {
    use std::time::{Duration, Instant};

    use advisory_locking::WaitStrategy;
    use advisory_locking::lock_manager::{LockManager, LockManagerOptions, NoLockBackend};

    let locks = TestLocks::enter();
    let in_process = LockManagerOptions::new().on_no_lock_backend(NoLockBackend::InProcess);
    let manager = LockManager::over_blocking_pool_with(pool(1), in_process).unwrap();
    let clone = manager.clone();

    let held = clone.acquire_blocking("key", QUIET).unwrap();
    assert!(
        manager
            .try_acquire_blocking("key", QUIET)
            .unwrap()
            .is_none()
    );
    let (began, limit) = (Instant::now(), Duration::from_millis(30));
    let short = crate::wait(limit, WaitStrategy::Poll);
    let refused = manager
        .acquire_blocking("key", short)
        .map(drop)
        .unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::TimedOut);
    assert!(began.elapsed() >= limit);
    let waiting = std::thread::spawn(move || {
        let options = crate::wait(crate::LONG, WaitStrategy::Poll);
        manager.acquire_blocking("key", options)?.release_blocking()
    });
    testkit::server::eventually("a waiter", || clone.snapshot().waiters() == 1);
    drop(held);
    waiting.join().unwrap().unwrap();
    // The other thread is not attached to the test.
    let events = [Event::acquired("key"), Event::released("key")];
    assert_eq!(locks.events(), events);
}

/// Also if the lock was one of a transaction.
#[test]
fn connection_lost_in_a_transaction_is_replaced() {
    use diesel::connection::SimpleConnection;
    for body_succeeds in [true, false] {
        let (pool, locks) = (pool(1), TestLocks::enter());
        let create = "CREATE TABLE mark (number INTEGER)";
        pool.get().unwrap().batch_execute(create).unwrap();
        locks.inject_fault("key", Fault::Lost);
        let lost = pool.with_advisory_xact_lock("key", QUIET, |_| {
            let failed = Err(diesel::result::Error::NotFound);
            if body_succeeds { Ok(()) } else { failed }
        });
        lost.unwrap_err();
        // The same statement would fail on the same connection.
        pool.get().unwrap().batch_execute(create).unwrap();
    }
}
