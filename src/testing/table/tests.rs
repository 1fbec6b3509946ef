//! The queue: who goes first, and who waits for whom.

use LockMode::{Exclusive, Shared};

use super::*;
use crate::session::SqlState;

fn wanted(table: &mut Table, session: usize, key: i64, mode: LockMode) -> Wanted {
    Wanted {
        number: table.next_number(),
        owner: Owner::Session(session),
        key: LockKey::from(key),
        mode,
        level: LockScope::Session,
        sees_the_end: true,
    }
}

/// A session that is granted the lock at once.
fn holder(table: &mut Table, session: usize, key: i64, mode: LockMode) -> Wanted {
    let wanted = wanted(table, session, key, mode);
    assert!(table.try_acquire(&wanted).unwrap(), "{wanted:?}");
    wanted
}

/// A session that queues.
fn waiter(table: &mut Table, session: usize, key: i64, mode: LockMode) -> Wanted {
    let wanted = wanted(table, session, key, mode);
    assert!(!table.try_acquire(&wanted).unwrap(), "{wanted:?}");
    table.enqueue(&wanted).unwrap();
    wanted
}

#[test]
fn the_queue_is_served_in_order() {
    let mut table = Table::new(true);
    let first = holder(&mut table, 1, 7, Exclusive);
    let second = waiter(&mut table, 2, 7, Exclusive);
    let third = waiter(&mut table, 3, 7, Exclusive);
    assert!(!table.advance(&second, None));
    table.release(&first).unwrap();
    assert!(
        !table.advance(&third, None),
        "the third overtook the second"
    );
    assert!(table.advance(&second, None));
    table.release(&second).unwrap();
    assert!(table.advance(&third, None));
}

#[test]
fn readers_do_not_overtake_a_writer_that_queues() {
    let mut table = Table::new(true);
    let reader = holder(&mut table, 1, 7, Shared);
    let writer = waiter(&mut table, 2, 7, Exclusive);
    let late = wanted(&mut table, 3, 7, Shared);
    assert!(!table.try_acquire(&late).unwrap());
    // But who has it already is not made to wait.
    holder(&mut table, 1, 7, Shared);
    table.release(&reader).unwrap();
    assert!(!table.advance(&writer, None), "one level is left");
}

#[test]
fn a_place_in_the_queue_can_be_left() {
    let mut table = Table::new(true);
    let reader = holder(&mut table, 1, 7, Shared);
    let writer = waiter(&mut table, 2, 7, Exclusive);
    let late = waiter(&mut table, 3, 7, Shared);
    assert!(!table.advance(&late, None));
    table.leave_queue(&writer);
    assert!(table.advance(&late, None));
    assert!(!table.advance(&writer, None), "it had left");
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
    let closing = wanted(&mut table, 3, 1, Exclusive);
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
    let second = wanted(&mut table, 2, 7, Exclusive);
    assert!(table.enqueue(&second).is_err());
}

#[test]
fn without_exclusion_only_those_elsewhere_are_in_the_way() {
    let mut table = Table::new(false);
    holder(&mut table, 1, 7, Exclusive);
    holder(&mut table, 2, 7, Exclusive);
    let elsewhere = table.hold_elsewhere(LockKey::from(7), Shared);
    let writer = waiter(&mut table, 3, 7, Exclusive);
    let second_writer = waiter(&mut table, 4, 7, Exclusive);
    holder(&mut table, 5, 7, Shared);
    table.remove_elsewhere(elsewhere);
    assert!(table.advance(&second_writer, None));
    assert!(table.advance(&writer, None));
}
