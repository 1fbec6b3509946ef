//! Scripts about transactions, and about sessions that end or that something else works on.

use advisory_locking::LockMode::Exclusive;

use super::{SHORT, agree};
use crate::actor::{Command, Ending, Level, Raw, ask};
use crate::cases::{LONG, block, no_wait};

#[test]
fn a_savepoint_that_is_rolled_back() {
    agree(|s| {
        s.does(0, Command::Begin);
        s.asks_in_transaction(0, 0, no_wait());
        s.raw(0, Raw::Savepoint("before"));
        s.asks_in_transaction(0, 0, no_wait());
        s.asks_in_transaction(0, 1, no_wait());
        s.asks(0, 1, no_wait().shared().allow_in_transaction());
        s.raw(0, Raw::RollbackTo("before"));
        s.asks(1, 1, no_wait());
        s.asks(1, 1, no_wait().shared());
        s.releases(0);
        s.releases(1);
        s.does(0, Command::Commit);
    });
}

#[test]
fn savepoints_that_are_released() {
    agree(|s| {
        s.does_all(0, [Command::Begin, Command::Begin]);
        s.asks_in_transaction(0, 0, block(LONG));
        s.does(0, Command::Commit);
        s.does(0, Command::Begin);
        s.asks_in_transaction(0, 1, no_wait());
        s.does_all(0, [Command::Rollback, Command::Raw(Raw::Fail)]);
        s.asks(1, 0, no_wait());
        s.does(0, Command::Commit);
        s.asks(1, 0, no_wait());
        s.releases(1);
    });
}

#[test]
fn an_aborted_transaction_refuses_everything() {
    agree(|s| {
        s.asks(0, 1, no_wait());
        s.does_all(0, [Command::Begin, Command::Raw(Raw::Write)]);
        s.raw(0, Raw::Fail);
        s.asks_in_transaction(0, 0, no_wait());
        s.asks_in_transaction(0, 0, block(SHORT));
        s.raw(0, Raw::Unlock(s.keys[1].raw(), Exclusive));
        s.does_all(0, [Command::Rollback, Command::Raw(Raw::Count)]);
        s.releases(0);
    });
}

#[test]
fn a_session_lock_asked_for_in_an_aborted_transaction_ends_the_session() {
    agree(|s| {
        s.asks(0, 1, no_wait());
        s.does_all(0, [Command::Begin, Command::Raw(Raw::Fail)]);
        s.asks(0, 0, no_wait().allow_in_transaction());
        s.does(0, Command::Release);
        s.asks(0, 0, no_wait());
        s.asks(1, 1, no_wait());
        s.releases(1);
    });
}

#[test]
fn limits_inside_a_transaction() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.does_all(1, [Command::Begin, Command::Raw(Raw::Write)]);
        s.asks_in_transaction(1, 0, block(SHORT));
        s.asks(1, 0, block(SHORT).allow_in_transaction());
        s.raw(1, Raw::Count);
        s.asks_in_transaction(1, 1, block(SHORT));
        s.releases(0);
        s.asks_in_transaction(1, 0, block(SHORT));
        s.does_all(1, [Command::Commit, Command::Raw(Raw::Count)]);
    });
}

#[test]
fn a_session_that_is_ended() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.queues(1, 0, block(LONG), 1);
        s.stage.terminate_pid(s.pids[1]);
        s.gets(1);
        s.queues(2, 0, block(LONG), 1);
        s.stage.terminate_pid(s.pids[0]);
        s.gets(2);
        s.releases(0);
        s.asks(0, 1, no_wait());
        s.asks(1, 1, no_wait());
        s.releases(2);
    });
}

#[test]
fn a_wait_that_is_cancelled() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.queues(1, 0, block(LONG), 1);
        s.stage.cancel_pid(s.pids[1]);
        s.gets(1);
        s.asks(1, 1, no_wait());
        s.releases(1);
        s.releases(0);
    });
}

#[test]
fn everything_unlocked_by_hand() {
    agree(|s| {
        s.asks(0, 0, no_wait());
        s.asks(0, 0, no_wait());
        s.asks(0, 1, no_wait().shared());
        s.raw(0, Raw::UnlockAll);
        s.releases(0);
        s.raw(0, Raw::TryLock(s.keys[0].raw(), Exclusive));
        s.releases(0);
        s.releases(0);
    });
}

#[test]
fn transaction_locks_are_not_unlocked_by_hand() {
    agree(|s| {
        s.does(0, Command::Begin);
        s.asks_in_transaction(0, 0, no_wait());
        s.raw(0, Raw::Unlock(s.keys[0].raw(), Exclusive));
        s.raw(0, Raw::UnlockAll);
        s.does(0, Command::Commit);
    });
}

#[test]
fn a_transaction_the_client_does_not_know_of() {
    agree(|s| {
        s.raw(0, Raw::Begin);
        s.asks(0, 0, no_wait());
        s.raw(0, Raw::Rollback);
        s.releases(0);
        s.raw(0, Raw::Begin);
        s.asks(0, 0, no_wait());
        s.releases(0);
        s.asks(0, 1, no_wait());
    });
}

#[test]
fn scopes_and_their_ends() {
    agree(|s| {
        let scope =
            |key: usize| Command::With(Level::Transaction, ask(&s.keys[key], no_wait(), true));
        for ending in [Ending::Ok, Ending::Err, Ending::Panic] {
            s.does_all(0, [scope(0), Command::Raw(Raw::Write), scope(1)]);
            s.does_all(0, [Command::Raw(Raw::Write), Command::Leave(ending)]);
            s.does_all(0, [Command::Leave(Ending::Ok), Command::Raw(Raw::Count)]);
        }
        s.does_all(
            0,
            [
                scope(0),
                Command::Raw(Raw::Fail),
                Command::Leave(Ending::Ok),
            ],
        );
        s.does_all(0, [scope(0), Command::Begin, Command::Leave(Ending::Ok)]);
    });
}
