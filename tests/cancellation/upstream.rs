//! What the pools do today that we work round. A test that fails here says what can be simplified.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use advisory_locking::{AsyncAdvisoryLocking, LockOptions};
use diesel::connection::TransactionManagerStatus;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};

use crate::adapters::connect;
use crate::observer::{Observer, database_url, fresh_key};
use crate::pools::{Mobc, begin, open, pid};

type Manager = AsyncDieselConnectionManager<AsyncPgConnection>;

fn manager() -> Manager {
    Manager::new(database_url())
}

fn status(conn: &mut AsyncPgConnection) -> &mut TransactionManagerStatus {
    AnsiTransactionManager::transaction_manager_status_mut(conn)
}

/// Whether a drop on a thread without a runtime panics.
fn panics_outside<T: Send>(value: T) -> bool {
    let dropping = || catch_unwind(AssertUnwindSafe(|| drop(value))).is_err();
    thread::scope(|scope| scope.spawn(dropping).join().unwrap())
}

#[tokio::test]
async fn diesel_async_tells_mobc_the_opposite() {
    use ::mobc::Manager as _;

    let mut conn = connect(&database_url()).await;
    let in_order = manager().validate(&mut conn);
    status(&mut conn).set_in_error();
    let broken = manager().validate(&mut conn);
    assert_eq!(
        (in_order, broken),
        (false, true),
        "diesel-async's check for mobc has changed. If it is (true, false) now: require that release, set KEEPS for Mobc in \
         tests/cancellation/pools.rs, leave only the check for a runtime in `return_to_pool` of backends/mobc.rs, and take the remark out of \
         its page, README.md and feature-matrix.md"
    );
}

#[tokio::test]
async fn mobc_takes_nothing_back_without_a_runtime() {
    let conn = open::<Mobc>().await.get().await.unwrap();
    assert!(
        panics_outside(conn),
        "mobc takes connections back without a runtime now: require that release, and in backends/mobc.rs leave out `RuntimeBound`"
    );
}

#[tokio::test]
async fn bb8_replaces_nothing_without_a_runtime() {
    let pool: bb8::Pool<AsyncPgConnection> = bb8::Pool::builder()
        .max_size(1)
        .min_idle(1)
        .build(manager())
        .await
        .unwrap();
    let mut conn = pool.get_owned().await.unwrap();
    status(&mut conn).set_in_error();
    assert!(
        panics_outside(conn),
        "bb8 needs no runtime to replace a connection now: require that release, and in backends/bb8.rs leave out `RuntimeBound`"
    );
}

/// What was not taken by our methods goes back broken, so it is mobc's own test that keeps it from the next user.
#[tokio::test]
async fn a_connection_that_mobc_was_asked_for_is_tested_before_the_next_use() {
    let pool = ::mobc::Pool::builder().max_open(1).build(manager());
    let (mut observer, key) = (Observer::new(), fresh_key());
    let mut conn = pool.get().await.unwrap();
    let before = pid(&mut conn).await;
    let mut guard = conn
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .await
        .unwrap();
    begin(&mut guard).await;
    drop(guard);
    drop(conn);
    observer.assert_free(&key, "a drop in a transaction").await;
    assert_ne!(pid(&mut pool.get().await.unwrap()).await, before);
}
