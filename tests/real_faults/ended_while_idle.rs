//! Sessions that ended while their connections were idle in a pool, as after a restart of the
//! server.

use ::bb8_postgres::PostgresConnectionManager;
use ::deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use ::r2d2_postgres::PostgresConnectionManager as R2d2Manager;
use ::sea_orm::{ConnectOptions, Database};
use advisory_locking::{
    AsyncPooledAdvisoryLocking, LockError, LockErrorKind, PooledAdvisoryLocking,
};
use diesel::pg::PgConnection;
use diesel::r2d2::ConnectionManager;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{self, AsyncDieselConnectionManager};
use sqlx::postgres::PgPoolOptions;
use testkit::observer::Observe;
use testkit::server::{connect, fresh_key, pool_of, url};
use tokio_postgres::NoTls;

use crate::cases::no_wait;

/// Locks through a pool of one connection, whose session then ends.
fn end_idle_session(pool: &impl PooledAdvisoryLocking) {
    let guard = pool.acquire_advisory_lock(fresh_key(), no_wait()).unwrap();
    let pid = guard.session_pid();
    guard.release().unwrap();
    connect().terminate(pid.unwrap());
}

async fn end_idle_session_async(pool: &impl AsyncPooledAdvisoryLocking) {
    let guard = pool.acquire_advisory_lock(fresh_key(), no_wait()).await;
    let guard = guard.unwrap();
    let pid = guard.session_pid();
    guard.release().await.unwrap();
    connect().terminate(pid.unwrap());
}

fn assert_replaced(pool: &impl PooledAdvisoryLocking) {
    end_idle_session(pool);
    let ran = pool.with_advisory_lock(fresh_key(), no_wait(), |_| Ok::<_, LockError>(()));
    ran.unwrap();
}

async fn assert_replaced_async<P: AsyncPooledAdvisoryLocking>(pool: P) {
    end_idle_session_async(&pool).await;
    let body = async |_: &mut P::Session| Ok::<_, LockError>(());
    let ran = pool.with_advisory_lock(fresh_key(), no_wait(), body).await;
    ran.unwrap();
}

/// Runs a case on this thread only. So no task of a client notices the end of a session before the
/// next statement on it.
fn on_this_thread(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(case);
}

fn deadpool_postgres(recycling_method: RecyclingMethod) -> Pool {
    let config = ManagerConfig { recycling_method };
    let manager = Manager::from_config(url().parse().unwrap(), NoTls, config);
    Pool::builder(manager).max_size(1).build().unwrap()
}

#[test]
fn blocking_pool_with_a_check_replaces_the_connection() {
    assert_replaced(&pool_of(1));
    let manager = R2d2Manager::new(url().parse().unwrap(), NoTls);
    assert_replaced(&::r2d2::Pool::builder().max_size(1).build(manager).unwrap());
}

/// The default of each pool, except that of deadpool-postgres.
#[test]
fn async_pool_with_a_check_replaces_the_connection() {
    on_this_thread(async {
        let manager = || AsyncDieselConnectionManager::<AsyncPgConnection>::new(url());
        let bb8 = pooled_connection::bb8::Pool::builder().max_size(1);
        assert_replaced_async(bb8.build(manager()).await.unwrap()).await;
        let deadpool = pooled_connection::deadpool::Pool::builder(manager()).max_size(1);
        assert_replaced_async(deadpool.build().unwrap()).await;
        let manager = PostgresConnectionManager::new(url().parse().unwrap(), NoTls);
        let bb8 = ::bb8::Pool::builder().max_size(1).build(manager).await;
        assert_replaced_async(bb8.unwrap()).await;
        assert_replaced_async(deadpool_postgres(RecyclingMethod::Verified)).await;
        let sqlx = PgPoolOptions::new().max_connections(1);
        assert_replaced_async(sqlx.connect(&url()).await.unwrap()).await;
        let mut options = ConnectOptions::new(url());
        options.max_connections(1).sqlx_logging(false);
        assert_replaced_async(Database::connect(options).await.unwrap()).await;
    });
}

/// The failed call discards the connection.
#[test]
fn pool_without_a_check_fails_once() {
    let manager = ConnectionManager::<PgConnection>::new(url());
    let builder = diesel::r2d2::Pool::builder()
        .max_size(1)
        .test_on_check_out(false);
    let pool = builder.build(manager).unwrap();
    end_idle_session(&pool);
    let mut runs = 0;
    let mut call = || {
        pool.with_advisory_lock(fresh_key(), no_wait(), |_| {
            runs += 1;
            Ok::<_, LockError>(())
        })
    };
    assert_eq!(call().unwrap_err().kind(), LockErrorKind::Database);
    call().unwrap();
    assert_eq!(runs, 1);

    on_this_thread(async {
        let pool = deadpool_postgres(RecyclingMethod::default());
        end_idle_session_async(&pool).await;
        let refused = pool.acquire_advisory_lock(fresh_key(), no_wait()).await;
        let kind = refused.map(drop).unwrap_err().kind();
        assert_eq!(kind, LockErrorKind::Database);
        let granted = pool.acquire_advisory_lock(fresh_key(), no_wait()).await;
        granted.unwrap().release().await.unwrap();
    });
}
