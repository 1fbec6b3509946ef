//! The limit of a call through a pool covers the checkout, on every pool.

use std::time::{Duration, Instant};

use ::sea_orm::{ConnectOptions, Database, DatabaseConnection};
use advisory_locking::{
    AsyncPooledAdvisoryLocking, LockError, LockErrorKind, PooledAdvisoryLocking,
};
use diesel::pg::PgConnection;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use testkit::server::{fresh_key, url};

use crate::actor_async::on_runtime;
use crate::cases::{block, no_wait, poll};

/// Timeout of the pools, far longer than the limits. Only a checkout that ignores its limit reaches
/// it.
const POOL_TIMEOUT: Duration = Duration::from_secs(20);
/// Limit of a call that finds no free connection.
const LIMIT: Duration = Duration::from_millis(150);

type R2d2 = diesel::r2d2::Pool<diesel::r2d2::ConnectionManager<PgConnection>>;
type Manager = AsyncDieselConnectionManager<AsyncPgConnection>;

fn r2d2() -> R2d2 {
    let manager = diesel::r2d2::ConnectionManager::new(url());
    R2d2::builder()
        .max_size(1)
        .connection_timeout(POOL_TIMEOUT)
        .build(manager)
        .unwrap()
}

async fn bb8() -> ::bb8::Pool<Manager> {
    ::bb8::Pool::builder()
        .max_size(1)
        .connection_timeout(POOL_TIMEOUT)
        .build(Manager::new(url()))
        .await
        .unwrap()
}

async fn deadpool() -> ::deadpool::managed::Pool<Manager> {
    ::deadpool::managed::Pool::builder(Manager::new(url()))
        .max_size(1)
        .wait_timeout(Some(POOL_TIMEOUT))
        .runtime(::deadpool::Runtime::Tokio1)
        .build()
        .unwrap()
}

async fn mobc() -> ::mobc::Pool<Manager> {
    ::mobc::Pool::builder()
        .max_open(1)
        .get_timeout(Some(POOL_TIMEOUT))
        .build(Manager::new(url()))
}

async fn sea_orm() -> DatabaseConnection {
    let mut options = ConnectOptions::new(url());
    options.max_connections(1).acquire_timeout(POOL_TIMEOUT);
    Database::connect(options).await.unwrap()
}

/// Asserts that a call failed at its limit, without a connection.
#[track_caller]
fn assert_no_connection<T>(result: Result<T, LockError>, began: Instant) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Pool);
    assert_eq!(error.limit(), Some(LIMIT));
    let waited = error.waited().unwrap();
    assert!(
        waited >= LIMIT && began.elapsed() < POOL_TIMEOUT,
        "{waited:?}"
    );
    let text = error.to_string();
    assert!(text.contains("limit 150ms, waited "), "{text}");
}

/// Makes a test of each case for blocking pools, and for async pools with `await`.
macro_rules! pools {
    ($($name:ident: $trait:ident $(, $await:ident)?;)*) => {$(
        mod $name {
            use super::*;

            /// The guard has the pool's only connection. Dropped checkouts leave it to the pool.
            #[test]
            fn limit_covers_the_checkout() {
                on_runtime(async {
                    let pool = super::$name()$(.$await)?;
                    let key = fresh_key();
                    let guard = $trait::acquire_advisory_lock(&pool, fresh_key(), no_wait())$(.$await)?.unwrap();
                    for options in [poll(LIMIT), block(LIMIT)] {
                        let began = Instant::now();
                        let refused = $trait::acquire_advisory_lock(&pool, &key, options)$(.$await)?;
                        assert_no_connection(refused, began);
                        // Not `None`: nothing is known of the lock.
                        let began = Instant::now();
                        let refused = $trait::try_acquire_advisory_lock(&pool, &key, options)$(.$await)?;
                        assert_no_connection(refused, began);
                    }
                    guard.release()$(.$await)?.unwrap();
                    for _ in 0..3 {
                        let guard = $trait::acquire_advisory_lock(&pool, &key, no_wait())$(.$await)?;
                        guard.unwrap().release()$(.$await)?.unwrap();
                    }
                });
            }

            /// The lock is contended, so the error states the limit of the whole call.
            #[test]
            fn time_out_states_limit_and_wait() {
                on_runtime(async {
                    let pool = super::$name()$(.$await)?;
                    let key = fresh_key();
                    let mut holder = testkit::server::connect();
                    let held = advisory_locking::AdvisoryLocking::acquire_advisory_lock(
                        &mut holder, &key, no_wait(),
                    );
                    let error = loop {
                        let refused = $trait::acquire_advisory_lock(&pool, &key, poll(LIMIT))$(.$await)?;
                        let error = refused.map(drop).unwrap_err();
                        // A loaded machine may need the whole limit to open a connection.
                        if error.kind() != LockErrorKind::Pool {
                            break error;
                        }
                    };
                    assert_eq!(error.kind(), LockErrorKind::TimedOut);
                    assert_eq!(error.limit(), Some(LIMIT));
                    assert!(error.waited() >= Some(LIMIT), "{error}");
                    held.unwrap().release().unwrap();
                });
            }
        }
    )*};
}
pools! {
    r2d2: PooledAdvisoryLocking;
    bb8: AsyncPooledAdvisoryLocking, await;
    deadpool: AsyncPooledAdvisoryLocking, await;
    mobc: AsyncPooledAdvisoryLocking, await;
    sea_orm: AsyncPooledAdvisoryLocking, await;
}
