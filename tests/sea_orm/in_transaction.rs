//! Transaction-level locks in a `DatabaseTransaction` and in a `PinnedTransaction`.

use std::time::{Duration, Instant};

use advisory_locking::{
    AsyncPooledAdvisoryLocking, AsyncTransactionAdvisoryLocking, LockError, LockErrorKind,
    LockOptions, OnMissingLock, WaitStrategy,
};
use sea_orm::{ConnectionTrait, DbErr, TransactionTrait};
use testkit::gate::Gate;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key};

use crate::open::{NO_WAIT, number, poll_times, postgres, sqlite};

const LIMIT: Duration = Duration::from_secs(30);

fn block(limit: Duration) -> LockOptions {
    LockOptions::wait_up_to(limit).strategy(WaitStrategy::Block)
}

/// Defines a test for SeaORM's own transaction and for one that a body began.
macro_rules! on_both {
    ($($name:ident, |$db:ident, $tx:ident, $observer:ident| $test:block)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn on_database_transaction() {
                let ($db, mut $observer) = (postgres(4).await, connect());
                let $tx = $db.begin().await.unwrap();
                $test
            }

            #[tokio::test]
            async fn on_pinned_transaction() {
                let ($db, mut $observer) = (postgres(4).await, connect());
                let guard = $db.acquire_advisory_lock(fresh_key(), NO_WAIT).await.unwrap();
                let $tx = guard.begin().await.unwrap();
                $test
            }
        }
    )*};
}

on_both! {
    lock_of_an_outer_handle_belongs_to_the_nested_transaction, |db, tx, observer| {
        let [rolled_back, committed] = [fresh_key(), fresh_key()];
        let nested = tx.begin().await.unwrap();
        tx.acquire_advisory_xact_lock(&rolled_back, NO_WAIT).await.unwrap();
        nested.rollback().await.unwrap();
        observer.assert_free(&rolled_back, "the rollback of the nested transaction").await;
        let nested = tx.begin().await.unwrap();
        tx.acquire_advisory_xact_lock(&committed, NO_WAIT).await.unwrap();
        nested.commit().await.unwrap();
        assert_eq!(observer.lock_entries(&committed).len(), 1);
        drop((tx, db));
    }

    lock_is_held_until_the_transaction_ends, |db, tx, observer| {
        let key = fresh_key();
        tx.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
        assert!(tx.try_acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap(), "the session acquires it again");
        assert_eq!(observer.lock_entries(&key).len(), 1);
        let other = db.begin().await.unwrap();
        assert!(!other.try_acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap());
        let rejected = other.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap_err();
        assert_eq!(rejected.kind(), LockErrorKind::HeldElsewhere);
        assert!(db.try_acquire_advisory_lock(&key, NO_WAIT).await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert!(other.try_acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap());
        drop(other);
        observer.assert_free(&key, "both transactions").await;
    }

    savepoint_rollback_releases_the_lock, |db, tx, observer| {
        let (outer, inner) = (fresh_key(), fresh_key());
        tx.acquire_advisory_xact_lock(&outer, NO_WAIT).await.unwrap();
        let nested = tx.begin().await.unwrap();
        nested.acquire_advisory_xact_lock(&inner, NO_WAIT).await.unwrap();
        nested.rollback().await.unwrap();
        observer.assert_free(&inner, "rolling back to the savepoint").await;
        assert_eq!(observer.lock_entries(&outer).len(), 1);
        tx.rollback().await.unwrap();
        observer.assert_free(&outer, "the rollback").await;
        drop(db);
    }

    transaction_stays_usable_after_a_wait, |db, tx, observer| {
        let key = fresh_key();
        let holder = db.begin().await.unwrap();
        holder.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
        tx.execute_unprepared("SET LOCAL lock_timeout = '7s'; SET LOCAL statement_timeout = '90s'").await.unwrap();
        // The longer limit needs more than one wait on the server.
        for limit in [Duration::from_millis(5), Duration::from_millis(700)] {
            for options in [LockOptions::wait_up_to(limit), block(limit)] {
                let began = Instant::now();
                let waited = tx.acquire_advisory_xact_lock(&key, options).await.unwrap_err();
                assert_eq!(waited.kind(), LockErrorKind::TimedOut);
                assert!(began.elapsed() >= limit, "{:?} of {limit:?}", began.elapsed());
            }
        }
        let settings = "SELECT sum(setting::int8)::int8 FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout')";
        assert_eq!(number(&tx, settings).await, 97_000);
        let release = async {
            observer.wait_for(&key, |shown| shown.len() == 2, "no session waits").await;
            // After the end of the first wait on the server.
            tokio::time::sleep(Duration::from_millis(600)).await;
            holder.commit().await.unwrap();
        };
        let (granted, ()) = tokio::join!(tx.acquire_advisory_xact_lock(&key, block(LIMIT)), release);
        granted.unwrap();
        assert_eq!(number(&tx, settings).await, 97_000);
        tx.commit().await.unwrap();
        observer.assert_free(&key, "the commit").await;
    }

    a_wait_without_limit_is_granted, |db, tx, observer| {
        let key = fresh_key();
        let holder = db.begin().await.unwrap();
        holder.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
        let release = async {
            observer.wait_for(&key, |shown| shown.len() == 2, "no session waits").await;
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            holder.commit().await.unwrap();
        };
        let forever = LockOptions::wait_forever().strategy(WaitStrategy::Block);
        let (granted, ()) = tokio::join!(tx.acquire_advisory_xact_lock(&key, forever), release);
        granted.unwrap();
        tx.commit().await.unwrap();
        observer.assert_free(&key, "the commit").await;
    }

    a_dropped_wait_leaves_the_queue, |db, tx, observer| {
        let key = fresh_key();
        let holder = db.begin().await.unwrap();
        holder.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
        // Without a limit, so that the wait does not end by itself.
        let forever = LockOptions::wait_forever().strategy(WaitStrategy::Block);
        tokio::select! {
            _ = tx.acquire_advisory_xact_lock(&key, forever) => panic!("granted while another session holds it"),
            () = observer.wait_for(&key, |shown| shown.len() == 2, "no session waits") => {}
        }
        observer.wait_for(&key, |shown| shown.len() == 1, "the dropped wait is still queued").await;
        drop(tx);
        holder.commit().await.unwrap();
        observer.assert_free(&key, "the commit").await;
        // The pool still has its other connections.
        let all: Vec<_> = futures_util::future::join_all((0..3).map(|_| db.begin())).await;
        assert!(all.into_iter().all(|begun| begun.is_ok()));
    }
}

#[tokio::test]
async fn an_aborted_transaction_acquires_no_lock() {
    let db = postgres(1).await;
    let tx = db.begin().await.unwrap();
    tx.execute_unprepared("SELECT 1/0").await.unwrap_err();
    for options in [NO_WAIT, block(LIMIT)] {
        let rejected = tx
            .acquire_advisory_xact_lock("key", options)
            .await
            .unwrap_err();
        assert_eq!(rejected.kind(), LockErrorKind::TransactionAborted);
    }
}

#[tokio::test]
async fn an_ended_transaction_acquires_no_lock() {
    let db = postgres(1).await;
    let guard = db
        .acquire_advisory_lock(fresh_key(), NO_WAIT)
        .await
        .unwrap();
    let outer = guard.begin().await.unwrap();
    let inner = outer.begin().await.unwrap();
    outer.commit().await.unwrap();
    let key = fresh_key();
    let rejected = inner.acquire_advisory_xact_lock(&key, NO_WAIT).await;
    assert_eq!(
        rejected.unwrap_err().kind(),
        LockErrorKind::NotInTransaction
    );
    assert!(connect().lock_entries(&key).is_empty());
    drop(inner);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_session_that_ends_in_the_transaction_is_reported() {
    let (db, mut observer, key) = (postgres(2).await, connect(), fresh_key());
    let tx = db.begin().await.unwrap();
    let pid = number(&tx, "SELECT pg_backend_pid()::int8").await;
    db.execute_unprepared(&format!("SELECT pg_terminate_backend({pid})"))
        .await
        .unwrap();
    let lost = tx
        .acquire_advisory_xact_lock(&key, NO_WAIT)
        .await
        .unwrap_err();
    assert!(
        matches!(lost.kind(), LockErrorKind::Database | LockErrorKind::Lost),
        "{lost:?}"
    );
    drop(tx);
    observer.assert_free(&key, "the end of the session").await;
}

#[tokio::test]
async fn a_transaction_on_sqlite_is_the_no_op() {
    let db = sqlite().await;
    let strict = NO_WAIT.on_missing_lock(OnMissingLock::Error);
    let tx = db.begin().await.unwrap();
    tx.acquire_advisory_xact_lock("key", NO_WAIT).await.unwrap();
    assert!(
        tx.try_acquire_advisory_xact_lock("key", NO_WAIT)
            .await
            .unwrap()
    );
    let rejected = tx
        .acquire_advisory_xact_lock("key", strict)
        .await
        .unwrap_err();
    assert_eq!(rejected.kind(), LockErrorKind::NoMutualExclusion);
    let wrong = LockOptions::no_wait().strategy(WaitStrategy::Block);
    let rejected = tx
        .acquire_advisory_xact_lock("key", wrong)
        .await
        .unwrap_err();
    assert_eq!(rejected.kind(), LockErrorKind::InvalidOptions);
    tx.rollback().await.unwrap();
    db.with_advisory_lock("key", NO_WAIT, async |db| {
        let tx = db.begin().await?;
        tx.acquire_advisory_xact_lock("other", NO_WAIT).await?;
        tx.commit().await
    })
    .await
    .unwrap();
}

/// `?` works in a function that returns SeaORM's errors.
#[tokio::test]
async fn lock_errors_convert_into_sea_orms() {
    async fn rejected(
        db: &impl TransactionTrait<Transaction: AsyncTransactionAdvisoryLocking>,
    ) -> Result<(), DbErr> {
        let options = LockOptions::no_wait().interval(Duration::from_millis(1));
        let tx = db.begin().await?;
        tx.acquire_advisory_xact_lock("key", options).await?;
        Ok(())
    }
    let error = rejected(&sqlite().await).await.unwrap_err();
    assert!(matches!(error, DbErr::TryIntoErr { .. }));
}

/// After a failed wait the transaction is aborted until the rollback to its savepoint. No other
/// statement may run until then.
#[tokio::test]
async fn a_failed_wait_excludes_other_statements() {
    let (db, mut observer) = (postgres(3).await, connect());
    let (one, two, outer) = (fresh_key(), fresh_key(), fresh_key());
    let holder = db.begin().await.unwrap();
    for key in [&one, &two] {
        holder
            .acquire_advisory_xact_lock(key, NO_WAIT)
            .await
            .unwrap();
    }
    let guard = db.acquire_advisory_lock(&outer, NO_WAIT).await.unwrap();
    let tx = guard.begin().await.unwrap();
    let limit = Duration::from_millis(50);
    let (first, second, meanwhile) = tokio::join!(
        tx.try_acquire_advisory_xact_lock(&one, block(limit)),
        tx.try_acquire_advisory_xact_lock(&two, block(limit)),
        tx.execute_unprepared("SELECT 1"),
    );
    assert!(!first.unwrap() && !second.unwrap());
    meanwhile.unwrap();
    tx.commit().await.unwrap();
    guard.release().await.unwrap();
    holder.rollback().await.unwrap();
    observer.assert_free(&outer, "the release").await;
}

/// The dropped call was waiting for the connection, and has sent nothing.
#[tokio::test]
async fn a_call_dropped_before_its_turn_keeps_the_connection() {
    let (db, mut observer) = (postgres(1).await, connect());
    let (key, outer, mut gate) = (fresh_key(), fresh_key(), Gate::closed());
    let guard = db.acquire_advisory_lock(&outer, NO_WAIT).await.unwrap();
    let tx = guard.begin().await.unwrap();
    let at_the_gate = gate.statement();
    let dropped_call = async {
        tokio::select! {
            _ = tx.acquire_advisory_xact_lock(&key, NO_WAIT) => panic!("the call overtook the statement"),
            () = gate.reached(&mut observer) => {}
        }
        gate.open();
    };
    let (waited, ()) = tokio::join!(tx.execute_unprepared(&at_the_gate), dropped_call);
    waited.unwrap();
    tx.commit().await.unwrap();
    guard.release().await.unwrap();
    observer.assert_free(&outer, "the release").await;
}

/// The session that held the lock of the body was terminated with the wait.
#[tokio::test]
async fn a_wait_dropped_in_a_body_loses_its_lock() {
    let (db, mut observer) = (postgres(2).await, connect());
    let (outer, key) = (fresh_key(), fresh_key());
    let holder = db.begin().await.unwrap();
    holder
        .acquire_advisory_xact_lock(&key, NO_WAIT)
        .await
        .unwrap();
    let mut kept = None;
    let lost = db
        .with_advisory_lock(&outer, NO_WAIT, async |db| {
            let begun = db.begin().await;
            let tx = kept.insert(begun.unwrap());
            let forever = LockOptions::wait_forever().strategy(WaitStrategy::Block);
            tokio::select! {
                _ = tx.acquire_advisory_xact_lock(&key, forever) => panic!("granted while another session holds it"),
                () = observer.wait_for(&key, |shown| shown.len() == 2, "no session waits") => {}
            }
            Ok::<_, LockError>(())
        })
        .await;
    assert_eq!(lost.unwrap_err().kind(), LockErrorKind::Lost);
    observer.assert_free(&outer, "the end of the session").await;
    drop(kept);
    holder.rollback().await.unwrap();
    observer.assert_free(&key, "the rollback").await;
}

/// After a failed wait the transaction is aborted until its savepoint is rolled back. The session
/// is terminated if that does not follow.
#[tokio::test]
async fn a_limited_wait_dropped_anywhere_aborts_no_transaction() {
    let (db, mut observer) = (postgres(2).await, connect());
    let (outer, key) = (fresh_key(), fresh_key());
    let holder = db.begin().await.unwrap();
    holder
        .acquire_advisory_xact_lock(&key, NO_WAIT)
        .await
        .unwrap();
    for polls in 1..40 {
        let guard = db.acquire_advisory_lock(&outer, NO_WAIT).await.unwrap();
        let tx = guard.begin().await.unwrap();
        let wait = tx.try_acquire_advisory_xact_lock(&key, block(Duration::from_millis(20)));
        let waited = poll_times(polls, wait).await;
        let usable = tx.execute_unprepared("SELECT 1").await;
        if usable.is_ok() {
            tx.commit().await.unwrap();
            guard.release().await.unwrap();
        } else {
            drop(tx);
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "polled {polls} times");
        }
        observer.assert_free(&outer, "the release").await;
        if let Some(waited) = waited {
            assert!(!waited.unwrap());
            assert!(usable.is_ok());
            return;
        }
    }
    panic!("the wait does not complete");
}
