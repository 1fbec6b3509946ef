//! Bodies that end the transaction of `with_advisory_xact_lock` themselves, and its pauses.

use advisory_locking::LockErrorKind::{
    CommitFailed, Database, HeldElsewhere, Lost, NotHeld, TransactionLeftOpen,
};

use super::{LONG, assert_granted_and_released, no_wait, poll};
use crate::actor::Outcome::{
    Answered, BodyStarted, BodySucceeded, ClientFailed, Done, Failed, Granted,
};
use crate::actor::{BODY_VALUE, BodyEnd, Command, LockScope, SqlCommand, request};
use crate::fixture::{Fixture, pid, until};

/// The lock was free between the two transactions. What the body committed stays committed.
pub(crate) fn a_scope_exchanged_by_its_body(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    let text = |end| [Command::Sql(end), Command::Sql(SqlCommand::Begin)];
    let mut ways = vec![
        ([Command::Commit, Command::Begin], 1),
        ([Command::Rollback, Command::Begin], 0),
    ];
    if fixture.excludes() {
        ways.push((text(SqlCommand::Commit), 1));
        ways.push((text(SqlCommand::Rollback), 0));
    }
    let mut rows = 0;
    for (way, committed) in ways {
        let exchange = format!("{way:?}");
        actor.enter(LockScope::Transaction, &key);
        assert_eq!(actor.run_sql(SqlCommand::Write), Done);
        for command in way {
            assert_eq!(actor.call(command), Done, "{exchange}");
        }
        fixture.assert_free(&key);
        assert_eq!(actor.run_sql(SqlCommand::Write), Done);
        let outcome = actor.end_body(BodyEnd::Ok);
        rows += committed;
        if fixture.excludes() {
            assert_eq!(outcome, Failed(NotHeld), "{exchange}");
        } else {
            // Without locks there is no check, and the second transaction is committed.
            rows += 1;
            assert_eq!(outcome, BodySucceeded(BODY_VALUE), "{exchange}");
        }
        let counted = actor.run_sql(SqlCommand::Count);
        assert_eq!(counted, Answered(Some(rows)), "{exchange}");
    }
    assert_granted_and_released(&actor, &key);
}

/// The client does not see the end of the transaction.
pub(crate) fn a_scope_ended_by_text(fixture: &Fixture) {
    let key = fixture.key("key");
    let actor = fixture.actor();
    let mut rows = 0;
    for (end, committed) in [(SqlCommand::Commit, 1), (SqlCommand::Rollback, 0)] {
        actor.enter(LockScope::Transaction, &key);
        assert_eq!(actor.run_sql(SqlCommand::Write), Done);
        assert_eq!(actor.run_sql(end), Done);
        rows += committed;
        let outcome = actor.end_body(BodyEnd::Ok);
        if fixture.excludes() {
            assert_eq!(outcome, Failed(NotHeld), "{end:?}");
        } else {
            // The client's commit has no transaction, which some clients notice before.
            let failed = [Failed(NotHeld), Failed(CommitFailed)];
            assert!(failed.contains(&outcome), "{end:?}: {outcome:?}");
        }
        let counted = actor.run_sql(SqlCommand::Count);
        assert_eq!(counted, Answered(Some(rows)), "{end:?}");
    }
    assert_granted_and_released(&actor, &key);
}

/// The rollback to an outer savepoint keeps the transaction, and releases the lock of the scope.
pub(crate) fn a_nested_scope_rolled_back_by_its_body(fixture: &Fixture) {
    let (outer, inner) = (fixture.key("outer"), fixture.key("inner"));
    let [actor, other] = fixture.actors();
    actor.enter(LockScope::Transaction, &outer);
    let savepoint = SqlCommand::Savepoint("of_the_body");
    assert_eq!(actor.run_sql(savepoint), Done);
    actor.enter(LockScope::Transaction, &inner);
    let rollback = SqlCommand::RollbackTo("of_the_body");
    assert_eq!(actor.run_sql(rollback), Done);
    fixture.assert_free(&inner);
    let [ended, outer_ended] = [(); 2].map(|()| actor.end_body(BodyEnd::Ok));
    // Without locks there is no check.
    if fixture.excludes() {
        assert_eq!(ended, Failed(NotHeld));
        // The scope's savepoint is gone, so the outer transaction cannot go on. SeaORM's adapter
        // has closed the connection.
        let failed = [
            Failed(Lost),
            Failed(TransactionLeftOpen),
            Failed(CommitFailed),
        ];
        assert!(failed.contains(&outer_ended), "{outer_ended:?}");
    }
    fixture.assert_soon_free(&outer);
    assert_granted_and_released(&other, &inner);
}

/// A poller holds nothing on the server during its pauses.
pub(crate) fn a_scope_polls_outside_its_transaction(fixture: &Fixture) {
    let key = fixture.key("key");
    let [holder, poller, other] = fixture.actors();
    if !fixture.excludes() {
        let polled = poller.with(LockScope::Transaction, &key, poll(LONG));
        assert_eq!(polled, BodyStarted);
        poller.succeed();
        return;
    }
    let polls = pid(&poller);
    assert_eq!(holder.acquire(&key, no_wait()), Granted);
    let scope = request(&key, poll(LONG), true);
    poller.start(Command::With(LockScope::Transaction, scope));
    until(LONG, || fixture.has_rolled_back(polls).then_some(()))
        .expect("the poller pauses without a transaction");
    assert_eq!(poller.finished(), None);
    let refused = other.with(LockScope::Transaction, &key, no_wait());
    assert_eq!(refused, Failed(HeldElsewhere));
    assert_eq!(holder.release(), Done);
    assert_eq!(poller.finish(), BodyStarted);
    assert_eq!(poller.run_sql(SqlCommand::Write), Done);
    poller.succeed();
    assert_eq!(poller.number(SqlCommand::Count), 1);
}

/// A poller in a transaction of the caller keeps the transaction, and no snapshot.
pub(crate) fn a_poll_in_a_transaction_has_no_snapshot(fixture: &Fixture) {
    let key = fixture.key("key");
    let [holder, poller] = fixture.actors();
    if fixture.excludes() {
        assert_eq!(holder.acquire(&key, no_wait()), Granted);
    }
    assert_eq!(poller.begin(), Done);
    if fixture.excludes() {
        let polls = pid(&poller);
        poller.start(Command::XactAcquire(request(&key, poll(LONG), true)));
        until(LONG, || fixture.has_ended_snapshot(polls).then_some(()))
            .expect("the poller pauses without a snapshot");
        assert_eq!(holder.release(), Done);
        assert_eq!(poller.finish(), Granted);
    } else {
        assert_eq!(poller.xact(&key, poll(LONG)), Granted);
    }
    assert_eq!(poller.commit(), Done);
}

/// The text begins a transaction under a session-level lock, and leaves it open with a write.
pub(crate) fn an_invisible_transaction_begun_under_the_lock(fixture: &Fixture) {
    let key = fixture.key("key");
    let [first, second, third] = fixture.actors();
    for end in [Command::Release, Command::DropGuard] {
        let actor = if matches!(end, Command::Release) {
            &first
        } else {
            &second
        };
        let dropped = matches!(end, Command::DropGuard);
        assert_eq!(actor.acquire(&key, no_wait()), Granted);
        assert_eq!(actor.run_sql(SqlCommand::Begin), Done);
        assert_eq!(actor.run_sql(SqlCommand::Write), Done);
        let outcome = actor.call(end);
        let noticed = fixture.excludes() || fixture.sees_raw_transactions();
        if noticed && !dropped {
            assert_eq!(outcome, Failed(TransactionLeftOpen));
        } else {
            assert_eq!(outcome, Done);
        }
        if fixture.excludes() {
            fixture.assert_soon_free(&key);
            // The session has ended, or the transaction.
            let counted = third.run_sql(SqlCommand::Count);
            assert_eq!(counted, Answered(Some(0)));
        }
    }
    assert_granted_and_released(&third, &key);
}

/// The application has begun a transaction as text, of which a second `BEGIN` only warns. A poll of
/// the scope would roll it back, and the commit would end it. A rollback of an aborted one would
/// let its later statements run outside a transaction.
pub(crate) fn a_scope_in_an_invisible_transaction(fixture: &Fixture) {
    if !fixture.excludes() || fixture.ends_raw_transactions() {
        return;
    }
    let key = fixture.key("key");
    let [first, second, third] = fixture.actors();
    for (actor, aborted) in [(&first, false), (&second, true)] {
        assert_eq!(actor.run_sql(SqlCommand::Begin), Done);
        assert_eq!(actor.run_sql(SqlCommand::Write), Done);
        if aborted {
            assert_eq!(actor.run_sql(SqlCommand::Fail), ClientFailed);
        }
        let scope = actor.with(LockScope::Transaction, &key, no_wait());
        if aborted && scope == BodyStarted {
            // The check of a pool has replaced the connection.
            actor.succeed();
        } else {
            assert_eq!(scope, Failed(Database), "aborted: {aborted}");
        }
        fixture.assert_soon_free(&key);
        assert_eq!(third.run_sql(SqlCommand::Count), Answered(Some(0)));
    }
    assert_granted_and_released(&third, &key);
}
