//! Order of the wait queue, and deadlocks.

use LockMode::{Exclusive, Shared};

use super::*;
use crate::session::SqlState;

fn request(table: &mut Table, session: usize, key: i64, mode: LockMode) -> LockRequest {
    LockRequest {
        number: table.next_number(),
        owner: Owner::TestSession(session),
        key: LockKey::from(key),
        mode,
        scope: LockScope::Session,
        observes_release: true,
    }
}

/// Returns a request that is granted at once.
fn holder(table: &mut Table, session: usize, key: i64, mode: LockMode) -> LockRequest {
    let request = request(table, session, key, mode);
    assert!(table.try_acquire(&request).unwrap(), "{request:?}");
    request
}

/// Returns a request that waits in the queue.
fn waiter(table: &mut Table, session: usize, key: i64, mode: LockMode) -> LockRequest {
    let request = request(table, session, key, mode);
    assert!(!table.try_acquire(&request).unwrap(), "{request:?}");
    table.enqueue(&request).unwrap();
    request
}

#[test]
fn queue_is_first_in_first_out() {
    let mut table = Table::new(true);
    let first = holder(&mut table, 1, 7, Exclusive);
    let second = waiter(&mut table, 2, 7, Exclusive);
    let third = waiter(&mut table, 3, 7, Exclusive);
    assert!(!table.try_grant_queued(&second, None).unwrap());
    table.release(&first).unwrap();
    assert!(
        !table.try_grant_queued(&third, None).unwrap(),
        "the third overtook the second"
    );
    assert!(table.try_grant_queued(&second, None).unwrap());
    table.release(&second).unwrap();
    assert!(table.try_grant_queued(&third, None).unwrap());
}

#[test]
fn readers_do_not_overtake_a_waiting_writer() {
    let mut table = Table::new(true);
    let reader = holder(&mut table, 1, 7, Shared);
    let writer = waiter(&mut table, 2, 7, Exclusive);
    let late = request(&mut table, 3, 7, Shared);
    assert!(!table.try_acquire(&late).unwrap());
    // An owner that already holds the lock does not wait.
    holder(&mut table, 1, 7, Shared);
    table.release(&reader).unwrap();
    assert!(
        !table.try_grant_queued(&writer, None).unwrap(),
        "one level is left"
    );
}

/// `tests/postgres` shows that servers before PostgreSQL 17 reply so.
#[test]
fn second_mode_beside_a_waiter_is_granted_in_the_queue_only() {
    for [held, requested] in [[Exclusive, Shared], [Shared, Exclusive]] {
        let mut table = Table::new(true);
        let outer = holder(&mut table, 1, 7, held);
        let writer = waiter(&mut table, 2, 7, Exclusive);
        holder(&mut table, 1, 7, held);
        // Refused, and then granted.
        let inner = waiter(&mut table, 1, 7, requested);
        assert!(table.try_grant_queued(&inner, None).unwrap(), "{held:?}");
        table.release(&inner).unwrap();
        table.release(&outer).unwrap();
        assert!(
            !table.try_grant_queued(&writer, None).unwrap(),
            "one level is left"
        );
    }
}

#[test]
fn terminated_session_loses_all_its_locks() {
    let mut table = Table::new(true);
    let first = holder(&mut table, 1, 1, Exclusive);
    let second = holder(&mut table, 1, 2, Shared);
    let other = holder(&mut table, 2, 2, Shared);
    assert_eq!(table.terminate_holders(&LockKey::from(1)).0, 2);
    assert_eq!(table.terminate_holders(&LockKey::from(1)).0, 0);
    let next = request(&mut table, 1, 3, Exclusive);
    assert!(table.try_acquire(&next).unwrap_err().is_disconnected());
    assert!(table.release(&first).is_err() && table.release(&second).is_err());
    assert_eq!(table.release(&other).unwrap().answer, Some(true));
    assert!(table.try_acquire(&next).unwrap(), "a new session");
}

#[test]
fn removed_waiter_unblocks_the_next() {
    let mut table = Table::new(true);
    let reader = holder(&mut table, 1, 7, Shared);
    let writer = waiter(&mut table, 2, 7, Exclusive);
    let late = waiter(&mut table, 3, 7, Shared);
    assert!(!table.try_grant_queued(&late, None).unwrap());
    table.remove_from_queue(&writer);
    assert!(table.try_grant_queued(&late, None).unwrap());
    assert!(
        !table.try_grant_queued(&writer, None).unwrap(),
        "it had left"
    );
    table.release(&reader).unwrap();
}

#[test]
fn last_waiter_of_a_cycle_is_a_deadlock() {
    let mut table = Table::new(true);
    for (session, key) in [(1, 1), (2, 2), (3, 3)] {
        holder(&mut table, session, key, Exclusive);
    }
    waiter(&mut table, 1, 2, Exclusive);
    waiter(&mut table, 2, 3, Exclusive);
    let closing = request(&mut table, 3, 1, Exclusive);
    let error = table.enqueue(&closing).unwrap_err();
    assert_eq!(error.code(), SqlState::new("40P01"));
    // Other sessions may wait for members of the cycle.
    waiter(&mut table, 4, 1, Exclusive);
}

#[test]
fn two_upgrades_from_shared_are_a_deadlock() {
    let mut table = Table::new(true);
    holder(&mut table, 1, 7, Shared);
    holder(&mut table, 2, 7, Shared);
    waiter(&mut table, 1, 7, Exclusive);
    let second = request(&mut table, 2, 7, Exclusive);
    assert!(table.enqueue(&second).is_err());
}

#[test]
fn only_other_sessions_block_without_exclusion() {
    let mut table = Table::new(false);
    holder(&mut table, 1, 7, Exclusive);
    holder(&mut table, 2, 7, Exclusive);
    let other = table.hold_from_other_session(LockKey::from(7), Shared);
    let writer = waiter(&mut table, 3, 7, Exclusive);
    let second_writer = waiter(&mut table, 4, 7, Exclusive);
    holder(&mut table, 5, 7, Shared);
    table.remove_other_session(other);
    assert!(table.try_grant_queued(&second_writer, None).unwrap());
    assert!(table.try_grant_queued(&writer, None).unwrap());
}
