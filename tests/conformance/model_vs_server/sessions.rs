//! Scenarios of transactions, of terminated sessions, and of plain SQL on a session.

use advisory_locking::LockMode::Exclusive;

use super::{SHORT, assert_same};
use crate::actor::{BodyEnd, Command, LockScope, SqlCommand, request};
use crate::cases::{LONG, block, no_wait};

#[test]
fn a_savepoint_that_is_rolled_back() {
    assert_same(|s| {
        s.step(0, Command::Begin);
        s.acquire_xact(0, 0, no_wait());
        s.sql(0, SqlCommand::Savepoint("before"));
        s.acquire_xact(0, 0, no_wait());
        s.acquire_xact(0, 1, no_wait());
        s.acquire(0, 1, no_wait().shared().allow_in_transaction());
        s.sql(0, SqlCommand::RollbackTo("before"));
        s.acquire(1, 1, no_wait());
        s.acquire(1, 1, no_wait().shared());
        s.release(0);
        s.release(1);
        s.step(0, Command::Commit);
    });
}

#[test]
fn savepoints_that_are_released() {
    assert_same(|s| {
        s.steps(0, [Command::Begin, Command::Begin]);
        s.acquire_xact(0, 0, block(LONG));
        s.step(0, Command::Commit);
        s.step(0, Command::Begin);
        s.acquire_xact(0, 1, no_wait());
        s.steps(0, [Command::Rollback, Command::Sql(SqlCommand::Fail)]);
        s.acquire(1, 0, no_wait());
        s.step(0, Command::Commit);
        s.acquire(1, 0, no_wait());
        s.release(1);
    });
}

#[test]
fn an_aborted_transaction_refuses_everything() {
    assert_same(|s| {
        s.acquire(0, 1, no_wait());
        s.steps(0, [Command::Begin, Command::Sql(SqlCommand::Write)]);
        s.sql(0, SqlCommand::Fail);
        s.acquire_xact(0, 0, no_wait());
        s.acquire_xact(0, 0, block(SHORT));
        s.sql(0, SqlCommand::Unlock(s.keys[1].raw(), Exclusive));
        s.steps(0, [Command::Rollback, Command::Sql(SqlCommand::Count)]);
        s.release(0);
    });
}

#[test]
fn a_session_lock_in_an_aborted_transaction_ends_the_session() {
    assert_same(|s| {
        s.acquire(0, 1, no_wait());
        s.steps(0, [Command::Begin, Command::Sql(SqlCommand::Fail)]);
        s.acquire(0, 0, no_wait().allow_in_transaction());
        s.step(0, Command::Release);
        s.acquire(0, 0, no_wait());
        s.acquire(1, 1, no_wait());
        s.release(1);
    });
}

#[test]
fn limits_inside_a_transaction() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait());
        s.steps(1, [Command::Begin, Command::Sql(SqlCommand::Write)]);
        s.acquire_xact(1, 0, block(SHORT));
        s.acquire(1, 0, block(SHORT).allow_in_transaction());
        s.sql(1, SqlCommand::Count);
        s.acquire_xact(1, 1, block(SHORT));
        s.release(0);
        s.acquire_xact(1, 0, block(SHORT));
        s.steps(1, [Command::Commit, Command::Sql(SqlCommand::Count)]);
    });
}

#[test]
fn a_terminated_session() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait());
        s.start_acquire(1, 0, block(LONG), 1);
        s.fixture.terminate_pid(s.pids[1]);
        s.finish_acquire(1);
        s.start_acquire(2, 0, block(LONG), 1);
        s.fixture.terminate_pid(s.pids[0]);
        s.finish_acquire(2);
        s.release(0);
        s.acquire(0, 1, no_wait());
        s.acquire(1, 1, no_wait());
        s.release(2);
    });
}

#[test]
fn a_wait_that_is_cancelled() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait());
        s.start_acquire(1, 0, block(LONG), 1);
        s.fixture.cancel_pid(s.pids[1]);
        s.finish_acquire(1);
        s.acquire(1, 1, no_wait());
        s.release(1);
        s.release(0);
    });
}

#[test]
fn everything_unlocked_by_hand() {
    assert_same(|s| {
        s.acquire(0, 0, no_wait());
        s.acquire(0, 0, no_wait());
        s.acquire(0, 1, no_wait().shared());
        s.sql(0, SqlCommand::UnlockAll);
        s.release(0);
        s.sql(0, SqlCommand::TryLock(s.keys[0].raw(), Exclusive));
        s.release(0);
        s.release(0);
    });
}

#[test]
fn transaction_locks_are_not_unlocked_by_hand() {
    assert_same(|s| {
        s.step(0, Command::Begin);
        s.acquire_xact(0, 0, no_wait());
        s.sql(0, SqlCommand::Unlock(s.keys[0].raw(), Exclusive));
        s.sql(0, SqlCommand::UnlockAll);
        s.step(0, Command::Commit);
    });
}

#[test]
fn a_transaction_that_the_client_does_not_see() {
    assert_same(|s| {
        s.sql(0, SqlCommand::Begin);
        s.acquire(0, 0, no_wait());
        s.sql(0, SqlCommand::Rollback);
        s.release(0);
        s.sql(0, SqlCommand::Begin);
        s.acquire(0, 0, no_wait());
        s.release(0);
        s.acquire(0, 1, no_wait());
    });
}

#[test]
fn scopes_and_their_ends() {
    assert_same(|s| {
        let scope = |key: usize| {
            Command::With(
                LockScope::Transaction,
                request(&s.keys[key], no_wait(), true),
            )
        };
        for ending in [BodyEnd::Ok, BodyEnd::Err, BodyEnd::Panic] {
            s.steps(0, [scope(0), Command::Sql(SqlCommand::Write), scope(1)]);
            s.steps(
                0,
                [Command::Sql(SqlCommand::Write), Command::EndBody(ending)],
            );
            s.steps(
                0,
                [
                    Command::EndBody(BodyEnd::Ok),
                    Command::Sql(SqlCommand::Count),
                ],
            );
        }
        s.steps(
            0,
            [
                scope(0),
                Command::Sql(SqlCommand::Fail),
                Command::EndBody(BodyEnd::Ok),
            ],
        );
        s.steps(0, [scope(0), Command::Begin, Command::EndBody(BodyEnd::Ok)]);
    });
}
