//! The queue: who goes first, and who waits for whom.

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
        sees_the_end: true,
    }
}

/// A session that is granted the lock at once.
fn holder(table: &mut Table, session: usize, key: i64, mode: LockMode) -> LockRequest {
    let request = request(table, session, key, mode);
    assert!(table.try_acquire(&request).unwrap(), "{request:?}");
    request
}

/// A session that queues.
fn waiter(table: &mut Table, session: usize, key: i64, mode: LockMode) -> LockRequest {
    let request = request(table, session, key, mode);
    assert!(!table.try_acquire(&request).unwrap(), "{request:?}");
    table.enqueue(&request).unwrap();
    request
}

#[test]
fn the_queue_is_served_in_order() {
    let mut table = Table::new(true);
    let first = holder(&mut table, 1, 7, Exclusive);
    let second = waiter(&mut table, 2, 7, Exclusive);
    let third = waiter(&mut table, 3, 7, Exclusive);
    assert!(!table.try_grant_queued(&second, None));
    table.release(&first).unwrap();
    assert!(
        !table.try_grant_queued(&third, None),
        "the third overtook the second"
    );
    assert!(table.try_grant_queued(&second, None));
    table.release(&second).unwrap();
    assert!(table.try_grant_queued(&third, None));
}

#[test]
fn readers_do_not_overtake_a_writer_that_queues() {
    let mut table = Table::new(true);
    let reader = holder(&mut table, 1, 7, Shared);
    let writer = waiter(&mut table, 2, 7, Exclusive);
    let late = request(&mut table, 3, 7, Shared);
    assert!(!table.try_acquire(&late).unwrap());
    // But who has it already is not made to wait.
    holder(&mut table, 1, 7, Shared);
    table.release(&reader).unwrap();
    assert!(!table.try_grant_queued(&writer, None), "one level is left");
}

#[test]
fn a_place_in_the_queue_can_be_left() {
    let mut table = Table::new(true);
    let reader = holder(&mut table, 1, 7, Shared);
    let writer = waiter(&mut table, 2, 7, Exclusive);
    let late = waiter(&mut table, 3, 7, Shared);
    assert!(!table.try_grant_queued(&late, None));
    table.remove_from_queue(&writer);
    assert!(table.try_grant_queued(&late, None));
    assert!(!table.try_grant_queued(&writer, None), "it had left");
    table.release(&reader).unwrap();
}

#[test]
fn a_cycle_is_a_deadlock_for_the_one_who_closes_it() {
    let mut table = Table::new(true);
    for (session, key) in [(1, 1), (2, 2), (3, 3)] {
        holder(&mut table, session, key, Exclusive);
    }
    waiter(&mut table, 1, 2, Exclusive);
    waiter(&mut table, 2, 3, Exclusive);
    let closing = request(&mut table, 3, 1, Exclusive);
    let error = table.enqueue(&closing).unwrap_err();
    assert_eq!(error.code(), SqlState::new("40P01"));
    // Others may wait for those in it.
    waiter(&mut table, 4, 1, Exclusive);
}

#[test]
fn two_who_share_and_both_want_more_are_a_deadlock() {
    let mut table = Table::new(true);
    holder(&mut table, 1, 7, Shared);
    holder(&mut table, 2, 7, Shared);
    waiter(&mut table, 1, 7, Exclusive);
    let second = request(&mut table, 2, 7, Exclusive);
    assert!(table.enqueue(&second).is_err());
}

#[test]
fn without_exclusion_only_those_elsewhere_are_in_the_way() {
    let mut table = Table::new(false);
    holder(&mut table, 1, 7, Exclusive);
    holder(&mut table, 2, 7, Exclusive);
    let elsewhere = table.hold_from_other_session(LockKey::from(7), Shared);
    let writer = waiter(&mut table, 3, 7, Exclusive);
    let second_writer = waiter(&mut table, 4, 7, Exclusive);
    holder(&mut table, 5, 7, Shared);
    table.remove_other_session(elsewhere);
    assert!(table.try_grant_queued(&second_writer, None));
    assert!(table.try_grant_queued(&writer, None));
}
