//! Transaction-level locks in a `DatabaseTransaction`, and in one that a body began.

use std::time::{Duration, Instant};

use advisory_locking::{
    AsyncPooledAdvisoryLocking, AsyncTransactionAdvisoryLocking, LockErrorKind, LockOptions,
    OnMissingLock, WaitStrategy,
};
use sea_orm::{ConnectionTrait, DbErr, TransactionTrait};

use crate::observer::{Gate, Observer, fresh_key};
use crate::open::{NO_WAIT, number, postgres, sqlite};

const LIMIT: Duration = Duration::from_secs(30);

fn block(limit: Duration) -> LockOptions {
    LockOptions::wait_up_to(limit).strategy(WaitStrategy::Block)
}

/// On the transactions of both kinds: SeaORM's own, and one that a body began.
macro_rules! on_both {
    ($($name:ident, |$db:ident, $tx:ident, $observer:ident| $test:block)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn of_sea_orm() {
                let ($db, mut $observer) = (postgres(4).await, Observer::new());
                let $tx = $db.begin().await.unwrap();
                $test
            }

            #[tokio::test]
            async fn of_a_body() {
                let ($db, mut $observer) = (postgres(4).await, Observer::new());
                let guard = $db.acquire_advisory_lock(fresh_key(), NO_WAIT).await.unwrap();
                let $tx = guard.begin().await.unwrap();
                $test
            }
        }
    )*};
}

on_both! {
    it_is_held_until_the_transaction_ends, |db, tx, observer| {
        let key = fresh_key();
        tx.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
        assert!(tx.try_acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap(), "the same session may again");
        assert_eq!(observer.shown(&key).len(), 1);
        let other = db.begin().await.unwrap();
        assert!(!other.try_acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap());
        let refused = other.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap_err();
        assert_eq!(refused.kind(), LockErrorKind::HeldElsewhere);
        assert!(db.try_acquire_advisory_lock(&key, NO_WAIT).await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert!(other.try_acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap());
        drop(other);
        observer.assert_free(&key, "both transactions").await;
    }

    it_goes_with_a_savepoint_that_is_rolled_back, |db, tx, observer| {
        let (outer, inner) = (fresh_key(), fresh_key());
        tx.acquire_advisory_xact_lock(&outer, NO_WAIT).await.unwrap();
        let nested = tx.begin().await.unwrap();
        nested.acquire_advisory_xact_lock(&inner, NO_WAIT).await.unwrap();
        nested.rollback().await.unwrap();
        observer.assert_free(&inner, "rolling back to the savepoint").await;
        assert_eq!(observer.shown(&outer).len(), 1);
        tx.rollback().await.unwrap();
        observer.assert_free(&outer, "the rollback").await;
        drop(db);
    }

    it_waits_and_the_transaction_stays_usable, |db, tx, observer| {
        let key = fresh_key();
        let holder = db.begin().await.unwrap();
        holder.acquire_advisory_xact_lock(&key, NO_WAIT).await.unwrap();
        tx.execute_unprepared("SET LOCAL lock_timeout = '7s'; SET LOCAL statement_timeout = '90s'").await.unwrap();
        // Longer than one stay on the server, so that it is asked for more than once.
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
            observer.wait_until(&key, |shown| shown.len() == 2, "nobody waits").await;
            // Past the first stay.
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
            observer.wait_until(&key, |shown| shown.len() == 2, "nobody waits").await;
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
        // Without a limit, or it would leave by itself.
        let forever = LockOptions::wait_forever().strategy(WaitStrategy::Block);
        tokio::select! {
            _ = tx.acquire_advisory_xact_lock(&key, forever) => panic!("granted though it is held"),
            () = observer.wait_until(&key, |shown| shown.len() == 2, "nobody waits") => {}
        }
        observer.wait_until(&key, |shown| shown.len() == 1, "the dropped wait is queued").await;
        drop(tx);
        holder.commit().await.unwrap();
        observer.assert_free(&key, "the commit").await;
        // Nothing is missing from the pool.
        let all: Vec<_> = futures_util::future::join_all((0..3).map(|_| db.begin())).await;
        assert!(all.into_iter().all(|begun| begun.is_ok()));
    }
}

#[tokio::test]
async fn an_aborted_transaction_takes_no_lock() {
    let db = postgres(1).await;
    let tx = db.begin().await.unwrap();
    tx.execute_unprepared("SELECT 1/0").await.unwrap_err();
    for options in [NO_WAIT, block(LIMIT)] {
        let refused = tx
            .acquire_advisory_xact_lock("key", options)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), LockErrorKind::TransactionAborted);
    }
}

#[tokio::test]
async fn a_transaction_that_is_over_takes_no_lock() {
    let db = postgres(1).await;
    let guard = db
        .acquire_advisory_lock(fresh_key(), NO_WAIT)
        .await
        .unwrap();
    let outer = guard.begin().await.unwrap();
    let inner = outer.begin().await.unwrap();
    outer.commit().await.unwrap();
    let key = fresh_key();
    let refused = inner.acquire_advisory_xact_lock(&key, NO_WAIT).await;
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::NotInTransaction);
    assert!(Observer::new().shown(&key).is_empty());
    drop(inner);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_session_that_ends_in_the_transaction_is_reported() {
    let (db, mut observer, key) = (postgres(2).await, Observer::new(), fresh_key());
    let tx = db.begin().await.unwrap();
    let pid = number(&tx, "SELECT pg_backend_pid()::int8").await;
    let killer = async {
        db.execute_unprepared(&format!("SELECT pg_terminate_backend({pid})"))
            .await
            .unwrap();
    };
    killer.await;
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
async fn on_sqlite_it_is_the_no_op() {
    let db = sqlite().await;
    let strict = NO_WAIT.on_missing_lock(OnMissingLock::Error);
    let tx = db.begin().await.unwrap();
    tx.acquire_advisory_xact_lock("key", NO_WAIT).await.unwrap();
    assert!(
        tx.try_acquire_advisory_xact_lock("key", NO_WAIT)
            .await
            .unwrap()
    );
    let refused = tx
        .acquire_advisory_xact_lock("key", strict)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::NoMutualExclusion);
    let wrong = LockOptions::no_wait().strategy(WaitStrategy::Block);
    let refused = tx
        .acquire_advisory_xact_lock("key", wrong)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::InvalidOptions);
    tx.rollback().await.unwrap();
    db.with_advisory_lock("key", NO_WAIT, async |db| {
        let tx = db.begin().await?;
        tx.acquire_advisory_xact_lock("other", NO_WAIT).await?;
        tx.commit().await
    })
    .await
    .unwrap();
}

/// `?` in a function that returns SeaORM's errors.
#[tokio::test]
async fn its_errors_are_sea_orms() {
    async fn refused(
        db: &impl TransactionTrait<Transaction: AsyncTransactionAdvisoryLocking>,
    ) -> Result<(), DbErr> {
        let options = LockOptions::no_wait().interval(Duration::from_millis(1));
        let tx = db.begin().await?;
        tx.acquire_advisory_xact_lock("key", options).await?;
        Ok(())
    }
    let error = refused(&sqlite().await).await.unwrap_err();
    assert!(matches!(error, DbErr::TryIntoErr { .. }));
}

/// Between a wait that ran out and its rollback the transaction is aborted, and nobody else may come in.
#[tokio::test]
async fn two_waits_in_one_transaction_do_not_meet_in_its_aborted_moment() {
    let (db, mut observer) = (postgres(3).await, Observer::new());
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

/// Nothing of it was sent: it only waited for its turn on the connection.
#[tokio::test]
async fn a_call_dropped_before_its_turn_costs_nobody_the_connection() {
    let (db, mut observer) = (postgres(1).await, Observer::new());
    let (key, outer, mut gate) = (fresh_key(), fresh_key(), Gate::closed());
    let guard = db.acquire_advisory_lock(&outer, NO_WAIT).await.unwrap();
    let tx = guard.begin().await.unwrap();
    let at_the_gate = gate.statement();
    let impatient = async {
        tokio::select! {
            _ = tx.acquire_advisory_xact_lock(&key, NO_WAIT) => panic!("it overtook the statement"),
            () = gate.reached(&mut observer) => {}
        }
        gate.open();
    };
    let (waited, ()) = tokio::join!(tx.execute_unprepared(&at_the_gate), impatient);
    waited.unwrap();
    tx.commit().await.unwrap();
    guard.release().await.unwrap();
    observer.assert_free(&outer, "the release").await;
}
