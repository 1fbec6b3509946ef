//! Transactions of a body on SeaORM's proxy, whose feature does not compile together with
//! `sqlx-sqlite` (seen with SeaORM 2.0.4). So `scripts/check-proxy` runs this program in a package
//! of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use advisory_locking::backends::sea_orm::PinnedConnection;
use advisory_locking::{AsyncPooledAdvisoryLocking, LockError, LockErrorKind, LockOptions};
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, ProxyDatabaseTrait,
    ProxyExecResult, ProxyRow, Statement, TransactionTrait,
};
use tokio::task::yield_now;

const NO_WAIT: LockOptions = LockOptions::no_wait();

/// Calls that a proxy has received.
type Calls = Arc<Mutex<Vec<String>>>;

/// Proxy that records its calls. Each async one is pending once.
#[derive(Debug)]
struct Recorder(Calls);

impl Recorder {
    fn record(&self, call: impl Into<String>) {
        self.0.lock().unwrap().push(call.into());
    }

    /// Records a call that ends a transaction, if it is not dropped before its reply.
    async fn end(&self, call: &str) {
        yield_now().await;
        self.record(call);
    }
}

#[async_trait]
impl ProxyDatabaseTrait for Recorder {
    async fn query(&self, statement: Statement) -> Result<Vec<ProxyRow>, DbErr> {
        self.record(statement.sql);
        yield_now().await;
        Ok(Vec::new())
    }

    async fn execute(&self, statement: Statement) -> Result<ProxyExecResult, DbErr> {
        self.record(statement.sql);
        yield_now().await;
        Ok(ProxyExecResult::default())
    }

    async fn begin(&self) {
        self.record("BEGIN");
        yield_now().await;
    }

    async fn commit(&self) {
        self.end("COMMIT").await;
    }

    async fn rollback(&self) {
        self.end("ROLLBACK").await;
    }

    fn start_rollback(&self) {
        self.record("ROLLBACK at once");
    }
}

async fn proxy(backend: DbBackend) -> (DatabaseConnection, Calls) {
    let calls = Calls::default();
    let recorder: Box<dyn ProxyDatabaseTrait> = Box::new(Recorder(Arc::clone(&calls)));
    let db = Database::connect_proxy(backend, Arc::new(recorder)).await;
    (db.unwrap(), calls)
}

fn take(calls: &Calls) -> Vec<String> {
    std::mem::take(&mut *calls.lock().unwrap())
}

/// Polls a future and drops it once it was pending `times` times. Returns whether it was ready
/// before.
async fn poll_times(times: usize, future: impl Future) -> bool {
    let (mut future, mut left) = (pin!(future), times);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending => {
            left -= 1;
            if left == 0 {
                Poll::Ready(false)
            } else {
                Poll::Pending
            }
        }
    })
    .await
}

/// Asserts that each transaction has ended once, before the calls that follow it.
fn assert_ended(calls: &[String], what: &str) {
    let mut open = 0_i32;
    for call in calls {
        match call.as_str() {
            "BEGIN" => open += 1,
            "COMMIT" | "ROLLBACK" | "ROLLBACK at once" => open -= 1,
            "UPDATE last" => assert_eq!(open, 0, "{what}: {calls:?}"),
            _ => {}
        }
        assert!(open >= 0, "{what}: {calls:?}");
    }
    assert_eq!(open, 0, "{what}: {calls:?}");
}

#[tokio::test]
async fn dropped_transaction_is_rolled_back_before_the_next_statement() {
    let (db, calls) = proxy(DbBackend::Sqlite).await;
    db.with_advisory_lock("key", NO_WAIT, async |db| {
        let tx = db.begin().await?;
        tx.execute_unprepared("UPDATE a").await?;
        drop(tx.begin().await?);
        drop(tx);
        db.execute_unprepared("UPDATE b").await
    })
    .await
    .unwrap();
    let ended = [
        "BEGIN", "UPDATE a", "BEGIN", "ROLLBACK", "ROLLBACK", "UPDATE b",
    ];
    assert_eq!(take(&calls), ended);
}

#[tokio::test]
async fn scope_commits_or_rolls_back_on_a_proxy() {
    let (db, calls) = proxy(DbBackend::Sqlite).await;
    for (succeeds, end) in [(true, "COMMIT"), (false, "ROLLBACK")] {
        let scope = db.with_advisory_xact_lock("key", NO_WAIT, async |db| {
            db.execute_unprepared("UPDATE a").await?;
            let nested = db.begin().await?;
            nested.commit().await?;
            if succeeds {
                Ok(())
            } else {
                Err(DbErr::Custom("failed".to_owned()))
            }
        });
        assert_eq!(scope.await.is_ok(), succeeds);
        assert_eq!(take(&calls), ["BEGIN", "UPDATE a", "BEGIN", "COMMIT", end]);
    }
}

/// Uses a transaction in each way in which it may end.
async fn use_transactions(db: &PinnedConnection) -> Result<(), DbErr> {
    let tx = db.begin().await?;
    tx.execute_unprepared("UPDATE a").await?;
    tx.begin().await?.commit().await?;
    tx.begin().await?.rollback().await?;
    tx.commit().await?;
    db.begin().await?.rollback().await
}

/// The body goes on after the drop, and its next statement is outside all transactions.
#[tokio::test]
async fn statement_after_a_drop_at_any_point_is_in_no_transaction() {
    for times in 1.. {
        let (db, calls) = proxy(DbBackend::Sqlite).await;
        let body = async |db: &mut PinnedConnection| {
            let done = poll_times(times, use_transactions(db)).await;
            db.execute_unprepared("UPDATE last").await?;
            Ok::<_, DbErr>(done)
        };
        let done = db.with_advisory_lock("key", NO_WAIT, body).await.unwrap();
        assert_ended(&take(&calls), &format!("dropped at {times}"));
        if done {
            break;
        }
    }
}

/// The whole call is dropped, with its connection.
#[tokio::test]
async fn call_dropped_at_any_point_leaves_no_transaction() {
    for times in 1.. {
        let (db, calls) = proxy(DbBackend::Sqlite).await;
        let body = async |db: &mut PinnedConnection| use_transactions(db).await;
        let done = poll_times(times, db.with_advisory_xact_lock("key", NO_WAIT, body)).await;
        // A clean-up task runs in this thread.
        for _ in 0..20 {
            yield_now().await;
        }
        assert_ended(&take(&calls), &format!("dropped at {times}"));
        if done {
            break;
        }
    }
}

#[tokio::test]
async fn proxy_of_another_database_is_refused() {
    for backend in [DbBackend::Postgres, DbBackend::MySql] {
        let (db, calls) = proxy(backend).await;
        let body = async |_: &mut PinnedConnection| Ok::<_, LockError>(());
        let refused = db.with_advisory_lock("key", NO_WAIT, body).await;
        assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Unsupported);
        assert_eq!(take(&calls), [""; 0]);
    }
}
