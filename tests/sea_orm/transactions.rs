//! Transactions that a body begins on its handle.

use std::time::Duration;

use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::{AsyncPooledAdvisoryLocking, LockError, LockErrorKind};
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DbErr, IsolationLevel, TransactionOptions,
    TransactionTrait,
};
use testkit::fake_server::{FakeServer, Rule};
use testkit::gate::Gate;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key};

use crate::open::{NO_WAIT, number, poll_times, postgres, sqlite};

const TABLE: &str = "CREATE TEMPORARY TABLE written (number INTEGER)";
const WRITE: &str = "INSERT INTO written VALUES (1)";

async fn count(db: &impl ConnectionTrait) -> i64 {
    number(db, "SELECT COUNT(*) FROM written").await
}

/// Runs a body under a lock with a table to write to, and asserts that the connection is clean
/// afterwards.
async fn with_lock(
    db: &DatabaseConnection,
    body: impl AsyncFnOnce(&mut PinnedConnection) -> Result<(), DbErr>,
) {
    let (mut observer, key) = (connect(), fresh_key());
    let mut guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    guard.execute_unprepared(TABLE).await.unwrap();
    body(&mut guard).await.unwrap();
    guard.release().await.unwrap();
    observer.assert_free(&key, "the body").await;
    let again = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    again.execute_unprepared("DISCARD TEMP").await.unwrap();
    again.release().await.unwrap();
}

#[tokio::test]
async fn options_reach_the_server() {
    with_lock(&postgres(1).await, async |db| {
        let shown = async |tx: &_, setting: &str| {
            let sql = format!("SELECT CASE current_setting('{setting}') WHEN 'serializable' THEN 3 WHEN 'repeatable read' THEN 2 WHEN 'on' THEN 1 ELSE 0 END::int8");
            number(tx, &sql).await
        };
        let tx = db
            .begin_with_config(Some(IsolationLevel::Serializable), Some(AccessMode::ReadOnly))
            .await?;
        assert_eq!(shown(&tx, "transaction_isolation").await, 3);
        assert_eq!(shown(&tx, "transaction_read_only").await, 1);
        tx.rollback().await?;

        let repeatable = TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            ..TransactionOptions::default()
        };
        let tx = db.begin_with_options(repeatable).await?;
        assert_eq!(shown(&tx, "transaction_isolation").await, 2);
        assert_eq!(shown(&tx, "transaction_read_only").await, 0);
        // The server makes a savepoint read-only, but does not change its isolation level.
        let inner = tx.begin_with_config(None, Some(AccessMode::ReadOnly)).await?;
        assert_eq!(shown(&inner, "transaction_read_only").await, 1);
        inner.rollback().await?;
        tx.begin_with_config(Some(IsolationLevel::Serializable), None).await.unwrap_err();
        assert_eq!(shown(&tx, "transaction_read_only").await, 0, "the outer transaction continues");
        tx.commit().await?;

        let tx = db.begin().await?;
        assert_eq!(shown(&tx, "transaction_isolation").await, 0, "the options do not outlive their transaction");
        tx.commit().await
    })
    .await;
}

#[tokio::test]
async fn a_transaction_dropped_with_a_statement_is_rolled_back() {
    let (mut observer, mut gate) = (connect(), Gate::closed());
    with_lock(&postgres(1).await, async |db| {
        let tx = db.begin().await?;
        tx.execute_unprepared(WRITE).await?;
        let at_the_gate = gate.statement();
        gate.drop_there(&mut observer, tx.execute_unprepared(&at_the_gate))
            .await;
        drop(tx);
        gate.open();
        assert_eq!(count(db).await, 0);
        Ok(())
    })
    .await;
}

/// The begin is dropped at each of its pending points.
#[tokio::test]
async fn a_begin_dropped_in_flight_leaves_no_transaction() {
    with_lock(&postgres(1).await, async |db| {
        for polls in 1..20 {
            let begun = poll_times(polls, db.begin()).await;
            let done = begun.is_some();
            drop(begun);
            db.execute_unprepared(WRITE).await?;
            let tx = db.begin().await?;
            tx.rollback().await?;
            assert_eq!(
                count(db).await,
                1,
                "polled {polls} times: written outside a transaction"
            );
            db.execute_unprepared("DELETE FROM written").await?;
            if done {
                return Ok(());
            }
        }
        panic!("the begin does not complete");
    })
    .await;
}

#[tokio::test]
async fn a_savepoint_dropped_in_flight_leaves_its_transaction() {
    with_lock(&postgres(1).await, async |db| {
        for polls in 1..20 {
            let tx = db.begin().await?;
            tx.execute_unprepared(WRITE).await?;
            let begun = poll_times(polls, tx.begin()).await;
            let done = begun.is_some();
            drop(begun);
            assert_eq!(count(&tx).await, 1, "polled {polls} times");
            tx.commit().await?;
            assert_eq!(
                count(db).await,
                1,
                "polled {polls} times: the outer transaction commits"
            );
            db.execute_unprepared("DELETE FROM written").await?;
            if done {
                return Ok(());
            }
        }
        panic!("the begin does not complete");
    })
    .await;
}

#[tokio::test]
async fn a_commit_dropped_in_flight_ends_the_transaction() {
    for aborted in [false, true] {
        with_lock(&postgres(1).await, async |db| {
            for polls in 1..20 {
                let tx = db.begin().await?;
                tx.execute_unprepared(WRITE).await?;
                let inner = tx.begin().await?;
                inner.execute_unprepared(WRITE).await?;
                if aborted {
                    inner.execute_unprepared("SELECT 1/0").await.unwrap_err();
                }
                let inner_done = poll_times(polls, inner.commit()).await;
                let inside = count(&tx).await;
                assert_eq!(
                    inside,
                    if aborted { 1 } else { 2 },
                    "polled {polls} times: savepoint"
                );
                if aborted {
                    tx.execute_unprepared("SELECT 1/0").await.unwrap_err();
                }
                let done = poll_times(polls, tx.commit()).await;
                let left = count(db).await;
                assert_eq!(left, if aborted { 0 } else { 2 }, "polled {polls} times");
                db.execute_unprepared("DELETE FROM written").await?;
                if let (Some(inner_done), Some(done)) = (inner_done, done) {
                    assert_eq!([inner_done.is_err(), done.is_err()], [aborted; 2]);
                    return Ok(());
                }
            }
            panic!("the commit does not complete");
        })
        .await;
    }
}

#[tokio::test]
async fn a_rollback_dropped_in_flight_ends_the_transaction() {
    with_lock(&postgres(1).await, async |db| {
        for polls in 1..20 {
            let tx = db.begin().await?;
            let inner = tx.begin().await?;
            inner.execute_unprepared(WRITE).await?;
            let inner_done = poll_times(polls, inner.rollback()).await;
            assert_eq!(count(&tx).await, 0, "polled {polls} times: savepoint");
            tx.execute_unprepared(WRITE).await?;
            let done = poll_times(polls, tx.rollback()).await;
            assert_eq!(count(db).await, 0, "polled {polls} times");
            if inner_done.is_some() && done.is_some() {
                return Ok(());
            }
        }
        panic!("the rollback does not complete");
    })
    .await;
}

/// sqlx rolls back and returns `Ok`.
#[tokio::test]
async fn the_commit_of_an_aborted_transaction_is_an_error() {
    with_lock(&postgres(1).await, async |db| {
        let tx = db.begin().await?;
        tx.execute_unprepared(WRITE).await?;
        tx.execute_unprepared("SELECT 1/0").await.unwrap_err();
        tx.commit().await.unwrap_err();
        assert_eq!(count(db).await, 0);
        db.execute_unprepared(WRITE).await?;
        assert_eq!(count(db).await, 1, "the transaction has ended");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_the_server_rejects_is_an_error() {
    with_lock(&postgres(1).await, async |db| {
        db.execute_unprepared(
            "CREATE TEMPORARY TABLE once (id INTEGER UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        )
        .await?;
        let tx = db.begin().await?;
        tx.execute_unprepared("INSERT INTO once VALUES (1), (1)")
            .await?;
        tx.commit().await.unwrap_err();
        assert_eq!(number(db, "SELECT COUNT(*) FROM once").await, 0);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn nested_transactions_end_with_the_outer_one() {
    with_lock(&postgres(1).await, async |db| {
        let outer = db.begin().await?;
        let inner = outer.begin().await?;
        inner.execute_unprepared(WRITE).await?;
        outer.commit().await?;
        inner.execute_unprepared(WRITE).await.unwrap_err();
        // A new transaction at the same level is a different one.
        let outer = db.begin().await?;
        let other = outer.begin().await?;
        inner.execute_unprepared(WRITE).await.unwrap_err();
        inner.begin().await.unwrap_err();
        inner.commit().await.unwrap_err();
        other.commit().await?;
        outer.rollback().await?;
        assert_eq!(
            count(db).await,
            0,
            "the inner transaction was not committed"
        );
        Ok(())
    })
    .await;
}

/// The rollback does not wait for the next statement on the connection.
#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_soon() {
    let (db, mut observer, key, inner) = (postgres(1).await, connect(), fresh_key(), fresh_key());
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let tx = guard.begin().await.unwrap();
    let number = match inner.raw() {
        advisory_locking::RawLockKey::Single(number) => number,
        advisory_locking::RawLockKey::Pair(..) => panic!("a text key is one number"),
    };
    tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({number})"))
        .await
        .unwrap();
    assert_eq!(observer.lock_entries(&inner).len(), 1);
    drop(tx);
    observer
        .assert_free(&inner, "dropping the transaction")
        .await;
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_outlives_the_body_is_reported() {
    for db in [postgres(1).await, sqlite().await] {
        let mut kept = None;
        let result = db
            .with_advisory_xact_lock(fresh_key(), NO_WAIT, async |db| {
                let begun = db.begin().await;
                kept =
                    Some(begun.map_err(|error| {
                        LockError::new(LockErrorKind::Database).with_source(error)
                    })?);
                Ok::<_, LockError>(())
            })
            .await;
        assert_eq!(
            result.unwrap_err().kind(),
            LockErrorKind::TransactionLeftOpen
        );
        drop(kept);
        tokio::time::timeout(Duration::from_secs(60), db.execute_unprepared("SELECT 1"))
            .await
            .unwrap()
            .unwrap();
    }
}

/// Polls `begin` on a transaction until it is in flight.
macro_rules! in_flight {
    ($transaction:ident) => {
        loop {
            // With a fresh coop budget, so that a pending poll waits for the server.
            tokio::task::yield_now().await;
            let mut beginning = Box::pin($transaction.begin());
            let begun = std::future::poll_fn(|context| {
                std::task::Poll::Ready(match beginning.as_mut().poll(context) {
                    std::task::Poll::Ready(begun) => Some(begun),
                    std::task::Poll::Pending => None,
                })
            });
            match begun.await {
                None => break beginning,
                // The reply arrived before the first poll read the socket.
                Some(begun) => begun?.rollback().await?,
            }
        }
    };
}

#[tokio::test]
async fn a_transaction_dropped_while_another_begins_in_it() {
    with_lock(&postgres(1).await, async |db| {
        for drop_the_newest in [false, true] {
            let outer = db.begin().await?;
            outer.execute_unprepared(WRITE).await?;
            let inner = outer.begin().await?;
            inner.execute_unprepared(WRITE).await?;
            let beginning = in_flight!(inner);
            drop(beginning);
            let newest = inner.begin().await;
            drop(inner);
            if drop_the_newest {
                drop(newest);
            } else if let Ok(newest) = newest {
                newest.execute_unprepared(WRITE).await.unwrap_err();
                newest.commit().await.unwrap_err();
            }
            assert_eq!(count(&outer).await, 1);
            outer.commit().await?;
            assert_eq!(count(db).await, 1);
            db.execute_unprepared("DELETE FROM written").await?;
        }
        Ok(())
    })
    .await;
}

/// The begin of a savepoint completes after the outer transaction was dropped.
#[tokio::test]
async fn a_begin_fails_if_its_outer_transaction_is_dropped() {
    with_lock(&postgres(1).await, async |db| {
        let outer = db.begin().await?;
        outer.execute_unprepared(WRITE).await?;
        let inner = outer.begin().await?;
        let beginning = in_flight!(db);
        drop(inner);
        let newest = beginning.await;
        assert!(newest.is_err(), "its outer transaction was dropped");
        assert_eq!(count(&outer).await, 1);
        outer.commit().await?;
        assert_eq!(count(db).await, 1);
        Ok(())
    })
    .await;
}

/// Another thread drops the inner transaction at a random point of the outer one's commit. The
/// owner of the inner transaction has not committed it, so it is rolled back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inner_transaction_dropped_at_commit_is_rolled_back() {
    use std::sync::atomic::{AtomicBool, Ordering};

    static READY: AtomicBool = AtomicBool::new(false);
    static GO: AtomicBool = AtomicBool::new(false);
    with_lock(&postgres(1).await, async |db| {
        for round in 0..1_200 {
            let outer = db.begin().await?;
            let inner = outer.begin().await?;
            inner.execute_unprepared(WRITE).await?;
            let dropper = std::thread::spawn(move || {
                READY.store(true, Ordering::SeqCst);
                while !GO.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
                for _ in 0..round % 400 {
                    std::hint::spin_loop();
                }
                drop(inner);
            });
            while !READY.swap(false, Ordering::SeqCst) {
                std::thread::yield_now();
            }
            GO.store(true, Ordering::SeqCst);
            outer.commit().await?;
            dropper.join().unwrap();
            GO.store(false, Ordering::SeqCst);
        }
        assert_eq!(count(db).await, 0);
        Ok(())
    })
    .await;
}

/// Starts a server that sends the end of the reply to a failed statement late.
fn late_ready() -> FakeServer {
    let pause = Duration::from_millis(20);
    FakeServer::start([Rule::DelayReadyAfterError { pause }])
}

/// The savepoint exists, and its transaction is aborted. A savepoint cannot change the isolation.
#[tokio::test]
async fn a_savepoint_with_rejected_options_leaves_its_transaction() {
    let late = late_ready();
    for db in [postgres(1).await, crate::open::connect(late.url(), 1).await] {
        with_lock(&db, async |db| {
            for polls in 1..40 {
                let tx = db.begin().await?;
                tx.execute_unprepared(WRITE).await?;
                let begun = poll_times(
                    polls,
                    tx.begin_with_config(Some(IsolationLevel::Serializable), None),
                )
                .await;
                let done = begun.is_some();
                assert!(begun.is_none_or(|begun| begun.is_err()));
                assert_eq!(count(&tx).await, 1, "polled {polls} times");
                tx.commit().await?;
                assert_eq!(count(db).await, 1, "polled {polls} times");
                db.execute_unprepared("DELETE FROM written").await?;
                if done {
                    return Ok(());
                }
            }
            panic!("the begin does not complete");
        })
        .await;
    }
}

/// The rollback is sent after the end of the reply to the failed statement.
#[tokio::test]
async fn a_rollback_dropped_before_it_is_sent_runs_later() {
    let late = late_ready();
    let db = crate::open::connect(late.url(), 1).await;
    with_lock(&db, async |db| {
        for polls in 1..40 {
            let tx = db.begin().await?;
            tx.execute_unprepared(WRITE).await?;
            tx.execute_unprepared("SELECT 1/0").await.unwrap_err();
            drop(tx);
            let next = poll_times(polls, db.execute_unprepared("SELECT 1")).await;
            assert_eq!(count(db).await, 0, "polled {polls} times");
            if next.is_some() {
                return Ok(());
            }
        }
        panic!("the statement does not complete");
    })
    .await;
}

/// The session may still be in the transaction, so it cannot release the lock.
#[tokio::test]
async fn a_failed_rollback_loses_the_lock() {
    let (db, mut observer, key) = (postgres(1).await, connect(), fresh_key());
    let guard = db.acquire_advisory_lock(&key, NO_WAIT).await.unwrap();
    let tx = guard.begin().await.unwrap();
    let inner = tx.begin().await.unwrap();
    let raw = inner.execute_unprepared("RELEASE SAVEPOINT advisory_locking_1");
    raw.await.unwrap();
    inner.rollback().await.unwrap_err();
    tx.execute_unprepared("SELECT 1").await.unwrap_err();
    drop(tx);
    let released = guard.release().await.unwrap_err();
    assert_eq!(released.kind(), LockErrorKind::Lost);
    observer.assert_free(&key, "the rollback").await;
    db.execute_unprepared("SAVEPOINT outside")
        .await
        .expect_err("the pooled connection is in a transaction");
}

/// This crate does not see a transaction that was begun as text, so it cannot roll it back.
#[tokio::test]
async fn a_scope_in_an_invisible_aborted_transaction_fails() {
    use advisory_locking::AsyncAdvisoryLocking;

    let (db, mut observer, keys) = (postgres(1).await, connect(), [fresh_key(), fresh_key()]);
    let mut scope = None;
    let outer = db
        .with_advisory_lock(&keys[0], NO_WAIT, async |db| {
            db.execute_unprepared("BEGIN").await.unwrap();
            db.execute_unprepared("SELECT 1/0").await.unwrap_err();
            let body = async |_: &mut PinnedConnection| Ok::<_, LockError>(());
            let failed = db.with_advisory_xact_lock(&keys[1], NO_WAIT, body).await;
            scope = Some(failed.unwrap_err().kind());
            Ok::<_, LockError>(())
        })
        .await;
    assert_eq!(scope, Some(LockErrorKind::Database));
    assert_eq!(outer.unwrap_err().kind(), LockErrorKind::Lost);
    for key in &keys {
        observer.assert_free(key, "the end of the session").await;
    }
}
