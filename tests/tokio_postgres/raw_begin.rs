//! A transaction that the application began as plain text, which the client does not see.

use advisory_locking::{AsyncAdvisoryLocking, LockErrorKind, LockOptions};
use testkit::observer::Observe;
use testkit::server::{connect as observer, fresh_key, fresh_name, kind_of};

use crate::open::{Error, connect};

#[tokio::test]
async fn raw_begin_refuses_a_transaction_level_lock() {
    let mut client = connect().await;
    client.batch_execute("BEGIN").await.unwrap();
    let refused = client.acquire_advisory_xact_lock(fresh_key(), LockOptions::no_wait());
    assert_eq!(
        kind_of(refused.await),
        Some(LockErrorKind::NotInTransaction)
    );
    client.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn release_in_a_raw_transaction_is_refused() {
    let (key, mut observer) = (fresh_key(), observer());
    let mut client = connect().await;
    client.batch_execute("BEGIN").await.unwrap();
    let guard = client.acquire_advisory_lock(&key, LockOptions::no_wait());
    let released = guard.await.unwrap().release().await;
    assert_eq!(kind_of(released), Some(LockErrorKind::TransactionLeftOpen));
    observer.wait_until_free(&key);
    assert!(client.is_closed());
}

/// A second `BEGIN` only warns. So the commit of the crate would end the application's transaction.
#[tokio::test]
async fn body_in_a_raw_transaction_does_not_run() {
    let (key, table, mut observer) = (fresh_key(), fresh_name(), observer());
    observer.run(&format!("CREATE TABLE {table} (number int4)"));
    for statement in [
        format!("INSERT INTO {table} VALUES (1)"),
        "SELECT".to_owned(),
        String::new(),
    ] {
        let mut client = connect().await;
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(&statement).await.unwrap();
        let failed: Result<(), Error> = client
            .with_advisory_xact_lock(&key, LockOptions::no_wait(), async |_| {
                panic!("the body runs")
            })
            .await;
        let error = failed.unwrap_err();
        let error = advisory_locking::LockError::find(&*error).expect("a lock error");
        assert_eq!(error.kind(), LockErrorKind::Database);
        assert!(client.is_closed());
        observer.assert_free(&key, "the end of the session").await;
    }
    assert_eq!(
        observer.number(&format!("(SELECT count(*) FROM {table})")),
        0
    );
    observer.run(&format!("DROP TABLE {table}"));
}
