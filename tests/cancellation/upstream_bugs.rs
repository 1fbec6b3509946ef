//! Defects of the pool libraries that the adapters work around. A test that fails here names the
//! code that can be removed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use advisory_locking::{AsyncAdvisoryLocking, LockOptions};
use diesel::connection::TransactionManagerStatus;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key, url};

use crate::adapters::connect_async;
use crate::pools::{Mobc, begin, open, pid};

type Manager = AsyncDieselConnectionManager<AsyncPgConnection>;

fn manager() -> Manager {
    Manager::new(url())
}

fn status(conn: &mut AsyncPgConnection) -> &mut TransactionManagerStatus {
    AnsiTransactionManager::transaction_manager_status_mut(conn)
}

/// Returns `true` if a drop on a thread without a runtime panics.
fn panics_without_runtime<T: Send>(value: T) -> bool {
    let dropping = || catch_unwind(AssertUnwindSafe(|| drop(value))).is_err();
    thread::scope(|scope| scope.spawn(dropping).join().unwrap())
}

#[tokio::test]
async fn diesel_async_inverts_the_check_of_mobc() {
    use ::mobc::Manager as _;

    let mut conn = connect_async(&url()).await;
    let works = manager().validate(&mut conn);
    status(&mut conn).set_in_error();
    let broken = manager().validate(&mut conn);
    assert_eq!(
        (works, broken),
        (false, true),
        "diesel-async's check for mobc has changed. If it is (true, false) now: require that release, set REUSES_CONNECTIONS for Mobc in \
         tests/cancellation/pools.rs, leave only the check for a runtime in `return_to_pool` of backends/mobc.rs, and take the remark out of \
         its page, README.md and feature-matrix.md"
    );
}

#[tokio::test]
async fn mobc_cannot_take_a_connection_back_without_a_runtime() {
    let conn = open::<Mobc>().await.get().await.unwrap();
    assert!(
        panics_without_runtime(conn),
        "mobc takes connections back without a runtime now: require that release, and in backends/mobc.rs leave out `RuntimeBound`"
    );
}

#[tokio::test]
async fn bb8_cannot_replace_a_connection_without_a_runtime() {
    let pool: bb8::Pool<AsyncPgConnection> = bb8::Pool::builder()
        .max_size(1)
        .min_idle(1)
        .build(manager())
        .await
        .unwrap();
    let mut conn = pool.get_owned().await.unwrap();
    status(&mut conn).set_in_error();
    assert!(
        panics_without_runtime(conn),
        "bb8 needs no runtime to replace a connection now: require that release, and in backends/bb8.rs leave out `RuntimeBound`"
    );
}

/// A connection of the pool's own `get` is returned broken; mobc's own check discards it.
#[tokio::test]
async fn mobc_checks_a_connection_of_its_own_get() {
    let pool = ::mobc::Pool::builder().max_open(1).build(manager());
    let (mut observer, key) = (connect(), fresh_key());
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
